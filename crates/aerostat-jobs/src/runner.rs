//! A job at work: lines become requests, results become lines, and nothing is counted before it is durable.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aerostat::{Gained, Outcome, Plan, Request, TokenLogprobs, Work};
use aerostat_openai::{PARTS_MAX, Refusal, RefusalKind, Token};

use crate::active::{Active, Sequence, finished, tokens_of};
use crate::compiler::Coming;
use crate::counts::Counts;
use crate::database::{Batch, State};
use crate::error::{Error, ErrorKind};
use crate::forecast::{Endings, Forecast, Left, forecast, pace};
use crate::input;
use crate::job::{FINISHED, Job, now};
use crate::journal::pack_tokens;
use crate::requests::{Item, Unserved};
use crate::watch::{JobProgress, Shared};

/// Commits are at least this far apart, so that sweeps of a millisecond do not wait for the disk each time.
const COMMIT_EVERY: Duration = Duration::from_millis(50);
/// After one that took long, the next waits so many times as long, so that saving takes a hundredth of the time; but no longer
/// than this, and not where so many bytes wait to be saved.
const COMMIT_PAUSE: u32 = 100;
const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(5);
const COMMIT_BYTES: usize = 1 << 20;
/// Forecasts are at least this far apart, and take a hundredth of the time at most.
const FORECAST_EVERY: Duration = Duration::from_secs(1);
/// No further lines are taken while the names of those under way have more bytes than this.
const IDS_BYTES_MAX: usize = 1 << 20;
/// So many lines wait for their grammars at once; each is in memory.
const COMING_MAX: usize = 4;
/// What is being compiled is waited for at most this long between two sweeps, and a tenth of the time that the last one took.
const PATIENCE_MAX: Duration = Duration::from_millis(100);
const PATIENCE_MIN: Duration = Duration::from_millis(2);
/// A request's id is its line's number and, in these bits, its part's.
const PART_BITS: u32 = 16;
const _: () = assert!(PARTS_MAX <= 1 << PART_BITS);

/// A job and all that is under way of it.
pub(crate) struct Runner {
    job: Job,
    /// What sweeps cost; `None` in a session, whose sweeps others share.
    plan: Option<Plan>,
    shared: Arc<Shared>,
    /// The input was found to be what it was, after a line was refused.
    input_checked: bool,
    /// Parts of lines under way that the engine has not asked for, by line and index.
    queue: VecDeque<(u64, usize)>,
    /// Lines under way whose grammars are being compiled.
    coming: VecDeque<(u64, Coming)>,
    /// Requests that the engine has.
    handed: usize,
    /// How long grammars are waited for yet before the next sweep.
    patience: Duration,
    /// When the last sweep was over.
    swept: Instant,
    active: BTreeMap<u64, Active>,
    /// Bytes of their names.
    ids_bytes: usize,
    /// Lines wait until others are done, since those hold too much.
    waits: bool,
    /// Lines of which something was saved by an earlier run.
    saved: HashSet<u64>,
    batch: Batch,
    /// What stopped the job, if it was not the engine.
    failure: Option<Error>,
    counts: Counts,
    /// Sequences that gained something in the last sweep.
    decodes: usize,
    /// Tokens of lines that are not under way yet.
    waiting_tokens: u64,
    tally: Tally,
    begun: Instant,
    committed: Option<Instant>,
    /// How long the next commit waits.
    pause: Duration,
    /// Bytes of the batch that wait to be saved.
    batch_bytes: usize,
    forecast: (Forecast, Option<Instant>, Duration),
}

/// What was counted in this run.
#[derive(Default)]
struct Tally {
    tokens: u64,
    /// Of all runs' answers that ended.
    endings: Endings,
    sweeps: u64,
    rows: u64,
    /// Seconds of sweeps, and what the plan said they would take.
    seconds: f64,
    predicted: f64,
    swept: Option<Instant>,
}

