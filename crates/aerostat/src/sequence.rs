//! A sequence on its way through the model: its tokens, its place in the cache, and what is wanted of it.

use aerostat_model::{Before, Pages, Rotations};
use aerostat_text::Tokenizer;

use crate::Error;
use crate::answer::Answer;
use crate::hook::SharedHook;
use crate::layers::Layers;
use crate::observe::Observer;
use crate::request::{Gained, Layer, Outcome, Request, TopK, UnderWay, Want};
use crate::room::Claim;
use crate::sampler::{Sampler, has_nan};
use crate::scoring::Scoring;
use crate::spill::Slot;
use crate::states::HiddenStates;

/// A sequence on its way through the model.
#[derive(Debug)]
pub(crate) struct Sequence<'t> {
    /// The request it belongs to.
    pub(crate) id: u64,
    /// Prompt and answer so far.
    pub(crate) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Positions whose keys and values are in the cache once the sweep at hand is done.
    pub(crate) computed: usize,
    /// Positions it can have at most.
    pub(crate) capacity: usize,
    pub(crate) pages: Vec<u32>,
    /// Where its recurrent state is, while it is active.
    pub(crate) state: Option<u32>,
    /// How many of its pages, from the first, others know of.
    pub(crate) known: usize,
    /// No more of them will be: others hold the same, or are rotated differently.
    pub(crate) apart: bool,
    /// Its pages on disk.
    pub(crate) slots: Vec<Slot>,
    /// See [`Request::cache_salt`](crate::Request::cache_salt).
    cache_salt: u64,
    /// See [`Request::one_of_many`](crate::Request::one_of_many).
    pub(crate) one_of_many: bool,
    /// Place in the order of arrival.
    pub(crate) arrived: u64,
    pub(crate) task: Task<'t>,
    /// Layers that the hook is given, and the first position that it has not been given.
    layers: Vec<Layer>,
    layers_from: usize,
    /// Positions that were computed by the end of the last sweep.
    settled: usize,
    hook: Option<SharedHook>,
    /// Its positions see those after them: all of it is computed in one sweep.
    pub(crate) whole: bool,
    /// It goes before all that are not.
    pub(crate) urgent: bool,
    /// See [`Request::second`](crate::Request::second).
    pub(crate) second: usize,
    /// Its logits were not numbers.
    pub(crate) not_finite: bool,
    pub(crate) failed: Option<Error>,
}

impl<'t> Sequence<'t> {
    pub(crate) fn with_task(
        id: u64,
        tokens: Vec<u32>,
        prompt: usize,
        capacity: usize,
        task: Task<'t>,
    ) -> Self {
        Self {
            id,
            tokens,
            prompt,
            computed: 0,
            capacity,
            pages: Vec::new(),
            state: None,
            known: 0,
            apart: false,
            slots: Vec::new(),
            cache_salt: 0,
            one_of_many: false,
            arrived: 0,
            task,
            layers: Vec::new(),
            layers_from: 0,
            settled: 0,
            hook: None,
            whole: false,
            urgent: false,
            second: usize::MAX,
            not_finite: false,
            failed: None,
        }
    }

    /// It was active, or comes with a part of its answer.
    pub(crate) fn begun(&self) -> bool {
        self.arrived > 0 || self.tokens.len() > self.prompt
    }

    pub(crate) fn decodes(&self) -> bool {
        self.computed >= self.prompt
    }

    /// A grammar says what its answer looks like.
    pub(crate) fn constrained(&self) -> bool {
        matches!(&self.task, Task::Generate(answer) if answer.constrained())
    }

    /// Tokens after its last one that may be computed before they are chosen.
    pub(crate) fn tokens_ahead(&self) -> usize {
        match &self.task {
            // A hook is given the states of every position in order, and of none that is no token.
            Task::Generate(answer) if !answer.ended() && self.layers.is_empty() => {
                self.capacity.saturating_sub(self.tokens.len())
            }
            _ => 0,
        }
    }

    /// The token that would follow `tokens` by logits that are not the model's own, and the temperature.
    pub(crate) fn draw(&self, tokens: &[u32], logits: &[f32], sampler: &mut Sampler) -> (Option<u32>, f32) {
        match &self.task {
            Task::Generate(answer) => answer.draw(tokens, logits, sampler),
            _ => (None, 1.0),
        }
    }

    /// No token follows.
    pub(crate) fn closed(&self) -> bool {
        self.failed.is_some() || matches!(&self.task, Task::Generate(answer) if answer.ended())
    }

    /// What is computed of it is not for everybody.
    pub(crate) fn is_salted(&self) -> bool {
        self.cache_salt != 0
    }

    /// Another answer to the same prompt.
    pub(crate) fn is_sibling(&self, other: &Self) -> bool {
        self.id != other.id
            && self.cache_salt == other.cache_salt
            && self.tokens.get(..self.prompt) == other.tokens.get(..other.prompt)
    }

    pub(crate) fn generates(&self) -> bool {
        matches!(self.task, Task::Generate(_))
    }

