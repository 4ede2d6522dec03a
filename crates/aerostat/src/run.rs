//! Many requests through one engine: continuous batching at the borders of sweeps.
//!
//! [`Engine::run`] takes requests from a [`Work`] while pages and rows allow, carries them through sweeps together, and
//! gives every sweep's tokens and every finished result back to it. Requests enter and leave at any sweep; none of
//! that shows in the bits of a result.

use std::fmt;

use aerostat_arch::ModelSpec;
use aerostat_model::{Pages, Rotations};
use aerostat_text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::distil::TopK;
use crate::embed::{self, Hidden};
use crate::engine::{Engine, Prefixes};
use crate::generate::Completion;
use crate::logits::{Sampler, has_nan};
use crate::model_files::check_tokens;
use crate::observe::{Observer, Phase};
use crate::schedule::{Rows, Rules, Schedule, Sequence, Tap};
use crate::spill::Spill;
use crate::task::Task;
use crate::{Error, ErrorKind, Sampling, Score};

/// What is asked of the model for one sequence of tokens.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The caller's name for it; of those that are active together no two are the same.
    pub id: u64,
    /// The prompt; at least one token.
    pub token_ids: Vec<u32>,
    /// Tokens of the answer that an earlier run generated. They count as generated: the answer goes on after them with
    /// the bits it would have had.
    pub resumed: Vec<u32>,
    /// What [`Work::swept`] gave with them, if log-probabilities are wanted.
    pub resumed_logprobs: Vec<TokenLogprobs>,
    /// Tokens of the answer at most, those resumed included.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Which of several answers to the same prompt this is.
    pub stream: u64,
    /// Tokens that end the answer; empty: only its length does.
    pub end_tokens: Vec<u32>,
    /// Strings that end the answer; they are not part of it. They need a tokenizer.
    pub stop: Vec<String>,
    /// Report the log-probability of every token of the answer, and this many of the likeliest in its place.
    pub top_logprobs: Option<usize>,
    /// What the answer must look like.
    pub constraint: Option<Box<dyn Constraint>>,
    /// What is wanted of the sequence.
    pub want: Want,
}

/// What is wanted of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Want {
    /// An answer: [`Outcome::Completion`].
    #[default]
    Generate,
    /// Log-probabilities of the prompt's tokens: [`Outcome::Score`].
    Score {
        /// The first token whose log-probability is wanted; those before it have none. The first token of a prompt never
        /// has one.
        from: usize,
        /// Also the logits after the last token.
        logits_last: bool,
    },
    /// The likeliest tokens after each token of the prompt: [`Outcome::TopK`].
    TopK {
        /// How many.
        k: usize,
        /// The first position after which they are wanted.
        from: usize,
    },
    /// Hidden states of the prompt: [`Outcome::Hidden`].
    Hidden(Hidden),
}

/// Log-probabilities where a token was chosen, before penalties, masks, temperature and cuts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// Of the token.
    pub logprob: f32,
    /// Of the likeliest tokens, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// A grammar that an answer must follow. An error fails its request alone.
pub trait Constraint: Send + fmt::Debug {
    /// Tokens that must come next, whatever the model says. They ride on the next sweep together, without one of their
    /// own; each is then given to [`accept`](Self::accept) like any other.
    ///
    /// # Errors
    /// The grammar cannot go on.
    fn forced(&mut self) -> Result<Vec<u32>, Error>;

    /// Sets the logits of tokens that cannot come next to minus infinity; `logits[i]` is that of token `i`.
    ///
    /// # Errors
    /// The grammar cannot go on.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error>;

    /// Takes the next token of the answer.
    ///
    /// # Errors
    /// The token cannot come here.
    fn accept(&mut self, token: u32) -> Result<(), Error>;

    /// The answer is complete, and nothing may follow.
    fn ended(&self) -> bool;

