//! Many requests through one engine: continuous batching at the borders of sweeps.
//!
//! [`Engine::run`] takes requests from a [`Work`] while pages and rows allow, carries them through sweeps together, and
//! gives every sweep's tokens and every finished result back to it. Requests enter and leave at any sweep; none of
//! that shows in the bits of a result.

use std::time::Instant;

use aerostat_arch::ModelSpec;

use aerostat_model::Rotations;
use aerostat_plan::{Guesses, PAGE_TOKENS};
use aerostat_text::Tokenizer;

use crate::drafts::Right;
use crate::engine::Engine;
use crate::layers::Layers;
use crate::model_files::check_tokens;
use crate::need::POSITIONS_MAX;
use crate::observe::{Observer, Phase};
use crate::options::Prefixes;
use crate::request::{Completion, Gained, Hidden, Outcome, Request, RunEnd, UnderWay, Want, Work};
use crate::rows::{Rows, Tap};
use crate::sampler::{Sampler, has_nan};
use crate::schedule::{Rules, Schedule};
use crate::sequence::{Ask, Sequence, Task};
use crate::spill::Spill;
use crate::states;
use crate::sweep::{Listeners, Sweeper};
use crate::{Error, ErrorKind};

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
        // What is computed of a page depends on all that follows it where rows look ahead.
        let whole = self.model().spec().looks_ahead();
        let paged = !stateful && !whole;
        let mut schedule = Schedule::new(Rules {
            chunk: if whole { usize::MAX } else { self.prefill_chunk },
            whole,
            knee: self.current_plan().rows_at_knee,
            shares: (self.prefixes == Prefixes::Shared && paged).then(|| Rotations::of(self.model().spec())),
            spill: self.spill.as_deref().filter(|_| paged).map(Spill::new),
            kept: self.kept.take().filter(|_| paged),
        });
        self.drafts.begin_run();
        let result = self.run_sweeps(&mut schedule, work, tokenizer, observer);
        self.sweeper.stop_reading();
        self.drafts.take_copy().into_iter().for_each(|state| self.pages.release_state(state));
        // With the last sequence, too.
        self.tell(&mut schedule, observer);
        let left = schedule.clear(&mut self.pages);
        self.kept = schedule.take_kept();
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
            self.cancel(schedule, work, observer)?;
            schedule.open_end = work.more_may_come();
            let mut next = |ask| intake.next(ask, work, observer);
            if !schedule.fill(&mut rows, limits, &mut self.memory(), &mut next)? {
                return if schedule.open() { Err(stuck()) } else { Ok(RunEnd::Done) };
            }
            if observer.enough() {
                return Ok(RunEnd::Interrupted);
            }
            let under_way: Vec<UnderWay> = schedule.active.iter().map(Sequence::under_way).collect();
            work.sweeping(&under_way)?;
            self.count(schedule, work, observer);
            let (begun, experts) = (Instant::now(), self.sweeper.store.counted.used);
            self.draft(schedule, &mut rows)?;
            let (phase, more) = (phase(&rows), schedule.more());
            let mut give = |tap: &Tap, state: &[f32]| {
                schedule.active[tap.index].take_hidden(tap.position, tap.layer, state);
            };
            let mut to = Listeners { give: &mut give, observer };
            let logits = self.sweeper.sweep(&rows, phase, more, &mut to)?;
            let width = intake.spec.vocab;
            for (row, &(index, position)) in logits.chunks_exact(width).zip(&rows.owners) {
                let sequence = &mut schedule.active[index];
                match has_nan(row) {
                    true => sequence.not_finite = true,
                    false => sequence.take_logits(position, row, &mut sampler, observer),
                }
            }
            let right = self.drafts.follow(&mut schedule.active, (logits, width), &mut sampler, observer);
            self.keep(schedule, &rows, &right)?;
            if phase == Phase::Decode {
                let Sweeper { plan, store, .. } = &self.sweeper;
                let independent = plan.cost.independent_rows(store.counted.used - experts);
                self.drafts.took(rows.tokens.len(), begun.elapsed().as_secs_f64(), independent);
            }
            self.explain_nan(schedule)?;
            self.settle(schedule, &rows, work, observer)?;
            work.sweep_over()?;
        }
    }

    /// Adds guesses to the rows of a sweep.
    fn draft(&mut self, schedule: &Schedule<'_>, rows: &mut Rows) -> Result<(), Error> {
        let Sweeper { plan, model, backend, .. } = &mut self.sweeper;
        let (active, cost, common) = (&schedule.active, &plan.cost, self.drafts.common());
        let seconds = |rows, logits, count| cost.seconds_with(rows, logits, Guesses { count, common });
        self.drafts.draft(active, rows, (model.limits(), &self.pages), &seconds);
        let mut copy = |from, to| Ok(model.copy_state(&mut **backend, from, to)?);
        self.drafts.keep_state(active, &mut self.pages, &mut copy)
    }

    /// Gives what guesses that were right have computed to their sequences, as far as there are pages.
    fn keep(
        &mut self,
        schedule: &mut Schedule<'_>,
        rows: &Rows,
        right: &[(usize, Vec<Right>)],
    ) -> Result<(), Error> {
        let clock = &mut self.sweeper.clock;
        clock.drafted += self.drafts.made() as u64;
        let mut copies = Vec::new();
        for (index, right) in right.iter().filter(|(_, right)| !right.is_empty()) {
            clock.accepted += right.len() as u64;
            let computed = schedule.active[*index].computed;
            let end = schedule.stretch(*index, computed + right.len(), &mut self.pages);
            let pages = &schedule.active[*index].pages;
            let kept = right.iter().filter(|right| right.position < end);
            copies.extend(kept.map(|right| (right.slot, slot(pages, right.position))));
        }
        self.drafts.take_back(rows, &mut schedule.active, &mut self.pages);
        match copies.is_empty() {
            true => Ok(()),
            false => Ok(self.sweeper.backend.kv_copy(&copies)?),
        }
    }

    /// Lets requests go that are not wanted any more, with what they have.
    fn cancel(
        &mut self,
        schedule: &mut Schedule<'_>,
        work: &mut dyn Work,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        for id in work.cancelled()? {
            let Some(sequence) = schedule.cancel(id, &mut self.pages) else { continue };
            let outcome = match sequence.task {
                Task::Generate(answer) => Outcome::Completion(answer.finish(id, &sequence.tokens, observer)),
                _ => Outcome::Failed(Error::new(ErrorKind::Interrupted, "cancelled")),
            };
            work.finished(id, outcome)?;
        }
        Ok(())
    }

    /// Counts what a schedule did, and tells what went wrong with it.
    fn count(&mut self, schedule: &mut Schedule<'_>, work: &dyn Work, observer: &mut dyn Observer) {
        let (written, read) = schedule.spilled_bytes();
        let counted = std::mem::replace(&mut schedule.counted, (written, read));
        let clock = &mut self.sweeper.clock;
        clock.tokens_left = schedule.tokens_left() + work.tokens_left();
        clock.shared_rows += std::mem::take(&mut schedule.shared_rows);
        clock.prompt_tokens += std::mem::take(&mut schedule.prompt_tokens);
        clock.preempted += std::mem::take(&mut schedule.preempted);
        clock.spilled_bytes.0 += written - counted.0;
        clock.spilled_bytes.1 += read - counted.1;
        self.tell(schedule, observer);
    }

    /// Tells what went wrong, and costs time only.
    fn tell(&mut self, schedule: &mut Schedule<'_>, observer: &mut dyn Observer) {
        if let Some(error) = self.drafts.trouble.take() {
            observer.note(&format!("the draft model failed ({error}); it guesses no more"));
        }
        if let Some(error) = schedule.unkept.take().filter(|_| !schedule.unkept_told) {
            schedule.unkept_told = true;
            observer.note(&format!("a prompt's cache on disk could not be used ({error}); it is computed"));
        }
        if let Some(error) = schedule.trouble.take() {
            observer.note(&format!(
                "what was to wait on disk could not be written or read ({error}); it is computed again"
            ));
        }
    }

    /// Runs requests numbered from 0 and gives their outcomes in order: one that cannot be run, or fails, costs the others
    /// nothing. What an interrupted run leaves behind is there as far as it came. An error of the engine is the outcome of
    /// all that had none yet; it is an error of the whole where nothing was finished.
    pub(crate) fn run_list(
        &mut self,
        count: usize,
        request: &dyn Fn(usize) -> Request,
        tokenizer: Option<&Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<Option<Outcome>>, RunEnd), Error> {
        let outcomes = (0..count).map(|_| None).collect();
        let tokens_left = (0..count).map(|i| tokens(&request(i))).fold(0, u64::saturating_add);
        let mut list = List { request, next: 0, outcomes, tokens_left };
        match self.run(&mut list, tokenizer, observer) {
            Ok(end) => Ok((list.outcomes, end)),
            Err(error) if list.outcomes.iter().all(Option::is_none) => Err(error),
            Err(error) => {
                let again = || Some(Outcome::Failed(Error::new(error.kind(), error.to_string())));
                let outcomes = list.outcomes.into_iter().map(|outcome| outcome.or_else(again));
                Ok((outcomes.collect(), RunEnd::Done))
            }
        }
    }

    /// The same for a task that has results of one kind, which `take` takes out of an outcome.
    pub(crate) fn results<T>(
        &mut self,
        count: usize,
        request: &dyn Fn(usize) -> Request,
        observer: &mut dyn Observer,
        take: fn(Outcome) -> Option<T>,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let (outcomes, end) = self.run_list(count, request, None, observer)?;
        if end == RunEnd::Interrupted {
            return Err(Error::interrupted());
        }
        let lost = || Error::new(ErrorKind::Defect, "a request has no result of its kind");
        let result = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::Failed(error)) => Err(error),
            other => other.and_then(take).ok_or_else(lost),
        };
        Ok(outcomes.into_iter().map(result).collect())
    }

    /// Tells of what a sweep added, and lets finished sequences go.
    fn settle(
        &mut self,
        schedule: &mut Schedule<'_>,
        rows: &Rows,
        work: &mut dyn Work,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let gained: Vec<Gained<'_>> = schedule.active.iter().filter_map(Sequence::gained).collect();
        let generated: usize = gained.iter().map(|g| g.tokens.len()).sum();
        work.swept(&gained)?;
        let clock = &mut self.sweeper.clock;
        clock.tokens += generated as u64 + rows.given;
        clock.answered.0 += generated as u64;
        clock.answered.1 += gained.len() as u64;
        for sequence in &mut schedule.active {
            sequence.reported();
        }
        for sequence in schedule.take_done(&mut self.memory()) {
            self.drafts.finished(&sequence);
            work.finished(sequence.id, sequence.into_outcome(observer))?;
        }
        Ok(())
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
        Intake {
            spec: self.model().spec().clone(),
            tokens_max: self.tokens_max(),
            tokenizer,
            layers: self.layers.clone(),
        }
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
    /// Positions of the longest sequence.
    tokens_max: usize,
    tokenizer: Option<&'t Tokenizer>,
    /// What the model has behind pooling, or why that is not known.
    layers: Result<Layers, String>,
}