    /// What comes before page number `known`, and that page's tokens if they are computed in the same way whatever the
    /// sequence's length: a sequence that shares them must be rotated like this one.
    pub(crate) fn next_page(&self, page_tokens: usize, rotations: &Rotations) -> Option<(Before, &[u32])> {
        let start = self.known * page_tokens;
        let tokens = self.tokens.get(start..start + page_tokens)?;
        let class = rotations.class(self.prompt);
        let alike = |length: usize| rotations.class(self.prompt.max(length)) == class;
        let before = match self.known.checked_sub(1) {
            Some(last) => Before::Page(*self.pages.get(last)?),
            None => Before::Start(class.wrapping_add(self.cache_salt)),
        };
        (alike(start + 1) && alike(start + page_tokens)).then_some((before, tokens))
    }

    /// What it holds of the cache, and may come to hold.
    pub(crate) fn claim(&self, pages: &Pages) -> Claim {
        let generates = self.generates();
        Claim {
            held: self.pages.len(),
            own: self.pages.iter().filter(|page| pages.alone(**page)).count(),
            positions: self.tokens.len(),
            positions_max: if generates { self.capacity } else { self.tokens.len() },
            sweeps: if generates { self.tokens_left().max(1) } else { 1 },
            begins: if generates { !self.decodes() } else { self.computed < self.end() },
        }
    }

    /// Who is given pages first: urgent ones, then those that have least left to generate.
    pub(crate) fn due(&self) -> (bool, usize, u64) {
        (!self.urgent, self.tokens_left(), self.arrived)
    }

    /// Gives its pages and its recurrent state back, and with them what was computed.
    pub(crate) fn release(&mut self, pages: &mut Pages) {
        self.state.take().into_iter().for_each(|state| pages.release_state(state));
        pages.release(std::mem::take(&mut self.pages));
        (self.computed, self.known, self.apart) = (0, 0, false);
    }
}

/// Which request is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// One that is to go before those that wait.
    Urgent,
    /// The next in order.
    Any,
}

/// Where the next sequence comes from.
pub(crate) type Next<'a, 't> = &'a mut dyn FnMut(Ask) -> Result<Option<Sequence<'t>>, Error>;

/// What a sequence is computed for.
#[derive(Debug)]
pub(crate) enum Task<'t> {
    Generate(Box<Answer<'t>>),
    Score(Scoring),
    /// And how many tokens are wanted for each position.
    TopK(TopK, usize),
    Hidden(HiddenStates),
    /// The first position whose logits the hook has not been given.
    Logits(usize),
}

impl<'t> Sequence<'t> {
    /// A sequence of which nothing is computed.
    pub(crate) fn new(
        request: Request,
        tokenizer: Option<&'t Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let (id, prompt) = (request.id, request.token_ids.len());
        let (layers, hook) = (request.layers.clone(), request.hook.clone());
        let Request { cache_salt, one_of_many, .. } = request;
        let second = request.second.unwrap_or(usize::MAX);
        let (tokens, capacity, task) = match request.want {
            Want::Generate => {
                let capacity = prompt + request.max_new_tokens.max(1) - 1;
                let (tokens, answer) = Answer::new(request, tokenizer, observer)?;
                (tokens, capacity, Task::Generate(Box::new(answer)))
            }
            Want::Score { from, logits_last } => {
                let scoring = Scoring::new(prompt, from, logits_last, request.top_logprobs);
                (request.token_ids, prompt, Task::Score(scoring))
            }
            Want::TopK { k, from } => {
                let top = TopK { from: from.min(prompt - 1), ..TopK::default() };
                (request.token_ids, prompt, Task::TopK(top, k))
            }
            Want::Hidden(hidden) => {
                (request.token_ids, prompt, Task::Hidden(HiddenStates::new(hidden, prompt)))
            }
            Want::Logits { from } => (request.token_ids, prompt, Task::Logits(from)),
        };
        let made = Self::with_task(id, tokens, prompt, capacity, task);
        Ok(Self { layers, hook, cache_salt, one_of_many, second, ..made })
    }

    /// The same of a model whose positions see those after them, or do not, and of what it has behind pooling.
    pub(crate) fn of_model(mut self, whole: bool, layers: Option<&Layers>) -> Self {
        if let (Task::Hidden(pool), Some(layers)) = (&mut self.task, layers) {
            pool.before(layers);
        }
        Self { whole, ..self }
    }

    /// The positions to compute, as far as is known, are all before this one.
    pub(crate) fn end(&self) -> usize {
        let tokens = self.tokens.len();
        match &self.task {
            // The last token of an answer is not computed with.
            Task::Generate(answer) => tokens - usize::from(answer.ended()),
            Task::Score(scoring) => tokens - usize::from(!scoring.logits_last),
            Task::TopK(..) | Task::Logits(_) => tokens,
            Task::Hidden(_) if self.whole => tokens,
            Task::Hidden(pool) => pool.range().1,
        }
    }

