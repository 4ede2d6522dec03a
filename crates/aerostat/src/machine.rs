//! What this machine has: memory as the system reports it, and how fast reading and computing are.

use std::path::Path;
use std::time::{Duration, Instant};

use aerostat_backend::{Backend, Mat, Tile, Weight};
use aerostat_checkpoint::{DType, Extent, File, FileId};
use aerostat_stream::{Ring, SourceOptions};

use crate::Error;

/// Rates assumed where measuring is impossible.
const READ_DEFAULT: f64 = 1e9;
/// Streaming through resident weights, per thread.
pub(crate) const MEMORY_BYTES_PER_SECOND_PER_THREAD: f64 = 8e9;

/// The largest resident set this process has had, in bytes; 0 where the system does not tell.
pub fn peak_resident_bytes() -> u64 {
    status("VmHWM:")
}

/// The resident set now, in bytes; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    status("VmRSS:")
}

fn status(key: &str) -> u64 {
    kib_field(Path::new("/proc/self/status"), key).unwrap_or(0)
}

/// Memory that could be used now without swapping, within the limits of the control group; 4 GiB where the system
/// does not tell.
pub fn available_bytes() -> u64 {
    let system = kib_field(Path::new("/proc/meminfo"), "MemAvailable:").unwrap_or(4 << 30);
    let groups = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    let group = groups.iter().filter_map(|(limit, used)| {
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        number(limit)?.checked_sub(number(used)?)
    });
    group.fold(system, u64::min)
}

/// A line such as `VmHWM:   1234 kB`.
fn kib_field(path: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Reads the start of the largest file for a moment, as a run would, and gives bytes per second.
pub(crate) fn read_rate(files: &[File], options: SourceOptions) -> Result<f64, Error> {
    const EXTENT: u64 = 1 << 20;
    const SLOTS: usize = 8;
    const TIME: Duration = Duration::from_millis(60);
    let Some((index, file)) = files.iter().enumerate().max_by_key(|(_, f)| f.bytes) else {
        return Ok(READ_DEFAULT);
    };
    let extents = (file.bytes / EXTENT).min(256);
    if extents < SLOTS as u64 {
        return Ok(READ_DEFAULT);
    }
    let mut ring = Ring::new(aerostat_stream::open(files, options)?, SLOTS, EXTENT as usize)?;
    let at = |i: u64| Extent { file: FileId(index as u32), offset: i * EXTENT, bytes: EXTENT };
    ring.request(&(0..extents).map(at).collect::<Vec<_>>())?;
    let begun = Instant::now();
    let mut read = 0;
    while ring.pending() > 0 && (begun.elapsed() < TIME || read < SLOTS as u64) {
        ring.next()?;
        read += 1;
    }
    let seconds = begun.elapsed().as_secs_f64().max(1e-6);
    ring.cancel();
    Ok((read * EXTENT) as f64 / seconds)
}

/// Multiplies a small matrix for a moment and gives floating-point operations per second.
pub(crate) fn compute_rate(mut backend: Box<dyn Backend>) -> Result<f64, Error> {
    const ROWS: usize = 32;
    const OUTPUTS: usize = 128;
    const INPUTS: usize = 1024;
    const TIME: Duration = Duration::from_millis(10);
    let bytes = vec![0u8; OUTPUTS * INPUTS * 2];
    let tile = Tile { dtype: DType::BF16, rows: OUTPUTS, cols: INPUTS, bytes: &bytes };
    let x = Mat::new(backend.allocate(ROWS * INPUTS)?, ROWS, INPUTS);
    let y = Mat::new(backend.allocate(ROWS * OUTPUTS)?, ROWS, OUTPUTS);
    backend.matmul(Weight::Streamed(tile), x, y)?;
    let begun = Instant::now();
    let mut runs = 0;
    while begun.elapsed() < TIME || runs < 3 {
        backend.matmul(Weight::Streamed(tile), x, y)?;
        backend.read(y)?;
        runs += 1;
    }
    Ok((2 * ROWS * OUTPUTS * INPUTS * runs) as f64 / begun.elapsed().as_secs_f64())
}