impl<'t> Intake<'t> {
    /// The next sequence that has something to compute; what has not is finished on the way.
    fn next(
        &self,
        ask: Ask,
        work: &mut dyn Work,
        observer: &mut dyn Observer,
    ) -> Result<Option<Sequence<'t>>, Error> {
        while let Some(request) = if ask == Ask::Urgent { work.next_urgent() } else { work.next() }? {
            let id = request.id;
            let checked = check(&self.spec, self.tokens_max, &request, self.tokenizer.is_some());
            let checked = checked.and_then(|()| check_layers(&self.layers, &request));
            let sequence = checked.and_then(|()| Sequence::new(request, self.tokenizer, observer));
            match sequence
                .map(|sequence| sequence.of_model(self.spec.looks_ahead(), self.layers.as_ref().ok()))
            {
                Err(error) => work.finished(id, Outcome::Failed(error))?,
                Ok(sequence) if sequence.done() => {
                    // Tokens that a constraint forced at once are told of as others are.
                    if let Some(gained) = sequence.gained() {
                        work.swept(&[gained])?;
                    }
                    work.finished(id, sequence.into_outcome(observer))?;
                }
                Ok(mut sequence) => {
                    sequence.urgent = ask == Ask::Urgent;
                    return Ok(Some(sequence));
                }
            }
        }
        Ok(None)
    }
}