impl Runner {
    /// Takes the job up; what others see of it is in `shared` from here on.
    pub(crate) fn new(mut job: Job, plan: Option<Plan>, shared: Arc<Shared>) -> Result<Self, Error> {
        let saved = job.database.lines_under_way()?.into_iter().collect();
        let mut tally = Tally::default();
        for row in job.rows.iter().filter(|r| r.state == State::Done && r.answer > 0) {
            tally.endings.tokens += u64::from(row.generated);
            tally.endings.ended += u64::from(row.generated < row.answer * row.parts);
        }
        job.database.set(&*job.disk, &[("state", "running".to_owned())])?;
        job.requests.rewind(false)?;
        let runner = Self {
            input_checked: false,
            counts: job.counts(),
            decodes: 0,
            waiting_tokens: job.lengths().total as u64,
            job,
            plan,
            shared,
            queue: VecDeque::new(),
            coming: VecDeque::new(),
            handed: 0,
            patience: PATIENCE_MAX,
            swept: Instant::now(),
            active: BTreeMap::new(),
            ids_bytes: 0,
            waits: false,
            saved,
            batch: Batch::default(),
            failure: None,
            tally,
            begun: Instant::now(),
            committed: None,
            pause: COMMIT_EVERY,
            batch_bytes: 0,
            forecast: (Forecast::default(), None, Duration::ZERO),
        };
        runner.tell();
        Ok(runner)
    }

    /// Takes lines until there is one to do; false at the end of the input.
    fn take_line(&mut self) -> Result<bool, Error> {
        loop {
            let Some(number) = self.job.requests.advance()? else { return Ok(false) };
            let row = *self.job.row(number).ok_or_else(|| changed(&self.job.paths.input))?;
            if row.state != State::ToDo {
                continue;
            }
            match self.job.requests.read() {
                // Answers to what was not checked would be taken for answers to what was.
                Ok(item) if item.mark() != row.mark => return Err(changed(&self.job.paths.input)),
                Ok(item) => self.enter(number, item)?,
                Err(unserved) => {
                    self.check_input()?;
                    self.fail(number, &unserved)?;
                }
            }
            let tokens = u64::from(row.prompt) + u64::from(row.parts) * u64::from(row.answer);
            self.waiting_tokens = self.waiting_tokens.saturating_sub(tokens);
            return Ok(true);
        }
    }

    /// A line that was good when it was checked is not good now: that is the input's doing, unless it is the same still.
    fn check_input(&mut self) -> Result<(), Error> {
        let path = &self.job.paths.input;
        if !self.input_checked && input::digest(path)? != self.job.database.must_fact("input_digest")? {
            return Err(changed(path));
        }
        self.input_checked = true;
        Ok(())
    }

    /// Takes a line under way, less what an earlier run did of it.
    fn enter(&mut self, number: u64, item: Box<dyn Item>) -> Result<(), Error> {
        let saved = self.saved.remove(&number).then_some(&self.job.database);
        let active = Active::new(number, item, saved)?;
        self.ids_bytes += active.item.name().map_or(0, str::len);
        let left = active.left;
        match active.item.shape().filter(|_| left > 0) {
            Some(shape) => self.coming.push_back((number, self.job.requests.compile(shape))),
            None => self.ask_for(number, &active),
        }
        self.active.insert(number, active);
        if left == 0 {
            self.complete(number)?;
        }
        Ok(())
    }

    /// Puts the parts of a line where the engine takes them.
    fn ask_for(&mut self, number: u64, active: &Active) {
        let open = active.parts.iter().enumerate().filter(|(_, part)| !part.done);
        // What follows another part waits for that.
        let now = if active.item.follows() { 1 } else { usize::MAX };
        self.queue.extend(open.take(now).map(|(index, _)| (number, index)));
    }