    /// The same grammar at the same place.
    fn boxed_clone(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}

/// What a sweep added to a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Gained<'a> {
    /// The request.
    pub id: u64,
    /// New tokens of its answer, in order.
    pub tokens: &'a [u32],
    /// One for each of them if log-probabilities are wanted, else empty.
    pub logprobs: &'a [TokenLogprobs],
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Want::Generate`].
    Completion(Completion),
    /// Of [`Want::Score`].
    Score(Score),
    /// Of [`Want::TopK`].
    TopK(TopK),
    /// Of [`Want::Hidden`]: one vector if they are pooled, else one for each token.
    Hidden(Vec<Vec<f32>>),
    /// It cannot be run, or failed; others go on.
    Failed(Error),
}

/// Where requests come from and where results go. An error of any method ends the run with it.
pub trait Work {
    /// The next request; `None` if there is none now. Asked between sweeps while there is room, also after `None`.
    ///
    /// # Errors
    /// The caller's own.
    fn next(&mut self) -> Result<Option<Request>, Error>;

    /// After every sweep: the new tokens of every answer that has some. What is kept here can be resumed.
    ///
    /// # Errors
    /// The caller's own.
    fn swept(&mut self, _gained: &[Gained<'_>]) -> Result<(), Error> {
        Ok(())
    }

    /// A request has left. Its last tokens were given to [`swept`](Self::swept) before.
    ///
    /// # Errors
    /// The caller's own.
    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error>;

    /// All that a sweep brought has been told: the moment to save it.
    ///
    /// # Errors
    /// The caller's own.
    fn sweep_over(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// An answer that an interrupted run leaves behind, as far as it came.
    ///
    /// # Errors
    /// The caller's own.
    fn unfinished(&mut self, _id: u64, _so_far: Completion) -> Result<(), Error> {
        Ok(())
    }

    /// Tokens that requests not yet handed over may take, for progress.
    fn tokens_left(&self) -> u64 {
        0
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// There was nothing left to do.
    Done,
    /// The observer asked to stop.
    Interrupted,
}

impl Engine {
    /// Works until nothing is left or the observer asks to stop. Text of answers is given to the observer as it comes,
    /// under the request's id.
    ///
    /// A request that cannot be run ends in [`Outcome::Failed`].
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::Io`], [`ErrorKind::Device`]; [`ErrorKind::NotFinite`] where a weight is not a
    /// number. Being asked to stop is not an error.
    pub fn run(
        &mut self,
        work: &mut dyn Work,
        tokenizer: Option<&Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<RunEnd, Error> {
        // Pages do not hold a state, which is that of all positions so far.
        let stateful = self.model().spec().state_elements() > 0;
        if stateful && self.spill.is_some() {
            observer
                .note("sequences of this model have a recurrent state, which cannot wait on disk: none will");
        }
        let mut schedule = Schedule::new(Rules {
            chunk: self.prefill_chunk,
            knee: self.current_plan().rows_at_knee,
            shares: (self.prefixes == Prefixes::Shared && !stateful)
                .then(|| Rotations::of(self.model().spec())),
            spill: self.spill.as_deref().filter(|_| !stateful).map(Spill::new),
        });
        let result = self.run_sweeps(&mut schedule, work, tokenizer, observer);
        self.stop_reading();
        let left = schedule.clear(&mut self.pages);
        if !matches!(result, Ok(RunEnd::Done)) {
            // Pages of a sweep that was not finished are known to hold what they do not.
            self.pages.forget();
        }
        let end = match result {
            Err(e) if e.kind() == ErrorKind::Interrupted => RunEnd::Interrupted,
            other => other?,
        };
        for sequence in left.into_iter().filter(Sequence::begun) {
            let id = sequence.id;
            if let Task::Generate(answer) = sequence.task {
                work.unfinished(id, answer.finish(id, &sequence.tokens, observer))?;
            }
        }
        Ok(end)
    }

    fn run_sweeps<'t>(
        &mut self,
        schedule: &mut Schedule<'t>,
        work: &mut dyn Work,
        tokenizer: Option<&'t Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<RunEnd, Error> {
        let intake = self.intake(tokenizer);
        let limits = self.model().limits();
        let (mut rows, mut sampler) = (Rows::default(), Sampler::default());
        loop {
            let mut next = || intake.next(work, observer);
            if !schedule.fill(&mut rows, limits, &mut self.memory(), &mut next)? {
                return if schedule.open() { Err(stuck()) } else { Ok(RunEnd::Done) };
            }
            if observer.enough() {
                return Ok(RunEnd::Interrupted);
            }
            self.count(schedule, work, observer);
            let (phase, more) = (phase(&rows), schedule.more());
            let mut give = |tap: &Tap, state: &[f32]| {
                schedule.active[tap.index].take_hidden(tap.position, state);
            };
            let logits = self.sweep(&rows, phase, more, &mut give, observer)?;
            let width = intake.spec.vocab;
            for (row, &(index, position)) in logits.chunks_exact(width).zip(&rows.owners) {
                let sequence = &mut schedule.active[index];
                match has_nan(row) {
                    true => sequence.not_finite = true,
                    false => sequence.take_logits(position, row, &mut sampler, observer),
                }
            }
            self.explain_nan(schedule)?;
            self.clock().tokens += settle(schedule, &rows, &mut self.pages, work, observer)?;
            work.sweep_over()?;
        }
    }

    /// Counts what a schedule did, and tells what went wrong with it.
    fn count(&mut self, schedule: &mut Schedule<'_>, work: &dyn Work, observer: &mut dyn Observer) {
        let (written, read) = schedule.spilled_bytes();
        let counted = std::mem::replace(&mut schedule.counted, (written, read));
        let clock = self.clock();
        clock.tokens_left = schedule.tokens_left() + work.tokens_left();
        clock.shared_rows += std::mem::take(&mut schedule.shared_rows);
        clock.spilled_bytes.0 += written - counted.0;
        clock.spilled_bytes.1 += read - counted.1;
        if let Some(error) = schedule.trouble.take() {
            observer.note(&format!(
                "what was to wait on disk could not be written or read ({error}); it is computed again"
            ));
        }
    }

    /// Runs requests numbered from 0 and gives their outcomes in order; those that cannot be run are refused before any
    /// work. What an interrupted run leaves behind is there as far as it came.
    pub(crate) fn run_list(
        &mut self,
        count: usize,
        request: &dyn Fn(usize) -> Request,
        tokenizer: Option<&Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<Option<Outcome>>, RunEnd), Error> {
        let outcomes = (0..count).map(|_| None).collect();
        let mut list = List { request, next: 0, outcomes, tokens_left: 0 };
        for i in 0..count {
            let request = list.request(i);
            self.check(&request, tokenizer.is_some())?;
            list.tokens_left += tokens(&request);
        }
        let end = self.run(&mut list, tokenizer, observer)?;
        Ok((list.outcomes, end))
    }

    /// Fails sequences whose logits are not numbers, unless a weight is to blame: then all would be.
    fn explain_nan(&mut self, schedule: &mut Schedule<'_>) -> Result<(), Error> {
        for sequence in schedule.active.iter_mut().filter(|s| s.not_finite) {
            sequence.not_finite = false;
            let error = self.not_finite(sequence.id, &sequence.tokens)?;
            sequence.failed = Some(error);
        }
        Ok(())
    }

    fn intake<'t>(&self, tokenizer: Option<&'t Tokenizer>) -> Intake<'t> {
        Intake { spec: self.model().spec().clone(), tokens_max: self.pages.tokens(), tokenizer }
    }

    /// Whether a request can be run.
    pub(crate) fn check(&self, request: &Request, tokenizer: bool) -> Result<(), Error> {
        check(self.model().spec(), self.pages.tokens(), request, tokenizer)
    }
}

