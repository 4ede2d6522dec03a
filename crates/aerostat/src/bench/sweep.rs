//! Sweeps beside raw reads of the same files.

use std::time::{Duration, Instant};

use aerostat_plan::Plan;
use serde::Serialize;

use super::{Stoppable, median, raw_read};
use crate::generate;
use crate::observe::Observer;
use crate::{Engine, Error, ErrorKind, ModelFiles, Options, Request, machine};

/// What sweeps reached beside raw reads of the same files in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct SweepPoint {
    /// Rows of a sweep.
    pub rows: usize,
    /// All weights of a sweep.
    pub weight_bytes: u64,
    /// Weights kept in memory, as a share of all.
    pub pinned_fraction: f64,
    /// Sweeps measured.
    pub sweeps: u64,
    /// Weight bytes read in a sweep; where there are experts, on average.
    pub streamed_bytes: u64,
    /// What the plan expects of them.
    pub predicted_bytes: u64,
    /// Median sweep of a whole generation: wall time over sweeps.
    pub sweep_seconds: f64,
    /// Fastest and slowest round.
    pub sweep_seconds_spread: (f64, f64),
    /// What the plan predicts at the rate of the raw reads.
    pub predicted_seconds: f64,
    /// Computing, in a sweep.
    pub compute_seconds: f64,
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
    /// Rows at which computing takes as long as raw reading of what is streamed: the plan's, for this machine.
    pub rows_at_knee: usize,
    /// The bound of the process's resident set.
    pub memory_budget_bytes: u64,
    /// The process's peak resident set meanwhile.
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
/// [`ErrorKind::Usage`] if the budget does not allow that many rows; those of [`Engine::open`] and [`Engine::generate`].
pub fn sweep(
    files: &ModelFiles,
    options: &Options,
    rows: usize,
    pinned_fraction: f64,
    settings: SweepSettings,
    observer: &mut dyn Observer,
) -> Result<SweepPoint, Error> {
    let rows = rows.max(1);
    let requests = requests(files, rows, settings.sweeps.max(1));
    let weights = files.spec.matrix_bytes();
    let pinned_bytes_max = (pinned_fraction < 1.0).then_some((weights as f64 * pinned_fraction) as u64);
    let options = Options { pinned_bytes_max, ..options.clone() };
    // What earlier measurements held is no part of this one's budget.
    machine::forget_peak();
    let mut engine = Engine::open(files, &options, &generate::need(&requests), observer)?;
    let plan = engine.current_plan();
    fits(rows, settings, plan)?;
    let certain = engine.current_plan().certain_bytes();
    let mut place = 0;
    let mut raw = || raw(files, &options, settings.raw_time, &mut place);
    let (mut seconds, mut fractions, mut raws) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = raw()?;
    let start = engine.stats();
    for _ in 0..settings.rounds.max(1) {
        let (earlier, begun) = (engine.stats(), Instant::now());
        if engine.generate(&requests, None, &mut Stoppable(observer))?.interrupted {
            return Err(Error::interrupted());
        }
        let wall = begun.elapsed().as_secs_f64();
        let now = engine.stats();
        let sweeps = (now.sweeps - earlier.sweeps) as f64;
        let read = certain as f64 * sweeps + (now.expert_bytes - earlier.expert_bytes) as f64;
        let after = raw()?;
        let ceiling = (before + after) / 2.0;
        seconds.push(wall / sweeps);
        fractions.push(read / wall / ceiling);
        raws.push(ceiling);
        before = after;
    }
    let end = engine.stats();
    let sweeps = end.sweeps - start.sweeps;
    let each = |seconds: f64| seconds / sweeps.max(1) as f64;
    let (sweep_seconds, sweep_seconds_spread) = median(seconds);
    let (fraction_of_raw, fraction_spread) = median(fractions);
    let raw_bytes_per_second = median(raws).0;
    let cost = engine.current_plan().cost.at_read_rate(raw_bytes_per_second);
    let streamed = certain as f64 + each((end.expert_bytes - start.expert_bytes) as f64);
    Ok(SweepPoint {
        rows,
        weight_bytes: weights,
        pinned_fraction: engine.current_plan().pinned_fraction(&files.spec),
        sweeps,
        streamed_bytes: streamed.round() as u64,
        predicted_bytes: cost.read_bytes(rows, rows).round() as u64,
        sweep_seconds,
        sweep_seconds_spread,
        predicted_seconds: cost.seconds(rows, rows),
        compute_seconds: each(end.compute_seconds - start.compute_seconds),
        stall_seconds: each(end.stall_seconds - start.stall_seconds),
        tokens_per_second: (end.rows - start.rows) as f64 / sweeps.max(1) as f64 / sweep_seconds,
        read_bytes_per_second: streamed / sweep_seconds,
        raw_bytes_per_second,
        fraction_of_raw,
        fraction_spread,
        rows_at_knee: cost.knee(),
        memory_budget_bytes: end.memory_budget_bytes,
        memory_peak_bytes: end.memory_peak_bytes,
    })
}

/// Whether the plan allows sweeps of so many rows.
fn fits(rows: usize, settings: SweepSettings, plan: &Plan) -> Result<(), Error> {
    let pages_each = (1 + settings.sweeps.max(1)).div_ceil(aerostat_plan::PAGE_TOKENS);
    let rows_max = plan.rows_max.min(plan.logit_rows_max).min(plan.kv_pages / pages_each);
    if rows <= rows_max {
        return Ok(());
    }
    let message = format!("the budget allows sweeps of {rows_max} rows, not {rows}; raise --memory");
    Err(Error::new(ErrorKind::Usage, message))
}

/// Sequences of one token and so many more.
fn requests(files: &ModelFiles, rows: usize, sweeps: usize) -> Vec<Request> {
    let token = |i: usize| (i % files.spec.vocab) as u32;
    (0..rows)
        .map(|i| Request { token_ids: vec![token(i)], max_new_tokens: sweeps, ..Request::default() })
        .collect()
}

/// Bytes per second of raw reads of the model's files.
fn raw(files: &ModelFiles, options: &Options, time: Duration, place: &mut usize) -> Result<f64, Error> {
    const READ_BYTES: u64 = 4 << 20;
    const DEPTH: usize = 8;
    let files = files.checkpoint.catalog.files();
    let largest = files.iter().map(|f| f.bytes).max().unwrap_or(0);
    let read_bytes = READ_BYTES.min(largest).max(1);
    Ok(raw_read(files, options.io, read_bytes, DEPTH, time, place)?.bytes_per_second)
}
