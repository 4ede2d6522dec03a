//! What this machine has: memory as the system reports it, and how fast reading and computing are.

use std::path::Path;
use std::time::{Duration, Instant};

use aerostat_arch::{Beside, Matrix, ModelSpec};
use aerostat_backend::quantised::{Quantised, Rounding};
use aerostat_backend::{Backend, Mat, Scaling, ScratchNeed, Tile, TileShape, Weight, packed};
use aerostat_checkpoint::{DType, Extent, File, FileId};
use aerostat_plan::Multiply;
use aerostat_stream::{IoChoice, Ring, Source, SourceOptions};
use serde::Serialize;

use crate::{Error, control_groups};

/// Rates assumed where measuring is impossible.
const READ_DEFAULT: f64 = 1e9;

/// Bytes of a read of the probe, and how many are under way.
const PROBE_EXTENT: u64 = 1 << 20;
const PROBE_SLOTS: usize = 8;

/// The machine, as far as figures measured on it depend on it.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Its name, where the system tells.
    pub cpu: String,
    /// Threads it runs at once.
    pub threads: usize,
    /// Memory in all; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// Operating system and architecture.
    pub system: String,
}

/// This machine.
pub fn describe() -> Description {
    let field = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find(|l| l.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    Description {
        cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
        threads: cores(),
        memory_bytes: kib_field(Path::new("/proc/meminfo"), "MemTotal:").unwrap_or(0),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

/// Threads that this process may run at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The largest resident set this process has had, in bytes; 0 where the system does not tell.
pub fn peak_resident_bytes() -> u64 {
    status("VmHWM:")
}

/// Lets the peak begin anew from the resident set now; nothing happens where the system cannot do that.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The resident set now, in bytes; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    status("VmRSS:")
}

fn status(key: &str) -> u64 {
    kib_field(Path::new("/proc/self/status"), key).unwrap_or(0)
}

/// Memory that could be used now without swapping, within the limits of its control groups; 4 GiB where the system
/// does not tell.
pub fn available_bytes() -> u64 {
    let system = kib_field(Path::new("/proc/meminfo"), "MemAvailable:").unwrap_or(4 << 30);
    control_groups::available_bytes(Path::new("/")).unwrap_or(u64::MAX).min(system)
}

/// A line such as `VmHWM:   1234 kB`.
fn kib_field(path: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// How this process reads these files best, and how many bytes per second that gives. Where the choice is left open, both
/// ways of direct reading are tried in turns: io_uring takes half the processor time, so the pool of threads must be the
/// faster one by a tenth, and both times. They read the start of the largest file for a moment, as a run would. The moment
/// grows with the model, from 60 to 300 ms: what reads for long deserves a steadier figure.
pub(crate) fn probe_reads(files: &[File], io: IoChoice) -> Result<(IoChoice, f64), Error> {
    const TURNS: usize = 2;
    let Some((index, file)) = files.iter().enumerate().max_by_key(|(_, f)| f.bytes) else {
        return Ok((io, READ_DEFAULT));
    };
    if file.bytes / PROBE_EXTENT < PROBE_SLOTS as u64 {
        return Ok((io, READ_DEFAULT));
    }
    let model_bytes: u64 = files.iter().map(|f| f.bytes).sum();
    let time = Duration::from_secs_f64((model_bytes as f64 / 1e10).clamp(0.06, 0.3));
    let rate = |io, time| {
        let options = SourceOptions { io, ..SourceOptions::default() };
        read_rate(aerostat_stream::open(files, options)?, index as u32, file.bytes, time)
    };
    if io != IoChoice::Auto {
        return Ok((io, rate(io, time)?));
    }
    let mut rates = [(); TURNS].map(|()| (0.0, 0.0));
    for (uring, pool) in &mut rates {
        let part = time / (2 * TURNS as u32);
        *uring = match rate(IoChoice::Uring, part) {
            Err(error) if error.kind() == aerostat_stream::ErrorKind::Unsupported => {
                return Ok((io, rate(io, time)?));
            }
            measured => measured?,
        };
        *pool = rate(IoChoice::Direct, part)?;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| rates.iter().map(of).sum::<f64>() / TURNS as f64;
    let is_pool = rates.iter().all(|(uring, pool)| *pool > 1.1 * uring);
    Ok(if is_pool { (IoChoice::Direct, mean(|r| r.1)) } else { (IoChoice::Uring, mean(|r| r.0)) })
}

/// Reads the start of a file for this time, over and over if it is short.
fn read_rate(
    source: Box<dyn Source>,
    file: u32,
    file_bytes: u64,
    time: Duration,
) -> Result<f64, aerostat_stream::Error> {
    let extents = (file_bytes / PROBE_EXTENT).max(1);
    let mut ring = Ring::new(source, PROBE_SLOTS, PROBE_EXTENT as usize)?;
    let at = |i: u64| Extent { file: FileId(file), offset: i % extents * PROBE_EXTENT, bytes: PROBE_EXTENT };
    ring.request(&(0..PROBE_SLOTS as u64).map(at).collect::<Vec<_>>())?;
    let begun = Instant::now();
    let mut read = 0;
    while begun.elapsed() < time || read < PROBE_SLOTS as u64 {
        ring.next()?;
        ring.request(&[at(read + PROBE_SLOTS as u64)])?;
        read += 1;
    }
    let seconds = begun.elapsed().as_secs_f64().max(1e-6);
    ring.cancel();
    Ok((read * PROBE_EXTENT) as f64 / seconds)
}

/// One scale for each sixteenth of a row, if a matrix is of codes, with zero points if it has some.
fn some_scales(backend: &mut dyn Backend, matrix: &Matrix) -> Result<Option<Scaling>, Error> {
    let Some(scales) = &matrix.scales else { return Ok(None) };
    let (rows, cols) = if matrix.k_major { (matrix.cols, matrix.rows) } else { (matrix.rows, matrix.cols) };
    let block_cols = if matrix.k_major { 1 } else { cols.div_ceil(16) };
    let blocks = cols.div_ceil(block_cols);
    let values = Mat::new(backend.allocate(blocks)?, 1, blocks);
    let has_zeros = scales.companions.iter().any(|companion| companion.what == Beside::Zeros);
    Ok(Some(Scaling {
        quantised: Quantised::new(scales.code, Rounding::BF16),
        scales: values,
        zeros: has_zeros.then_some(values),
        groups: None,
        block_rows: rows,
        block_cols,
        first_row: 0,
    }))
}

/// Multiplications of weights of the format that most of a model is stored in, to be timed.
pub(crate) struct Trials {
    /// Tiles of some whole rows of a matrix as they are stored, all alike.
    tiles: Vec<Weight>,
    /// Which of them is next.
    next: usize,
    weights: f64,
    time: Duration,
    k_major: bool,
    scaling: Option<Scaling>,
    x: Mat,
    y: Mat,
}

impl Trials {
    /// Activation rows, from one to many.
    const ROWS: [usize; 4] = [1, 8, 32, 128];

    /// On a device that holds nothing else. `bytes_max` bounds the memory this takes, about: weights that do not fit in the
    /// caches give the rate of one row. `None` of a model without matrices.
    pub(crate) fn new(
        backend: &mut dyn Backend,
        spec: &ModelSpec,
        bytes_max: u64,
    ) -> Result<Option<Self>, Error> {
        const TILE_BYTES: u64 = 1 << 20;
        // Sums take sixteen numbers for each output of a matrix stored by inputs.
        const OUTPUTS_BY_INPUTS: usize = 512;
        let Some(matrix) = spec.matrices().max_by_key(|m| m.extent.bytes) else { return Ok(None) };
        let outputs = if matrix.k_major { matrix.rows.min(OUTPUTS_BY_INPUTS) } else { matrix.rows };
        let matrix = &Matrix { rows: outputs, ..matrix.clone() };
        // Models of a sweep shorter than this deserve no longer look.
        let time = Duration::from_nanos(spec.matrix_bytes()).min(Duration::from_millis(8));
        let unit = matrix.unit_rows();
        let row_bytes = matrix.row_bytes().max(1);
        let (stored_rows, cols) = matrix.stored();
        let units = (TILE_BYTES / row_bytes / unit as u64).clamp(1, (stored_rows / unit).max(1) as u64);
        let rows = units as usize * unit;
        let covered = matrix.rows_before(rows);
        let (inputs, outputs) = if matrix.k_major { (covered, matrix.rows) } else { (matrix.cols, covered) };
        // No zeros: the system would give the same page again and again.
        let sample = vec![0x3c; rows * row_bytes as usize];
        let sample = if matrix.has_packed_exponents() {
            packed_exponents(matrix.dtype, outputs, matrix.cols)?
        } else {
            sample
        };
        let copies = (bytes_max.min(matrix.extent.bytes) as usize / sample.len()).max(1);
        let rows_max = Self::ROWS[Self::ROWS.len() - 1];
        backend.reserve(
            &ScratchNeed {
                k_major_outputs: if matrix.k_major { outputs } else { 0 },
                scaled_cols: matrix.scales.as_ref().map(|_| matrix.cols),
                scaled_packed: matrix.has_packed_exponents(),
                packed: matrix.has_packed_exponents(),
            },
            rows_max,
        )?;
        let mut mat = |cols: usize| -> Result<Mat, Error> {
            Ok(Mat::new(backend.allocate(rows_max * cols)?, rows_max, cols))
        };
        let (x, y) = (mat(inputs)?, mat(outputs)?);
        let scaling = some_scales(backend, matrix)?;
        let shape = TileShape { dtype: matrix.dtype, rows, cols, packed: matrix.has_packed_exponents() };
        let tile = |_| Ok(Weight::Arriving(backend.upload(shape, Box::new(sample.clone()))?));
        let tiles = (0..copies).map(tile).collect::<Result<_, Error>>()?;
        let weights = (outputs * inputs) as f64;
        Ok(Some(Self { tiles, next: 0, weights, time, k_major: matrix.k_major, scaling, x, y }))
    }

    /// The middle of some runs with so many activation rows: some met another process.
    fn measure(&mut self, backend: &mut dyn Backend, rows: usize) -> Result<Multiply, Error> {
        const RUNS_MIN: usize = 3;
        let (begun, mut times) = (Instant::now(), Vec::new());
        while times.len() < RUNS_MIN || begun.elapsed() < self.time {
            let run = Instant::now();
            self.run(backend, rows)?;
            times.push(run.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let seconds = times.get(times.len() / 2).copied().unwrap_or(0.0);
        Ok(Multiply { rows, seconds_per_weight: seconds / self.weights })
    }

    fn run(&mut self, backend: &mut dyn Backend, rows: usize) -> Result<(), Error> {
        let (x, y) = (Mat { rows, ..self.x }, Mat { rows, ..self.y });
        let weight = self.tiles[self.next];
        self.next = (self.next + 1) % self.tiles.len();
        match (&self.scaling, self.k_major) {
            (Some(scaling), true) => backend.matmul_scaled_k_major(weight, scaling, x, y, 0, false)?,
            (Some(scaling), false) => backend.matmul_scaled(weight, scaling, x, y)?,
            (None, true) => backend.matmul_k_major(weight, x, y, 0, false)?,
            (None, false) => backend.matmul(weight, x, y)?,
        }
        // A device that only noted what to do does it now.
        backend.read(Mat { rows: 1, cols: 1, ..y }).map(|_| ())?;
        Ok(())
    }

    /// Operations per second of a spell with many rows, multiply-adds counted twice.
    pub(crate) fn flops_per_second(
        &mut self,
        backend: &mut dyn Backend,
        time: Duration,
    ) -> Result<f64, Error> {
        let rows = Self::ROWS[Self::ROWS.len() - 1];
        let (begun, mut runs) = (Instant::now(), 0);
        while runs == 0 || begun.elapsed() < time {
            self.run(backend, rows)?;
            runs += 1;
        }
        Ok(2.0 * self.weights * (rows * runs) as f64 / begun.elapsed().as_secs_f64())
    }
}

/// Multiplies weights of the format that most of the model is stored in, for a moment, with one row and with more; see
/// [`Trials::new`].
pub(crate) fn multiply_rates(
    backend: &mut dyn Backend,
    spec: &ModelSpec,
    bytes_max: u64,
) -> Result<Vec<Multiply>, Error> {
    let Some(mut trials) = Trials::new(backend, spec, bytes_max)? else { return Ok(Vec::new()) };
    Trials::ROWS.into_iter().map(|rows| trials.measure(backend, rows)).collect()
}

/// A packed tile whose exponents are spread about as those of trained weights.
fn packed_exponents(dtype: DType, rows: usize, cols: usize) -> Result<Vec<u8>, Error> {
    let (mask, at) = match dtype {
        DType::BF16 => (0x7f80, 7),
        DType::F8_E4M3 => (0x7800, 11),
        _ => (0x7c00, 10),
    };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut weight = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Four bytes added are bell-shaped enough.
        let sum: i32 = (state >> 32).to_le_bytes().iter().take(4).map(|&b| i32::from(b) - 127).sum();
        let exponent = ((sum as f32 * 1e-4).to_bits() >> 23) as u16;
        ((state >> 16) as u16 & !mask | exponent << at & mask).to_le_bytes()
    };
    // A format of one byte is the upper one here.
    let skipped = 2 - dtype.block_bytes().min(2);
    let bytes: Vec<u8> = (0..rows * cols).flat_map(|_| weight().into_iter().skip(skipped)).collect();
    Ok(packed::pack(&Tile { dtype, rows, cols, bytes: &bytes }, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_the_way_that_is_named_or_a_direct_one_where_that_works() {
        let folder = tempfile::tempdir().unwrap();
        let files = [9, 8 * 1024, 9 * 1024].map(|kib: usize| {
            let path = folder.path().join(kib.to_string());
            std::fs::write(&path, vec![7; kib << 10]).unwrap();
            File { path, bytes: (kib << 10) as u64 }
        });
        let (io, rate) = probe_reads(&files, IoChoice::Buffered).unwrap();
        assert!(io == IoChoice::Buffered && rate > 0.0);
        // Too small to tell.
        assert_eq!(probe_reads(&files[..1], IoChoice::Auto).unwrap(), (IoChoice::Auto, READ_DEFAULT));
        let (io, rate) = probe_reads(&files, IoChoice::Auto).unwrap();
        let options = |io| SourceOptions { io, ..SourceOptions::default() };
        let works = |io| aerostat_stream::open(&files, options(io)).is_ok();
        let may = match io {
            IoChoice::Auto => !works(IoChoice::Uring),
            io => works(io) && io != IoChoice::Buffered,
        };
        assert!(may && rate > 0.0, "{io:?} at {rate}");
    }
}