    /// Takes the first of the grammars that are being compiled, as soon as it is there; false if it is not.
    fn take_grammar(&mut self) -> Result<bool, Error> {
        // An engine that has nothing else to do waits for it; in a session, others go on.
        let idle = self.handed == 0 && self.plan.is_some();
        let Some((number, coming)) = self.coming.front() else { return Ok(false) };
        let (number, begun) = (*number, Instant::now());
        let compiled = coming.within(if idle { Duration::MAX } else { self.patience });
        self.patience = self.patience.saturating_sub(begun.elapsed());
        let Some(compiled) = compiled else { return Ok(false) };
        self.coming.pop_front();
        match compiled {
            Ok(grammar) => {
                let none = || Error::defect(format!("line {} is not under way", number + 1));
                let active = self.active.remove(&number).ok_or_else(none)?;
                self.ask_for(number, &active);
                self.active.insert(number, Active { grammar: Some(grammar), ..active });
            }
            Err(refusal) if refusal.kind() == RefusalKind::Defect => return Err(refusal.into()),
            Err(refusal) => self.give_up(number, refusal)?,
        }
        Ok(true)
    }

    /// Takes a line out of those under way.
    fn leave(&mut self, number: u64) -> Option<Active> {
        let active = self.active.remove(&number)?;
        self.ids_bytes -= active.item.name().map_or(0, str::len);
        Some(active)
    }

    /// Fails a line under way; parts of it that the engine has are of no use any more.
    fn give_up(&mut self, number: u64, refusal: Refusal) -> Result<(), Error> {
        let active = self.leave(number);
        self.queue.retain(|(of, _)| *of != number);
        let item = active.as_ref().map(|active| &*active.item);
        self.fail(number, &Unserved::of(item, refusal))
    }

    /// The next request; `None` if there is none now.
    fn next_request(&mut self) -> Result<Option<Request>, Error> {
        self.waits = false;
        loop {
            while let Some((number, index)) = self.queue.pop_front() {
                match self.request(number, index)? {
                    Ok(request) => {
                        self.handed += 1;
                        return Ok(Some(request));
                    }
                    Err(refusal) if refusal.kind() == RefusalKind::Defect => return Err(refusal.into()),
                    Err(refusal) => self.give_up(number, refusal)?,
                }
            }
            self.waits = self.ids_bytes > IDS_BYTES_MAX;
            let full = self.waits || self.coming.len() >= COMING_MAX;
            if (full || !self.take_line()?) && !self.take_grammar()? {
                self.waits |= !self.coming.is_empty();
                return Ok(None);
            }
        }
    }

    /// The engine's request for a part of a line, less what an earlier run did of it.
    fn request(&mut self, number: u64, index: usize) -> Result<Result<Request, Refusal>, Error> {
        let none = || Error::defect(format!("part {index} of line {} is not under way", number + 1));
        let last = self.queue.front().is_none_or(|(next, _)| *next != number);
        let Active { item, parts, grammar, .. } = self.active.get_mut(&number).ok_or_else(none)?;
        let before = match index.checked_sub(1).filter(|_| item.follows()) {
            Some(before) => tokens_of(number, before, parts, &self.job.database)?,
            None => Vec::new(),
        };
        let part = parts.get(index).ok_or_else(none)?;
        let constraint = if last { grammar.take() } else { grammar.as_ref().map(|g| g.boxed_clone()) };
        Ok(item.part(index, &before).and_then(|request| {
            resume(Request { id: (number << PART_BITS) | index as u64, constraint, ..request }, part)
        }))
    }

    /// A part that is under way, and its line; `None` if its line has failed, which others of its parts need not know.
    fn part(&mut self, id: u64) -> Result<Option<(u64, usize, &mut Active)>, Error> {
        let (number, index) = (id >> PART_BITS, (id & ((1 << PART_BITS) - 1)) as usize);
        let failed = self.job.row(number).is_some_and(|row| row.state == State::Failed);
        match self.active.get_mut(&number) {
            Some(active) if active.parts.get(index).is_some_and(|p| !p.done) => {
                Ok(Some((number, index, active)))
            }
            None if failed => Ok(None),
            _ => Err(Error::defect(format!("part {index} of line {} is not under way", number + 1))),
        }
    }