/// Whether the layers are known that follow what a request wants.
fn check_layers(layers: &Result<Layers, String>, request: &Request) -> Result<(), Error> {
    match (layers, request.want) {
        (Err(why), Want::Hidden(hidden)) if states::is_pooled(hidden) => {
            Err(Error::new(ErrorKind::Model, why.as_str()))
        }
        _ => Ok(()),
    }
}

/// Whether a request can be run on a model whose KV cache has so many positions.
pub(crate) fn check(
    spec: &ModelSpec,
    tokens_max: usize,
    request: &Request,
    tokenizer: bool,
) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Usage, why));
    let new_tokens = if request.want == Want::Generate { request.max_new_tokens } else { 0 };
    check_tokens(spec, request.id, &request.token_ids, new_tokens)?;
    if (spec.head.absent || spec.looks_ahead()) && !matches!(request.want, Want::Hidden(_)) {
        return refuse(format!(
            "prompt {}: this model has no LM head, so it gives no tokens and no scores; `aerostat embed` gives its \
             hidden states",
            request.id
        ));
    }
    let positions = request.positions();
    if positions > POSITIONS_MAX {
        return refuse(format!(
            "prompt {} and its answer take {positions} positions; no model has as many",
            request.id
        ));
    }
    if positions > tokens_max && spec.looks_ahead() {
        return refuse(format!(
            "prompt {} has {positions} tokens; this model computes a text as a whole, and a sweep has room for {tokens_max}: \
             raise --memory, or cut the text",
            request.id
        ));
    }
    if request.second.is_some() && spec.token_types.as_ref().is_none_or(|types| types.rows < 2) {
        return refuse(format!("prompt {}: this model does not tell the parts of a text apart", request.id));
    }
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
        states::check(hidden, spec.blocks.len(), request.id)?;
    }
    check_sampling(spec, request)?;
    if !request.stop.is_empty() && !tokenizer {
        return refuse("stop strings need a tokenizer; this model has none".to_owned());
    }
    Ok(())
}

