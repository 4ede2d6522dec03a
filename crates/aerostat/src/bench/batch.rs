//! A job of many requests beside the best that its plan allows.

use std::time::{Duration, Instant};

use aerostat_backend::Backend;
use serde::Serialize;

use super::{Stoppable, raw_read};
use crate::machine::{self, Trials};
use crate::observe::Observer;
use crate::parts;
use crate::request::{Outcome, Request, RunEnd, Want, Work};
use crate::{Draft, Engine, Error, ErrorKind, ModelFiles, Need, Options};

/// Weights that are multiplied to learn the rate: few, since they stay beside the job.
const PROBE_BYTES: u64 = 4 << 20;
/// Time from one spell to the next, in spells.
const SPELLS_APART: u32 = 20;

/// A measured job.
#[derive(Clone, Debug, Serialize)]
pub struct BatchPoint {
    /// Requests.
    pub requests: usize,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens of their answers.
    pub answer_tokens: u64,
    /// First request to last result, without the spells between.
    pub wall_seconds: f64,
    /// Of which in ops.
    pub compute_seconds: f64,
    /// Of which waiting for weights.
    pub stall_seconds: f64,
    /// The larger of the two that follow.
    pub ideal_seconds: f64,
    /// Multiplying all rows with all weights at `flops_per_second`, and nothing else.
    pub ideal_compute_seconds: f64,
    /// Reading what is streamed, at the rate of raw reads, in `sweeps_min` sweeps.
    pub ideal_read_seconds: f64,
    /// The fewest sweeps that the longest answer, the rows of a sweep and the KV cache allow.
    pub sweeps_min: u64,
    /// `wall_seconds / ideal_seconds`.
    pub of_ideal: f64,
    /// Sweeps made.
    pub sweeps: u64,
    /// Rows of a sweep, on average.
    pub rows_per_sweep: f64,
    /// Rows of a sweep at most.
    pub rows_max: usize,
    /// Rows at which computing takes as long as raw reading.
    pub rows_at_knee: usize,
    /// Answers' tokens over wall time.
    pub tokens_per_second: f64,
    /// What one request after the other would take: a sweep for each token, as the plan predicts it at the rate of the
    /// raw reads.
    pub one_by_one_seconds: f64,
    /// `one_by_one_seconds / wall_seconds`.
    pub times_one_by_one: f64,
    /// `one_by_one_seconds / ideal_seconds`: what the roofline allows.
    pub times_one_by_one_max: f64,
    /// Spells of raw reads and of multiplying alone: before, between sweeps and after.
    pub spells: usize,
    /// Raw reads, the mean of before, between sweeps and after.
    pub raw_bytes_per_second: f64,
    /// The slowest and the fastest of those spells.
    pub raw_spread: [f64; 2],
    /// Multiplying with many rows, the mean of before, between sweeps and after.
    pub flops_per_second: f64,
    /// The slowest and the fastest of those spells.
    pub flops_spread: [f64; 2],
    /// Weights read in every sweep.
    pub streamed_bytes_per_sweep: u64,
    /// Positions of the KV cache.
    pub kv_tokens: usize,
    /// Parts of it that were written to disk.
    pub spilled_bytes: u64,
    /// The bound of the process's resident set.
    pub memory_budget_bytes: u64,
    /// The process's peak resident set.
    pub memory_peak_bytes: u64,
}

/// The job that [`batch`] measures. Lengths are spread evenly.
#[derive(Clone, Debug)]
pub struct BatchSettings {
    /// Requests.
    pub requests: usize,
    /// Tokens of the shortest and the longest prompt.
    pub prompt: (usize, usize),
    /// Tokens of the shortest and the longest answer.
    pub answer: (usize, usize),
    /// Duration of a spell of raw reading, and of one of multiplying alone: before, now and then between sweeps, after.
    pub raw_time: Duration,
}

