//! A graphics card: how fast weights get to it, and how fast it multiplies them, beside what it can do at most.

use std::time::{Duration, Instant};

use aerostat_backend::{Backend, Home, Mat, TileShape, Weight, WeightId};
use aerostat_checkpoint::DType;
use aerostat_gpu::{Choice, Gpu, GpuConfig, UploadPath};
use serde::Serialize;

use super::{KernelPoint, median};
use crate::Error;

/// Columns of all weights, and rows of a tile.
const COLS: usize = 4096;
const TILE_ROWS: usize = 512;
/// Weights that one row is multiplied with: more than caches hold.
const COLD_BYTES: u64 = 320 << 20;
/// Bytes of a tile that is sent.
const UPLOAD_BYTES: usize = 4 << 20;
/// Multiplications that are waited for together, at most: waiting takes its time, too.
const TOGETHER_MAX: f64 = 64.0;

/// What a card can do at most, and what kernels reach.
#[derive(Clone, Debug, Serialize)]
pub struct GpuKernels {
    /// The adapter's name, with its driver.
    pub adapter: String,
    /// Weights on their way to the device, nothing else being done.
    pub upload_bytes_per_second: f64,
    /// Fused multiply-adds on registers, two operations each.
    pub fma_flops_per_second: f64,
    /// Reads of its memory.
    pub memory_bytes_per_second: f64,
    /// Format by format.
    pub points: Vec<KernelPoint>,
}

/// Measures an adapter, each for `time`; formats with tiles of 512 x 4096 weights in its memory. One row meets another tile
/// every time, so that weights come from memory; more rows meet the same.
///
/// # Errors
/// [`ErrorKind::Device`](crate::ErrorKind::Device); `stop` ends it with
/// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted).
pub fn gpu_kernels(
    adapter: Option<usize>,
    vram_bytes: Option<u64>,
    formats: &[DType],
    rows: &[usize],
    time: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<GpuKernels, Error> {
    let adapter = adapter.map_or(Choice::Any, Choice::Number);
    let config = GpuConfig { adapter, memory_bytes: vram_bytes, path: UploadPath::Auto };
    let mut gpu = Gpu::new(config)?;
    let name = gpu.name().to_owned();
    let upload_bytes_per_second = gpu.upload_rate(UPLOAD_BYTES, time)?;
    gpu.reset();
    let fma = gpu.fma_peak(time)?;
    let memory = gpu.read_peak(time)?;
    let mut points = Vec::new();
    for &format in formats {
        gpu.reset();
        let bytes = TILE_ROWS * COLS / format.block_len() * format.block_bytes();
        let shape = TileShape { dtype: format, rows: TILE_ROWS, cols: COLS, packed: false };
        let left = gpu.device_memory().map_or(0, |memory| memory.budget_bytes - memory.fixed_bytes);
        let count = if rows.contains(&1) { COLD_BYTES.min(left / 2) as usize / bytes } else { 1 };
        let tile = |gpu: &mut Gpu| gpu.pin(shape, Box::new(vec![0x3c; bytes]), Home::Device);
        let tiles = (0..count.max(1)).map(|_| tile(&mut gpu)).collect::<Result<Vec<_>, _>>()?;
        for &rows in rows {
            if stop() {
                return Err(Error::interrupted());
            }
            let tiles = if rows == 1 { &tiles[..] } else { &tiles[..1] };
            let (seconds, seconds_spread) = median(runs(&mut gpu, tiles, rows, time)?);
            let flops_per_second = 2.0 * (rows * TILE_ROWS * COLS) as f64 / seconds;
            let bytes_per_second = bytes as f64 / seconds;
            points.push(KernelPoint {
                format: format.name().to_owned(),
                rows,
                seconds,
                seconds_spread,
                flops_per_second,
                bytes_per_second,
                fraction_of_fma: flops_per_second / fma,
                fraction_of_memory: bytes_per_second / memory,
            });
        }
    }
    Ok(GpuKernels {
        adapter: name,
        upload_bytes_per_second,
        fma_flops_per_second: fma,
        memory_bytes_per_second: memory,
        points,
    })
}

/// Seconds of a multiplication, of some that were waited for together; the first are not counted.
fn runs(gpu: &mut Gpu, tiles: &[WeightId], rows: usize, time: Duration) -> Result<Vec<f64>, Error> {
    let (x, y) = (gpu.allocate(COLS * rows)?, gpu.allocate(TILE_ROWS * rows)?);
    let (x, y) = (Mat::new(x, rows, COLS), Mat::new(y, rows, TILE_ROWS));
    gpu.write(x, &vec![0.5; COLS * rows])?;
    let mut tiles = tiles.iter().cycle().copied();
    let mut multiply = |gpu: &mut Gpu, count: usize| -> Result<f64, Error> {
        let begun = Instant::now();
        for tile in tiles.by_ref().take(count) {
            gpu.matmul(Weight::Resident(tile), x, y)?;
        }
        gpu.finish()?;
        Ok(begun.elapsed().as_secs_f64() / count as f64)
    };
    multiply(gpu, 1)?;
    let one = multiply(gpu, 1)?;
    let together = (time.as_secs_f64() / 4.0 / one).clamp(1.0, TOGETHER_MAX) as usize;
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.is_empty() || begun.elapsed() < time {
        times.push(multiply(gpu, together)?);
    }
    Ok(times)
}