    /// The first position of whose row something is wanted; of all that follow it is, too.
    pub(crate) fn results_from(&self) -> usize {
        let from = match &self.task {
            Task::Hidden(pool) => pool.range().0,
            // The last row is computed in any case.
            Task::Logits(from) => (*from).min(self.prompt.saturating_sub(1)),
            _ => self.logits_from().unwrap_or(usize::MAX),
        };
        if self.layers.is_empty() { from } else { from.min(self.layers_from) }
    }

    /// The first position whose logits are wanted; `None`: none are.
    pub(crate) fn logits_from(&self) -> Option<usize> {
        match &self.task {
            Task::Generate(answer) => Some(answer.logits_from(self.tokens.len())),
            Task::Score(scoring) => Some(scoring.logits_from()),
            Task::TopK(top, _) => Some(top.from),
            Task::Logits(from) => Some(*from),
            Task::Hidden(_) => None,
        }
    }

    /// Where the hidden states of a position are wanted.
    pub(crate) fn layers(&self, position: usize) -> impl Iterator<Item = Layer> {
        let pooled = match &self.task {
            Task::Hidden(pool) => {
                let (from, to) = pool.range();
                Some(pool.layer()).filter(|_| (from..to).contains(&position))
            }
            _ => None,
        };
        let hooked = self.layers.iter().filter(move |_| position >= self.layers_from);
        pooled.into_iter().chain(hooked.copied())
    }

    /// Takes the hidden state of one of its rows.
    pub(crate) fn take_hidden(&mut self, position: usize, layer: Layer, state: &[f32]) {
        self.not_finite |= has_nan(state);
        if let Task::Hidden(pool) = &mut self.task {
            pool.take(position, state);
        } else if let Some(hook) = self.hook.as_ref().filter(|_| self.failed.is_none()) {
            self.failed = hook.lock().hidden(layer, position, state).err();
        }
    }

    /// Takes the logits of one of its rows.
    pub(crate) fn take_logits(
        &mut self,
        position: usize,
        logits: &[f32],
        sampler: &mut Sampler,
        observer: &mut dyn Observer,
    ) {
        let taken = match &mut self.task {
            Task::Generate(answer) => {
                answer.take_logits(self.id, &mut self.tokens, position, logits, sampler, observer)
            }
            Task::Score(scoring) => {
                scoring.take_logits(&self.tokens, position, logits, sampler);
                Ok(())
            }
            Task::Logits(from) if position == *from => {
                *from += 1;
                self.hook.as_ref().map_or(Ok(()), |hook| hook.lock().logits(position, logits))
            }
            Task::TopK(top, k) => {
                top.take_logits(*k, logits, sampler);
                Ok(())
            }
            Task::Hidden(_) | Task::Logits(_) => Ok(()),
        };
        if let Err(error) = taken {
            self.failed.get_or_insert(error);
        }
    }

    /// Nothing is left to compute.
    pub(crate) fn done(&self) -> bool {
        let open = match &self.task {
            Task::Generate(answer) => !answer.complete(self.tokens.len() - self.prompt),
            _ => self.computed < self.end(),
        };
        self.failed.is_some() || !open
    }

    /// Tokens of the answer that have not been told of.
    pub(crate) fn gained(&self) -> Option<Gained<'_>> {
        match &self.task {
            Task::Generate(answer) => answer.gained(self.id, self.tokens.get(self.prompt..)?),
            _ => None,
        }
    }

    /// What [`gained`](Self::gained) gave has been told.
    pub(crate) fn reported(&mut self) {
        self.layers_from = self.layers_from.max(self.computed);
        self.settled = self.computed;
        if let Task::Generate(answer) = &mut self.task {
            answer.reported(self.tokens.len() - self.prompt);
        }
    }

    /// How far it is, as of the last sweep.
    pub(crate) fn under_way(&self) -> UnderWay {
        UnderWay { id: self.id, computed: self.settled, tokens: self.tokens.len() - self.prompt }
    }

    /// Tokens to generate or to compute at most.
    pub(crate) fn tokens_left(&self) -> usize {
        match &self.task {
            Task::Generate(answer) => answer.tokens_left(self.tokens.len() - self.prompt),
            _ => self.end() - self.computed,
        }
    }

    /// The result.
    pub(crate) fn into_outcome(self, observer: &mut dyn Observer) -> Outcome {
        match (self.failed, self.task) {
            (Some(error), _) => Outcome::Failed(error),
            (None, Task::Generate(answer)) => {
                Outcome::Completion(answer.finish(self.id, &self.tokens, observer))
            }
            (None, Task::TopK(mut top, _)) => {
                // It grew by doubling, and may be kept for long.
                top.ids.shrink_to_fit();
                top.logprobs.shrink_to_fit();
                Outcome::TopK(TopK { token_ids: self.tokens, ..top })
            }
            (None, Task::Hidden(pool)) => Outcome::Hidden(pool.finish()),
            (None, Task::Score(scoring)) => Outcome::Score(scoring.finish(self.tokens)),
            (None, Task::Logits(_)) => Outcome::Given,
        }
    }
}