/// Runs a job of random prompts, whose answers end at their length alone, beside spells of raw reads and of multiplying
/// alone.
///
/// # Errors
/// [`ErrorKind::Usage`] for lengths that make no sense; those of [`Engine::open`] and [`Engine::run`].
pub fn batch(
    files: &ModelFiles,
    options: &Options,
    settings: &BatchSettings,
    observer: &mut dyn Observer,
) -> Result<BatchPoint, Error> {
    let BatchSettings { requests, prompt, answer, raw_time } = *settings;
    if requests == 0 || prompt.0 == 0 || answer.0 == 0 || prompt.0 > prompt.1 || answer.0 > answer.1 {
        let message =
            "a job needs requests, and its shortest lengths at least one token and at most the longest";
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let mut spells = Spells::new(files, options, raw_time)?;
    spells.measure()?;
    // Raw reading has buffers of its own, which are no part of the job's budget.
    machine::forget_peak();
    let mut job = Job { settings, vocab: files.spec.vocab, next: 0, answer_tokens: 0, spells: Some(spells) };
    let mut need = Need::none();
    for (prompt, answer) in job.lengths() {
        need.add_tokens(prompt, answer, Want::Generate);
    }
    // Answers of random prompts repeat themselves, which is easily guessed and is nobody's text.
    let options = Options { draft: Draft::None, ..options.clone() };
    let mut engine = Engine::open(files, &options, &need, observer)?;
    let begun = Instant::now();
    if engine.run(&mut job, None, &mut Stoppable(observer))? == RunEnd::Interrupted {
        return Err(Error::interrupted());
    }
    let whole = begun.elapsed();
    let Some(mut spells) = job.spells.take() else { return Err(Error::interrupted()) };
    let (wall, peak) = (whole - spells.paused, spells.peak.max(machine::peak_resident_bytes()));
    spells.measure()?;
    Ok(BatchPoint { memory_peak_bytes: peak, ..point(&engine, &job, wall.as_secs_f64(), &spells.rates) })
}

/// Spells of raw reads and of multiplying alone: before the job, between its sweeps, and after it, since both rates change
/// with whoever shares the machine.
struct Spells<'a> {
    files: &'a ModelFiles,
    options: &'a Options,
    time: Duration,
    /// Where raw reading goes on.
    place: usize,
    /// These and their device stay, as a part of what the process holds beside the job.
    backend: Box<dyn Backend>,
    trials: Option<Trials>,
    /// Bytes and operations per second of each spell.
    rates: Vec<(f64, f64)>,
    last: Instant,
    /// What the spells took of the job's time.
    paused: Duration,
    /// The process's peak resident set between them.
    peak: u64,
}

impl<'a> Spells<'a> {
    fn new(files: &'a ModelFiles, options: &'a Options, time: Duration) -> Result<Self, Error> {
        let mut backend = parts::device(options)?;
        let trials = Trials::new(&mut *backend, &files.spec, PROBE_BYTES)?;
        let (last, paused) = (Instant::now(), Duration::ZERO);
        Ok(Self { files, options, time, place: 0, backend, trials, rates: Vec::new(), last, paused, peak: 0 })
    }

    fn measure(&mut self) -> Result<(), Error> {
        let files = self.files.checkpoint.catalog.files();
        let largest = files.iter().map(|f| f.bytes).max().unwrap_or(0);
        let size = (4 << 20).min(largest).max(1);
        let read = raw_read(files, self.options.io, size, 8, self.time, &mut self.place)?;
        let Self { trials, backend, time, .. } = self;
        let multiplied = trials.as_mut().map(|trials| trials.flops_per_second(&mut **backend, *time));
        let multiplied = multiplied.transpose()?;
        self.rates.push((read.bytes_per_second, multiplied.unwrap_or(f64::INFINITY)));
        self.last = Instant::now();
        Ok(())
    }

    /// The job pauses for a spell if the last one was long ago.
    fn between_sweeps(&mut self) -> Result<(), Error> {
        if self.last.elapsed() < self.time * SPELLS_APART {
            return Ok(());
        }
        let begun = Instant::now();
        self.peak = self.peak.max(machine::peak_resident_bytes());
        self.measure()?;
        machine::forget_peak();
        self.paused += begun.elapsed();
        Ok(())
    }
}

