//! Measurements beside the ceiling that bounds them, taken in one run so that both sides meet the same machine.

mod batch;
mod experts;
#[cfg(feature = "gpu")]
mod gpu;
mod kernels;
mod speculate;
mod sweep;
mod throughput;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use aerostat_checkpoint::{Extent, File, FileId};
use aerostat_stream::{IoChoice, Ring, SourceOptions};
use serde::Serialize;

use crate::observe::{Observer, Progress};
use crate::{Error, ErrorKind, ModelFiles};

pub use batch::{BatchPoint, BatchSettings, batch};
pub use experts::{ExpertsPoint, ExpertsReport, experts};
#[cfg(feature = "gpu")]
pub use gpu::{GpuKernels, gpu_kernels};
pub use kernels::{KernelPoint, Kernels, kernel_formats, kernels};
pub use speculate::{SpeculatePoint, speculate};
pub use sweep::{SweepPoint, SweepSettings, sweep};
pub use throughput::{ThroughputPoint, ThroughputSettings, throughput};

/// One way of reading and what it reached.
#[derive(Clone, Debug, Serialize)]
pub struct DiskPoint {
    /// How, as the source calls itself.
    pub io: String,
    /// Bytes of a read.
    pub read_bytes: u64,
    /// Reads in flight.
    pub depth: usize,
    /// Median over the rounds.
    pub bytes_per_second: f64,
    /// Slowest and fastest round.
    pub spread: (f64, f64),
}

/// Reads a model's files front to back, with nothing done to the bytes, for every size and depth in turn and then all
/// again, `rounds` times, each for `time`.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn disk(
    files: &ModelFiles,
    io: IoChoice,
    sizes: &[u64],
    depths: &[usize],
    rounds: usize,
    time: Duration,
) -> Result<Vec<DiskPoint>, Error> {
    let files = files.checkpoint.catalog.files();
    let ways: Vec<(u64, usize)> = sizes.iter().flat_map(|s| depths.iter().map(|d| (*s, *d))).collect();
    let mut rates = vec![Vec::new(); ways.len()];
    let mut name = String::new();
    let mut place = 0;
    for _ in 0..rounds.max(1) {
        for ((size, depth), rates) in ways.iter().zip(&mut rates) {
            let read = raw_read(files, io, *size, *depth, time, &mut place)?;
            name = read.io;
            rates.push(read.bytes_per_second);
        }
    }
    let point = |((read_bytes, depth), rates): ((u64, usize), Vec<f64>)| {
        let (bytes_per_second, spread) = median(rates);
        DiskPoint { io: name.clone(), read_bytes, depth, bytes_per_second, spread }
    };
    Ok(ways.into_iter().zip(rates).map(point).collect())
}

struct RawRead {
    io: String,
    bytes_per_second: f64,
}

/// Reads on from extent number `place` for a while, all files end to end.
fn raw_read(
    files: &[File],
    io: IoChoice,
    size: u64,
    depth: usize,
    time: Duration,
    place: &mut usize,
) -> Result<RawRead, Error> {
    let extents: Vec<Extent> = files
        .iter()
        .zip(0..)
        .flat_map(|(f, id)| {
            (0..f.bytes / size).map(move |i| Extent { file: FileId(id), offset: i * size, bytes: size })
        })
        .collect();
    if extents.is_empty() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the model's files are smaller than one read of {size} bytes"),
        ));
    }
    let options = SourceOptions { io, depth: NonZeroUsize::new(depth) };
    let mut ring = Ring::new(aerostat_stream::open(files, options)?, depth + 1, size as usize)?;
    let mut next = || {
        *place = (*place + 1) % extents.len();
        extents[*place]
    };
    let first: Vec<Extent> = (0..depth + 1).map(|_| next()).collect();
    ring.request(&first)?;
    let begun = Instant::now();
    let mut bytes = 0;
    while begun.elapsed() < time {
        bytes += ring.next()?.len();
        ring.request(&[next()])?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    ring.cancel();
    Ok(RawRead { io: ring.kind().name().to_owned(), bytes_per_second: bytes as f64 / seconds })
}

/// Passes on the wish to stop, and nothing else.
struct Stoppable<'a>(&'a mut dyn Observer);

impl Observer for Stoppable<'_> {
    fn progress(&mut self, progress: &Progress) -> bool {
        self.0.progress(progress)
    }
}

/// Median, and the smallest and largest.
fn median(mut values: Vec<f64>) -> (f64, (f64, f64)) {
    values.sort_by(f64::total_cmp);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2), (at(0), at(values.len().saturating_sub(1))))
}