/// Requests by number.
struct List<'a> {
    request: &'a dyn Fn(usize) -> Request,
    next: usize,
    outcomes: Vec<Option<Outcome>>,
    tokens_left: u64,
}

impl List<'_> {
    fn request(&self, number: usize) -> Request {
        Request { id: number as u64, ..(self.request)(number) }
    }
}

impl Work for List<'_> {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        if self.next == self.outcomes.len() {
            return Ok(None);
        }
        let request = self.request(self.next);
        self.next += 1;
        self.tokens_left = self.tokens_left.saturating_sub(tokens(&request));
        Ok(Some(request))
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        if let Outcome::Failed(error) = outcome {
            return Err(error);
        }
        if let Some(place) = self.outcomes.get_mut(id as usize) {
            *place = Some(outcome);
        }
        Ok(())
    }

    fn unfinished(&mut self, id: u64, so_far: Completion) -> Result<(), Error> {
        self.finished(id, Outcome::Completion(so_far))
    }

    fn tokens_left(&self) -> u64 {
        self.tokens_left
    }
}

/// Tokens to generate or to compute, for progress.
fn tokens(request: &Request) -> u64 {
    (if request.want == Want::Generate { request.max_new_tokens } else { request.token_ids.len() }) as u64
}

fn stuck() -> Error {
    Error::new(ErrorKind::Device, "no sequence can go on: a defect of the scheduler")
}