/// Least, mean and most of some rates.
fn spread(rates: impl Iterator<Item = f64> + Clone) -> (f64, [f64; 2]) {
    let mean = rates.clone().sum::<f64>() / rates.clone().count().max(1) as f64;
    (mean, [rates.clone().fold(f64::INFINITY, f64::min), rates.fold(0.0, f64::max)])
}

fn point(engine: &Engine, job: &Job<'_>, wall_seconds: f64, rates: &[(f64, f64)]) -> BatchPoint {
    let (raw_bytes_per_second, raw_spread) = spread(rates.iter().map(|r| r.0));
    let (flops_per_second, flops_spread) = spread(rates.iter().map(|r| r.1));
    let (plan, stats) = (engine.current_plan(), engine.stats());
    let cost = plan.cost.at_read_rate(raw_bytes_per_second);
    let lengths: Vec<(usize, usize)> = job.lengths().collect();
    let rows: u64 = lengths.iter().map(|(prompt, answer)| (prompt + answer - 1) as u64).sum();
    let logit_rows: u64 = lengths.iter().map(|(_, answer)| *answer as u64).sum();
    let ideal_compute_seconds =
        plan.cost.compute_seconds(rows, logit_rows) * plan.cost.flops_per_second / flops_per_second;
    let sweeps_min = sweeps_min(&lengths, (plan.rows_max, plan.logit_rows_max, plan.kv_pages));
    let ideal_read_seconds = sweeps_min as f64 * plan.streamed_bytes_per_sweep as f64 / raw_bytes_per_second;
    let ideal_seconds = ideal_compute_seconds.max(ideal_read_seconds);
    let alone = |(prompt, answer): &(usize, usize)| {
        let chunks = prompt.div_ceil(plan.rows_max);
        cost.seconds(prompt / chunks, 1) * chunks as f64 + cost.seconds(1, 1) * (answer - 1) as f64
    };
    let one_by_one_seconds: f64 = lengths.iter().map(alone).sum();
    BatchPoint {
        requests: lengths.len(),
        prompt_tokens: lengths.iter().map(|(prompt, _)| *prompt as u64).sum(),
        answer_tokens: job.answer_tokens,
        wall_seconds,
        compute_seconds: stats.compute_seconds,
        stall_seconds: stats.stall_seconds,
        ideal_seconds,
        ideal_compute_seconds,
        ideal_read_seconds,
        sweeps_min,
        of_ideal: wall_seconds / ideal_seconds,
        sweeps: stats.sweeps,
        rows_per_sweep: stats.rows as f64 / stats.sweeps.max(1) as f64,
        rows_max: plan.rows_max,
        rows_at_knee: cost.knee(),
        tokens_per_second: job.answer_tokens as f64 / wall_seconds,
        one_by_one_seconds,
        times_one_by_one: one_by_one_seconds / wall_seconds,
        times_one_by_one_max: one_by_one_seconds / ideal_seconds,
        spells: rates.len(),
        raw_bytes_per_second,
        raw_spread,
        flops_per_second,
        flops_spread,
        streamed_bytes_per_sweep: plan.streamed_bytes_per_sweep,
        kv_tokens: plan.kv_pages * aerostat_plan::PAGE_TOKENS,
        spilled_bytes: stats.spilled_bytes,
        memory_budget_bytes: stats.memory_budget_bytes,
        memory_peak_bytes: stats.memory_peak_bytes,
    }
}