/// Whether the ways in which tokens are chosen, and what the hook is to see, are there.
fn check_sampling(spec: &ModelSpec, request: &Request) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Usage, format!("prompt {}: {why}", request.id)));
    let sampling = &request.sampling;
    if let Err(why) = sampling.check().and_then(|()| sampling.rules.check(spec.vocab)) {
        return refuse(why);
    }
    let layers = &request.layers;
    for layer in layers {
        states::check(Hidden { layer: *layer, ..Hidden::default() }, spec.blocks.len(), request.id)?;
    }
    let gives = !layers.is_empty() || matches!(request.want, Want::Logits { .. });
    match request.want {
        Want::Hidden(_) if !layers.is_empty() => {
            refuse("layers for a hook and hidden states as a result exclude each other".to_owned())
        }
        _ if gives && request.hook.is_none() => {
            refuse("there is no hook that is to be given this".to_owned())
        }
        _ => Ok(()),
    }
}

/// What a sweep is for, to be shown.
fn phase(rows: &Rows) -> Phase {
    match (rows.decodes, rows.generates) {
        (true, _) => Phase::Decode,
        (false, true) => Phase::Prefill,
        (false, false) => Phase::Score,
    }
}

/// The slot of a position in a sequence's pages.
fn slot(pages: &[u32], position: usize) -> u32 {
    pages[position / PAGE_TOKENS] * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32
}
