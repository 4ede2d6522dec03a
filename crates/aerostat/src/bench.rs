//! Measurements against the disk, taken in one run so that both sides meet the same machine.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use aerostat_checkpoint::{Extent, File, FileId};
use aerostat_stream::{IoChoice, Ring, SourceOptions};
use serde::Serialize;

use crate::generate::{Request, demand};
use crate::observe::{Observer, Progress};
use crate::{Engine, Error, ErrorKind, ModelFiles, Options};

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

/// What sweeps reached beside raw reads of the same files in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct SweepPoint {
    /// Rows of a sweep.
    pub rows: usize,
    /// Weights kept in memory, as a share of all.
    pub pinned_fraction: f64,
    /// Sweeps measured.
    pub sweeps: u64,
    /// Weight bytes read in every sweep.
    pub streamed_bytes: u64,
    /// Median sweep of a whole generation: wall time over sweeps.
    pub sweep_seconds: f64,
    /// Fastest and slowest round.
    pub sweep_seconds_spread: (f64, f64),
    /// What the plan predicted.
    pub predicted_seconds: f64,
    /// Waiting for reads, in a sweep.
    pub stall_seconds: f64,
    /// Rows over sweep time.
    pub tokens_per_second: f64,
    /// Weight bytes over wall time.
    pub read_bytes_per_second: f64,
    /// Raw reads, median over the rounds.
    pub raw_bytes_per_second: f64,
    /// Median over the rounds of the first over the second.
    pub fraction_of_raw: f64,
    /// Slowest and fastest round.
    pub fraction_spread: (f64, f64),
    /// The process's peak resident set so far.
    pub memory_peak_bytes: u64,
}

/// How [`sweep`] measures.
#[derive(Clone, Copy, Debug)]
pub struct SweepSettings {
    /// Generations measured.
    pub rounds: usize,
    /// Sweeps of each.
    pub sweeps: usize,
    /// Raw reading before and after each.
    pub raw_time: Duration,
}

/// Generates with `rows` sequences of one token each, so that every sweep carries that many rows; each round is a
/// whole generation, first token to last, between two spells of raw reads.
///
/// # Errors
/// Those of [`Engine::open`] and [`Engine::generate`].
pub fn sweep(
    files: &ModelFiles,
    options: &Options,
    rows: usize,
    pinned_fraction: f64,
    settings: SweepSettings,
    observer: &mut dyn Observer,
) -> Result<SweepPoint, Error> {
    const RAW_READ_BYTES: u64 = 4 << 20;
    const RAW_DEPTH: usize = 8;
    let token = |i: usize| (i % files.spec.vocab) as u32;
    let request = |i: usize| Request {
        token_ids: vec![token(i)],
        max_new_tokens: settings.sweeps.max(1),
        ..Request::default()
    };
    let requests: Vec<Request> = (0..rows.max(1)).map(request).collect();
    let weights: u64 = files.spec.matrices().map(|m| m.extent.bytes).sum();
    let pinned_bytes_max = (pinned_fraction < 1.0).then_some((weights as f64 * pinned_fraction) as u64);
    let options = Options { pinned_bytes_max, ..options.clone() };
    let mut engine = Engine::open(files, &options, &demand(&requests), observer)?;
    let disk_files = files.checkpoint.catalog.files();
    let largest = disk_files.iter().map(|f| f.bytes).max().unwrap_or(0);
    let raw_bytes = RAW_READ_BYTES.min(largest).max(1);
    let mut place = 0;
    let mut raw = || raw_read(disk_files, options.io, raw_bytes, RAW_DEPTH, settings.raw_time, &mut place);
    let (mut seconds, mut fractions, mut raws) = (Vec::new(), Vec::new(), Vec::new());
    let streamed = engine.current_plan().streamed_bytes_per_sweep;
    let mut before = raw()?.bytes_per_second;
    let start = engine.stats();
    for _ in 0..settings.rounds.max(1) {
        let (sweeps, begun) = (engine.stats().sweeps, Instant::now());
        if engine.generate(&requests, None, &mut Stoppable(observer))?.interrupted {
            return Err(Error::interrupted());
        }
        let wall = begun.elapsed().as_secs_f64();
        let sweeps = (engine.stats().sweeps - sweeps) as f64;
        let after = raw()?.bytes_per_second;
        let ceiling = (before + after) / 2.0;
        seconds.push(wall / sweeps);
        fractions.push(streamed as f64 * sweeps / wall / ceiling);
        raws.push(ceiling);
        before = after;
    }
    let end = engine.stats();
    let sweeps = end.sweeps - start.sweeps;
    let (sweep_seconds, sweep_seconds_spread) = median(seconds);
    let (fraction_of_raw, fraction_spread) = median(fractions);
    Ok(SweepPoint {
        rows: rows.max(1),
        pinned_fraction: 1.0 - streamed as f64 / weights.max(1) as f64,
        sweeps,
        streamed_bytes: streamed,
        sweep_seconds,
        sweep_seconds_spread,
        predicted_seconds: engine.predicted_seconds(rows.max(1)),
        stall_seconds: (end.stall_seconds - start.stall_seconds) / sweeps.max(1) as f64,
        tokens_per_second: (end.rows - start.rows) as f64 / sweeps.max(1) as f64 / sweep_seconds,
        read_bytes_per_second: streamed as f64 / sweep_seconds,
        raw_bytes_per_second: median(raws).0,
        fraction_of_raw,
        fraction_spread,
        memory_peak_bytes: end.memory_peak_bytes,
    })
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