/// No schedule needs fewer sweeps: the longest answer takes one for each of its tokens; sweeps carry so many rows, and
/// so many with logits; and each sequence holds its growing part of the KV cache through one sweep for each token of its
/// answer, of which a sweep can only serve what the cache holds.
fn sweeps_min(
    lengths: &[(usize, usize)],
    (rows_max, logit_rows_max, kv_pages): (usize, usize, usize),
) -> u64 {
    let page = aerostat_plan::PAGE_TOKENS;
    let (mut rows, mut logits, mut longest, mut held) = (0, 0, 0, 0);
    for &(prompt, answer) in lengths {
        rows += prompt + answer - 1;
        logits += answer;
        longest = longest.max(answer + prompt.div_ceil(rows_max) - 1);
        held += (0..answer).map(|i| (prompt + i).div_ceil(page)).sum::<usize>();
    }
    let each = [rows.div_ceil(rows_max), logits.div_ceil(logit_rows_max), held.div_ceil(kv_pages)];
    each.into_iter().fold(longest, usize::max) as u64
}

/// Requests made as they are asked for.
struct Job<'a> {
    settings: &'a BatchSettings,
    vocab: usize,
    next: usize,
    answer_tokens: u64,
    spells: Option<Spells<'a>>,
}

impl Job<'_> {
    /// Prompt and answer of a request. Steps of the golden ratio spread lengths evenly in any part of the list.
    fn length(&self, i: usize) -> (usize, usize) {
        let spread = |(least, most): (usize, usize), ratio: f64| {
            least + ((i as f64 * ratio).fract() * (most - least + 1) as f64) as usize
        };
        (spread(self.settings.prompt, 0.618_033_988_75), spread(self.settings.answer, 0.754_877_666_25))
    }

    fn lengths(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.settings.requests).map(|i| self.length(i))
    }
}

impl Work for Job<'_> {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        if self.next == self.settings.requests {
            return Ok(None);
        }
        let (id, (prompt, max_new_tokens)) = (self.next, self.length(self.next));
        self.next += 1;
        let token = |i: usize| ((id * 7919 + i * 104_729) % self.vocab) as u32;
        let token_ids = (0..prompt).map(token).collect();
        Ok(Some(Request { id: id as u64, token_ids, max_new_tokens, ..Request::default() }))
    }

    fn finished(&mut self, _id: u64, outcome: Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Completion(completion) => self.answer_tokens += completion.token_ids.len() as u64,
            Outcome::Failed(error) => return Err(error),
            _ => {}
        }
        Ok(())
    }

    fn tokens_left(&self) -> u64 {
        (self.next..self.settings.requests).map(|i| self.length(i).1 as u64).sum()
    }

    fn sweep_over(&mut self) -> Result<(), Error> {
        self.spells.as_mut().map_or(Ok(()), Spells::between_sweeps)
    }
}

#[cfg(test)]
mod tests {
    use aerostat_backend::reference::Reference;
    use aerostat_model::{Limits, Pages};

    use super::*;
    use crate::Silent;
    use crate::rows::Rows;
    use crate::sampler::Sampler;
    use crate::schedule::{Memory, Rules, Schedule};
    use crate::sequence::{Ask, Sequence};

    /// Runs a job's schedule without computing anything; gives the rows of each sweep.
    fn simulate(job: &mut Job<'_>, knee: usize, limits: Limits, pages: usize) -> Vec<usize> {
        let mut schedule =
            Schedule::new(Rules { chunk: usize::MAX, whole: false, knee, shares: None, spill: None, kept: None });
        let (mut rows, mut pages) = (Rows::default(), Pages::new(pages, aerostat_plan::PAGE_TOKENS));
        let (mut backend, mut sampler) = (Reference::new(), Sampler::default());
        let mut sweeps = Vec::new();
        loop {
            let mut next = |ask| match ask {
                Ask::Urgent => Ok(None),
                Ask::Any => job.next()?.map(|r| Sequence::new(r, None, &mut Silent)).transpose(),
            };
            let mut memory = Memory { pages: &mut pages, backend: &mut backend };
            if !schedule.fill(&mut rows, limits, &mut memory, &mut next).unwrap() {
                return sweeps;
            }
            sweeps.push(rows.tokens.len());
            for &(index, position) in &rows.owners {
                schedule.active[index].take_logits(position, &[1.0, 0.0], &mut sampler, &mut Silent);
            }
            schedule.take_done(&mut memory);
        }
    }

