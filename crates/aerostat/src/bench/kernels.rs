//! Weights times activations, for every format and number of rows, beside the peaks of cores and memory.

use std::time::{Duration, Instant};

use aerostat_backend::{Backend, Home, Mat, TileShape, Weight, WeightId};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig, Isa, peaks};
use serde::Serialize;

use super::median;
use crate::{Error, ErrorKind};

/// Columns of all weights, and rows of a tile.
const COLS: usize = 4096;
const TILE_ROWS: usize = 512;
/// Weights that one row is multiplied with: far more than caches hold.
const COLD_BYTES: usize = 320 << 20;

/// What the machine can do at most, and what kernels reach.
#[derive(Clone, Debug, Serialize)]
pub struct Kernels {
    /// Worker threads.
    pub threads: usize,
    /// Their instruction set.
    pub isa: String,
    /// Fused multiply-adds on registers, two operations each.
    pub fma_flops_per_second: f64,
    /// Reads of memory far larger than the caches: median over the formats, before each of which it is measured.
    pub memory_bytes_per_second: f64,
    /// Slowest and fastest.
    pub memory_bytes_per_second_spread: (f64, f64),
    /// Format by format.
    pub points: Vec<KernelPoint>,
}

/// One format with some rows: a tile of 512 x 4096 weights. One row meets another tile every time, so that weights come
/// from memory; more rows meet the same.
#[derive(Clone, Debug, Serialize)]
pub struct KernelPoint {
    /// Of the weights.
    pub format: String,
    /// Of the activations.
    pub rows: usize,
    /// Of one tile, median.
    pub seconds: f64,
    /// Fastest and slowest.
    pub seconds_spread: (f64, f64),
    /// Two operations for each weight and row.
    pub flops_per_second: f64,
    /// Stored weights.
    pub bytes_per_second: f64,
    /// Share of the peak of fused multiply-adds.
    pub fraction_of_fma: f64,
    /// Share of the peak of reads.
    pub fraction_of_memory: f64,
}

/// The formats whose names these are, or all.
///
/// # Errors
/// [`ErrorKind::Usage`] for a name that is none.
pub fn kernel_formats(names: &[String]) -> Result<Vec<DType>, Error> {
    if names.is_empty() {
        return Ok(DType::COMPUTABLE.to_vec());
    }
    let find = |name: &String| {
        DType::COMPUTABLE.iter().copied().find(|f| f.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known: Vec<&str> = DType::COMPUTABLE.iter().map(|f| f.name()).collect();
            let message = format!("unknown format {name:?}; known are {}", known.join(", "));
            Error::new(ErrorKind::Usage, message)
        })
    };
    names.iter().map(find).collect()
}

/// Multiplies tiles of each format with each number of rows, each for `time`. Needs about 700 MB of memory.
///
/// # Errors
/// [`ErrorKind::Device`]; `stop` ends it with [`ErrorKind::Interrupted`].
pub fn kernels(
    formats: &[DType],
    rows: &[usize],
    threads: usize,
    isa: Option<Isa>,
    time: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<Kernels, Error> {
    let isa = isa.unwrap_or_else(Isa::detect);
    let config = CpuConfig { threads, isa: Some(isa) };
    // Measured in turns with the kernels, so that both meet the same machine.
    let (mut fma, mut reads) = (0.0f64, Vec::new());
    let mut measured = Vec::new();
    for &format in formats {
        fma = fma.max(peaks::fma_peak(threads, isa)?);
        reads.push(peaks::read_peak(threads, COLD_BYTES)?);
        // Pinned tiles live as long as the device.
        let cpu = &mut Cpu::new(config)?;
        let bytes = vec![0x3cu8; TILE_ROWS * COLS / format.block_len() * format.block_bytes()];
        let shape = TileShape { dtype: format, rows: TILE_ROWS, cols: COLS, packed: false };
        let count = if rows.contains(&1) { COLD_BYTES / bytes.len() } else { 1 };
        let tiles: Vec<WeightId> = (0..count)
            .map(|_| cpu.pin(shape, Box::new(bytes.clone()), Home::Host))
            .collect::<Result<_, _>>()?;
        for &rows in rows {
            if stop() {
                return Err(Error::interrupted());
            }
            let tiles = if rows == 1 { &tiles[..] } else { &tiles[..1] };
            measured.push((format, rows, bytes.len(), runs(cpu, tiles, rows, time)?));
        }
    }
    let (memory, memory_spread) = median(reads);
    let point = |(format, rows, bytes, times): (DType, usize, usize, Vec<f64>)| {
        let (seconds, seconds_spread) = median(times);
        let flops_per_second = 2.0 * (rows * TILE_ROWS * COLS) as f64 / seconds;
        let bytes_per_second = bytes as f64 / seconds;
        KernelPoint {
            format: format.name().to_owned(),
            rows,
            seconds,
            seconds_spread,
            flops_per_second,
            bytes_per_second,
            fraction_of_fma: flops_per_second / fma,
            fraction_of_memory: bytes_per_second / memory,
        }
    };
    Ok(Kernels {
        threads,
        isa: isa.to_string(),
        fma_flops_per_second: fma,
        memory_bytes_per_second: memory,
        memory_bytes_per_second_spread: memory_spread,
        points: measured.into_iter().map(point).collect(),
    })
}

/// Seconds of each multiplication; the first is not counted.
fn runs(cpu: &mut Cpu, tiles: &[WeightId], rows: usize, time: Duration) -> Result<Vec<f64>, Error> {
    const RUNS_MIN: usize = 5;
    let (x, y) = (cpu.allocate(COLS * rows)?, cpu.allocate(TILE_ROWS * rows)?);
    let (x, y) = (Mat::new(x, rows, COLS), Mat::new(y, rows, TILE_ROWS));
    cpu.write(x, &vec![0.5; COLS * rows])?;
    let mut times = Vec::new();
    let begun = Instant::now();
    for (i, &tile) in tiles.iter().cycle().enumerate() {
        if times.len() >= RUNS_MIN && begun.elapsed() >= time {
            break;
        }
        let run = Instant::now();
        cpu.matmul(Weight::Resident(tile), x, y)?;
        if i > 0 {
            times.push(run.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}