    /// Puts an outcome where it belongs.
    fn settle(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        let Some((number, index, active)) = self.part(id)? else { return Ok(()) };
        let settled = match active.item.settle(outcome) {
            Ok(settled) => settled,
            Err(refusal) if refusal.kind() == RefusalKind::Defect => return Err(refusal.into()),
            Err(refusal) => return self.give_up(number, refusal),
        };
        active.left -= 1;
        let (complete, follows) = (active.left == 0, active.item.follows());
        // The last part of a line is saved with the line.
        let saved = (!complete).then(|| settled.bytes.clone());
        let part = &mut active.parts[index];
        (part.done, part.result) = (true, Some(settled.bytes));
        self.tally.endings.ended += u64::from(settled.ended_early);
        self.batch_bytes += saved.as_ref().map_or(0, Vec::len);
        self.batch.parts.extend(saved.map(|bytes| (number, index as u32, bytes)));
        if complete {
            return self.complete(number);
        }
        if follows {
            self.queue.push_front((number, index + 1));
        }
        Ok(())
    }

    /// Writes the output line of a line whose parts are all there.
    fn complete(&mut self, number: u64) -> Result<(), Error> {
        let lacks = || Error::defect(format!("line {} is complete and was never begun", number + 1));
        let active = self.leave(number).ok_or_else(lacks)?;
        let generated = active.generated() as u32;
        let Active { item, mut parts, .. } = active;
        let Job { database, output, created, .. } = &mut self.job;
        let mut part = |index| finished(number, index, &mut parts, database);
        item.write(number, *created, &mut part, output)?;
        self.counts.done += 1;
        self.mark(number, State::Done, generated)
    }

    fn fail(&mut self, number: u64, unserved: &Unserved) -> Result<(), Error> {
        let line = self.job.requests.failure(number, unserved);
        self.job.errors.push(line.as_bytes())?;
        if self.plan.is_some() {
            self.shared.fail(unserved.name.as_deref(), unserved.refusal.message());
        }
        self.counts.failed += 1;
        self.mark(number, State::Failed, 0)
    }

    fn mark(&mut self, number: u64, state: State, generated: u32) -> Result<(), Error> {
        let none = || Error::defect(format!("line {} is settled and was never read", number + 1));
        let row = self.job.row_mut(number).ok_or_else(none)?;
        (row.state, row.generated) = (state, generated);
        self.batch.settled.push((number, state, generated));
        Ok(())
    }

    /// Makes results durable, then counts them; saves the tokens of what is under way.
    fn commit(&mut self) -> Result<(), Error> {
        let job = &mut self.job;
        let output_bytes = job.output.commit()?;
        let errors_bytes = job.errors.commit()?;
        let settled: HashSet<u64> = self.batch.settled.iter().map(|(number, ..)| *number).collect();
        self.batch.gained.retain(|(number, ..)| !settled.contains(number));
        self.batch.parts.retain(|(number, ..)| !settled.contains(number));
        self.batch.facts.extend([
            ("output_bytes", output_bytes.to_string()),
            ("errors_bytes", errors_bytes.to_string()),
            ("updated", now().to_string()),
            ("seconds_left", (self.forecast.0.seconds.round() as u64).to_string()),
        ]);
        job.database.commit(&*job.disk, &self.batch)?;
        for (number, part, _) in std::mem::take(&mut self.batch).parts {
            if let Some(active) = self.active.get_mut(&number) {
                active.forget(part);
            }
        }
        self.committed = Some(Instant::now());
        self.batch_bytes = 0;
        Ok(())
    }

    /// Takes the new tokens of a sequence.
    fn gain(&mut self, gained: &Gained<'_>) -> Result<(), Error> {
        if gained.tokens.is_empty() {
            return Ok(());
        }
        let Some((number, index, active)) = self.part(gained.id)? else { return Ok(()) };
        let part = &mut active.parts[index];
        let position = part.tokens.len() as u32;
        let tokens = Token::zip(gained.tokens, gained.logprobs)?;
        let packed = pack_tokens(&tokens)?;
        part.generated += tokens.len();
        part.tokens.extend(tokens);
        self.batch_bytes += packed.len();
        self.batch.gained.push((number, index as u32, position, packed));
        self.tally.tokens += gained.tokens.len() as u64;
        self.tally.endings.tokens += gained.tokens.len() as u64;
        Ok(())
    }