    #[test]
    fn a_mixed_job_takes_little_more_than_the_ideal_whatever_the_cache_holds() {
        let settings =
            BatchSettings { requests: 1000, prompt: (16, 512), answer: (1, 128), raw_time: Duration::ZERO };
        // Rows at which computing takes as long as reading, rows of a sweep, pages; and what is reached. Where the fewest
        // sweeps run just at the knee, 1.19 is the best there is; 128 pages hold five sequences.
        for (knee, rows_max, pages, most) in [
            (32, 512, 128, 1.46),
            (128, 512, 128, 1.14),
            (64, 512, 256, 1.35),
            (256, 512, 256, 1.09),
            (150, 512, 400, 1.25),
            (32, 512, 512, 1.02),
            (128, 512, 512, 1.28),
            (256, 512, 512, 1.13),
            (150, 512, 1000, 1.09),
            (60, 512, 1000, 1.02),
            (150, 512, 2000, 1.03),
            (150, 150, 2000, 1.22),
            (400, 512, 2000, 1.22),
            (150, 512, 8000, 1.03),
            (1, 512, 2000, 1.01),
        ] {
            let mut job = Job { settings: &settings, vocab: 100, next: 0, answer_tokens: 0, spells: None };
            let limits = Limits { rows_max, logit_rows_max: rows_max, states: 0 };
            let sweeps = simulate(&mut job, knee, limits, pages);
            // In sweeps that only read; where reading and computing take nearly the same time, neither hides wholly.
            let cost = |rows: usize| ((rows as f64 / knee as f64).powi(4) + 1.0).sqrt().sqrt();
            let wall: f64 = sweeps.iter().map(|rows| cost(*rows)).sum();
            let lengths: Vec<(usize, usize)> = job.lengths().collect();
            let fewest = sweeps_min(&lengths, (rows_max, rows_max, pages));
            let rows: usize = sweeps.iter().sum();
            assert_eq!(rows, lengths.iter().map(|(prompt, answer)| prompt + answer - 1).sum::<usize>());
            let ideal = (rows as f64 / knee as f64).max(fewest as f64);
            let way = format!("knee {knee}, {rows_max} rows, {pages} pages");
            println!("{way}: {} sweeps, {fewest} at least, {wall:.0} of {ideal:.0}", sweeps.len());
            assert!(wall <= most * ideal, "{way}: {}", wall / ideal);
        }
    }

    #[test]
    fn short_spells_lie_between_all_sweeps_and_before_and_after() {
        let files = ModelFiles::open(&aerostat_testkit::fixture("llama").path).unwrap();
        let raw_time = Duration::from_nanos(1);
        let settings = BatchSettings { requests: 5, prompt: (2, 9), answer: (1, 6), raw_time };
        let point = batch(&files, &Options::default(), &settings, &mut Silent).unwrap();
        assert_eq!(point.spells as u64, point.sweeps + 2);
        let [least, most] = point.flops_spread;
        assert!(0.0 < least && least <= point.flops_per_second && point.flops_per_second <= most);
    }

    #[test]
    fn lengths_of_a_job_lie_between_the_least_and_the_most() {
        let settings =
            BatchSettings { requests: 1000, prompt: (16, 512), answer: (1, 128), raw_time: Duration::ZERO };
        let job = Job { settings: &settings, vocab: 100, next: 0, answer_tokens: 0, spells: None };
        let lengths: Vec<(usize, usize)> = job.lengths().collect();
        assert!(lengths.iter().all(|(p, a)| (16..=512).contains(p) && (1..=128).contains(a)));
        let mean = |f: fn(&(usize, usize)) -> usize| lengths.iter().map(f).sum::<usize>() as f64 / 1000.0;
        assert!((mean(|l| l.0) - 264.0).abs() < 4.0 && (mean(|l| l.1) - 64.5).abs() < 1.0);
    }
}