/// What turns requests into sequences.
struct Intake<'t> {
    spec: ModelSpec,
    /// Positions of the whole KV cache.
    tokens_max: usize,
    tokenizer: Option<&'t Tokenizer>,
}

impl<'t> Intake<'t> {
    /// The next sequence that has something to compute; what has not is finished on the way.
    fn next(&self, work: &mut dyn Work, observer: &mut dyn Observer) -> Result<Option<Sequence<'t>>, Error> {
        while let Some(request) = work.next()? {
            let id = request.id;
            let checked = check(&self.spec, self.tokens_max, &request, self.tokenizer.is_some());
            match checked.and_then(|()| Sequence::new(request, self.tokenizer, observer)) {
                Err(error) => work.finished(id, Outcome::Failed(error))?,
                Ok(sequence) if sequence.done() => work.finished(id, sequence.into_outcome(observer))?,
                Ok(sequence) => return Ok(Some(sequence)),
            }
        }
        Ok(None)
    }
}

fn check(spec: &ModelSpec, tokens_max: usize, request: &Request, tokenizer: bool) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Usage, why));
    let new_tokens = if request.want == Want::Generate { request.max_new_tokens } else { 0 };
    check_tokens(spec, request.id, &request.token_ids, new_tokens)?;
    let positions = request.token_ids.len() + new_tokens.saturating_sub(1);
    if positions > tokens_max {
        return refuse(format!(
            "prompt {} and its answer take {positions} positions; the KV cache has {tokens_max}: raise --memory",
            request.id
        ));
    }
    let biases = &request.sampling.logit_bias;
    if let Some((token, _)) = biases.iter().find(|(t, b)| *t as usize >= spec.vocab || !b.is_finite()) {
        return refuse(format!(
            "prompt {}: the bias of token {token} is no number, or that token is outside the vocabulary of {} tokens",
            request.id, spec.vocab
        ));
    }
    if let Some(token) = request.resumed.iter().find(|t| **t as usize >= spec.vocab) {
        return refuse(format!(
            "prompt {}: resumed token id {token} is outside the vocabulary of {} tokens",
            request.id, spec.vocab
        ));
    }
    if let Want::Hidden(hidden) = request.want {
        embed::check(hidden, spec.blocks.len(), request.id)?;
    }
    if !request.stop.is_empty() && !tokenizer {
        return refuse("stop strings need a tokenizer; this model has none".to_owned());
    }
    Ok(())
}

/// What a sweep is for, to be shown.
fn phase(rows: &Rows) -> Phase {
    match (rows.decodes, rows.generates) {
        (true, _) => Phase::Decode,
        (false, true) => Phase::Prefill,
        (false, false) => Phase::Score,
    }
}

/// Tells of what a sweep added, and lets finished sequences go; gives the number of tokens that were generated or
/// scored.
fn settle(
    schedule: &mut Schedule<'_>,
    rows: &Rows,
    pages: &mut Pages,
    work: &mut dyn Work,
    observer: &mut dyn Observer,
) -> Result<u64, Error> {
    let gained: Vec<Gained<'_>> = schedule.active.iter().filter_map(Sequence::gained).collect();
    let generated: usize = gained.iter().map(|g| g.tokens.len()).sum();
    work.swept(&gained)?;
    for sequence in &mut schedule.active {
        sequence.reported();
    }
    for sequence in schedule.take_done(pages) {
        work.finished(sequence.id, sequence.into_outcome(observer))?;
    }
    Ok(generated as u64 + rows.given)
}