    /// Keeps an error of the job's own, and gives the engine one that stops it.
    fn told<T>(&mut self, result: Result<T, Error>) -> Result<T, aerostat::Error> {
        result.map_err(|e| {
            let stop = aerostat::Error::new(aerostat::ErrorKind::Job, e.to_string());
            self.failure = Some(e);
            stop
        })
    }

    /// Counts the sweep that ended.
    fn count_sweep(&mut self) {
        let now = Instant::now();
        let Some(progress) = self.shared.seen() else {
            self.tally.sweeps += 1;
            return;
        };
        if progress.sweep == self.tally.sweeps {
            return;
        }
        let sweeps = progress.sweep - self.tally.sweeps;
        self.tally.sweeps = progress.sweep;
        self.tally.rows += progress.rows as u64 * sweeps;
        if let (Some(before), Some(plan)) = (self.tally.swept.replace(now), &self.plan) {
            self.tally.seconds += now.duration_since(before).as_secs_f64();
            self.tally.predicted += sweeps as f64 * plan.cost.seconds(progress.rows, self.decodes.max(1));
        }
    }

    /// How long it will take yet, by the plan's word and by how true that was so far.
    fn look_ahead(&mut self) {
        let Some(plan) = &self.plan else { return };
        let (_, last, took) = self.forecast;
        let wait = FORECAST_EVERY.max(took * 100);
        if last.is_some_and(|last| last.elapsed() < wait) {
            return;
        }
        let begun = Instant::now();
        let truth = if self.tally.predicted > 0.0 { self.tally.seconds / self.tally.predicted } else { 1.0 };
        let cost = |rows, logit_rows| plan.cost.seconds(rows, logit_rows) * truth;
        let pace = pace(plan, &cost);
        let under_way = |number: u64| self.active.get(&number);
        let rows = self.job.rows.iter().filter(|r| r.state == State::ToDo);
        let left = rows.flat_map(|row| {
            let parts = row.parts.max(1);
            let active = under_way(row.number);
            (0..parts as usize).filter_map(move |i| {
                let part = active.and_then(|a| a.parts.get(i));
                if part.is_some_and(|p| p.done) {
                    return None;
                }
                let has = part.map_or(0, |p| p.generated);
                let prompt = if has > 0 { 0 } else { row.prompt as usize / parts as usize };
                let answer = (row.answer as usize).saturating_sub(has);
                Some(Left { prompt, answer, positions: row.longest as usize })
            })
        });
        self.forecast.0 = forecast(left, self.tally.endings, &pace);
        self.forecast = (self.forecast.0, Some(Instant::now()), begun.elapsed());
    }

    fn tell(&self) {
        let progress = self.shared.seen();
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-9);
        let read = progress.map_or(0, |p| p.read_bytes);
        self.shared.tell(JobProgress {
            counts: self.counts,
            under_way: self.active.len() as u64,
            tokens: self.tally.tokens,
            tokens_per_second: self.tally.tokens as f64 / seconds,
            read_bytes_per_second: read as f64 / seconds,
            rows_per_sweep: self.tally.rows as f64 / self.tally.sweeps.max(1) as f64,
            sweeps: self.tally.sweeps,
            sweeps_left: self.forecast.0.sweeps,
            seconds_left: self.forecast.1.map(|_| self.forecast.0.seconds),
            elapsed: self.begun.elapsed(),
        });
    }

    /// Saves what is left to save and says how it ended; `ended` is what the engine or the session says. The job's files
    /// are closed then.
    pub(crate) fn end(mut self, ended: Result<(), aerostat::Error>) -> Result<Counts, Error> {
        let ended = match (ended, self.failure.take()) {
            (_, Some(e)) => Err(e),
            (Err(e), None) if e.kind() == aerostat::ErrorKind::Interrupted => Err(interrupted()),
            (Err(e), None) => Err(e.into()),
            (Ok(()), None) if self.counts.left() == 0 => Ok(()),
            (Ok(()), None) if self.shared.stops() => Err(interrupted()),
            // The input has ended, and lines that it had were not in it.
            (Ok(()), None) => Err(changed(&self.job.paths.input)),
        };
        let saved = match &ended {
            // A disk that failed is not tried again: what it says now cannot be trusted.
            // A line that could not be put into words may have been written in part.
            Err(e) if matches!(e.kind(), ErrorKind::Disk | ErrorKind::Database | ErrorKind::Defect) => Ok(()),
            _ => self.commit(),
        };
        let state = match &ended {
            Ok(()) => FINISHED.to_owned(),
            Err(e) if e.kind() == ErrorKind::Interrupted => "interrupted".to_owned(),
            Err(e) => format!("stopped: {e}"),
        };
        let told = self.job.database.set(&*self.job.disk, &[("state", state)]);
        ended?;
        saved?;
        told?;
        self.tell();
        Ok(self.counts)
    }
}

/// A request that goes on where an earlier run came to.
fn resume(request: Request, part: &Sequence) -> Result<Request, Refusal> {
    let resumed = part.tokens.iter().map(|t| t.id).collect();
    let mut resumed_logprobs = Vec::new();
    if request.top_logprobs.is_some() {
        let logprobs = |t: &Token| Some(TokenLogprobs { logprob: t.logprob?, rank: 0, top: t.top.clone() });
        let all: Option<Vec<TokenLogprobs>> = part.tokens.iter().map(logprobs).collect();
        resumed_logprobs =
            all.ok_or_else(|| Refusal::defect("a token was saved without its log-probability"))?;
    }
    Ok(Request { resumed, resumed_logprobs, ..request })
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted; everything so far is saved")
}

/// What is told where the input has other lines than it had when it was checked.
fn changed(input: &Path) -> Error {
    let message = format!(
        "the input {} was changed while the job ran: its lines are not those that were checked; what is done is saved. \
         Put it back and give the same command again, or --restart",
        input.display()
    );
    Error::new(ErrorKind::Changed, message)
}

impl Work for Runner {
    fn next(&mut self) -> Result<Option<Request>, aerostat::Error> {
        if self.shared.stops() {
            return Ok(None);
        }
        let next = self.next_request();
        self.told(next)
    }

    fn more_may_come(&self) -> bool {
        self.waits
    }

    fn swept(&mut self, gained: &[Gained<'_>]) -> Result<(), aerostat::Error> {
        let taken = gained.iter().try_for_each(|gained| self.gain(gained));
        self.decodes = gained.len();
        self.told(taken)
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), aerostat::Error> {
        self.handed = self.handed.saturating_sub(1);
        let settled = self.settle(id, outcome);
        self.told(settled)
    }

    fn sweep_over(&mut self) -> Result<(), aerostat::Error> {
        let swept = std::mem::replace(&mut self.swept, Instant::now());
        self.patience = (swept.elapsed() / 10).clamp(PATIENCE_MIN, PATIENCE_MAX);
        self.count_sweep();
        self.look_ahead();
        let waits = self.committed.map_or(Duration::MAX, |committed| committed.elapsed());
        let enough = self.batch_bytes > COMMIT_BYTES && waits >= COMMIT_EVERY;
        if waits >= self.pause || enough {
            let begun = Instant::now();
            let saved = self.commit();
            self.told(saved)?;
            self.pause = (begun.elapsed() * COMMIT_PAUSE).clamp(COMMIT_EVERY, COMMIT_PAUSE_MAX);
        }
        self.tell();
        if self.shared.stops() {
            return Err(aerostat::Error::new(aerostat::ErrorKind::Interrupted, "the job was stopped"));
        }
        Ok(())
    }

    fn tokens_left(&self) -> u64 {
        self.waiting_tokens
    }
}
