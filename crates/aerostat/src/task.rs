//! What is done with the rows of a sequence.

use aerostat_text::Tokenizer;

use crate::Error;
use crate::distil::TopK;
use crate::embed::{Layer, Pool};
use crate::generate::Answer;
use crate::logits::{Sampler, has_nan};
use crate::observe::Observer;
use crate::run::{Gained, Outcome, Request, Want};
use crate::schedule::Sequence;
use crate::score::Scoring;

/// What a sequence is computed for.
#[derive(Debug)]
pub(crate) enum Task<'t> {
    Generate(Box<Answer<'t>>),
    Score(Scoring),
    /// And how many tokens are wanted for each position.
    TopK(TopK, usize),
    Hidden(Pool),
}

impl<'t> Sequence<'t> {
    /// A sequence of which nothing is computed.
    pub(crate) fn new(
        request: Request,
        tokenizer: Option<&'t Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let (id, prompt) = (request.id, request.token_ids.len());
        let (tokens, capacity, task) = match request.want {
            Want::Generate => {
                let capacity = prompt + request.max_new_tokens.max(1) - 1;
                let (tokens, answer) = Answer::new(request, tokenizer, observer)?;
                (tokens, capacity, Task::Generate(Box::new(answer)))
            }
            Want::Score { from, logits_last } => {
                let scoring = Scoring::new(prompt, from, logits_last);
                (request.token_ids, prompt, Task::Score(scoring))
            }
            Want::TopK { k, from } => {
                let top = TopK { from: from.min(prompt - 1), ..TopK::default() };
                (request.token_ids, prompt, Task::TopK(top, k))
            }
            Want::Hidden(hidden) => (request.token_ids, prompt, Task::Hidden(Pool::new(hidden, prompt))),
        };
        Ok(Self::with_task(id, tokens, prompt, capacity, task))
    }

    /// The positions to compute, as far as is known, are all before this one.
    pub(crate) fn end(&self) -> usize {
        let tokens = self.tokens.len();
        match &self.task {
            // The last token of an answer is not computed with.
            Task::Generate(answer) => tokens - usize::from(answer.ended()),
            Task::Score(scoring) => tokens - usize::from(!scoring.logits_last),
            Task::TopK(..) => tokens,
            Task::Hidden(pool) => pool.range().1,
        }
    }

    /// The first position of whose row something is wanted; of all that follow it is, too.
    pub(crate) fn results_from(&self) -> usize {
        match &self.task {
            Task::Generate(answer) => answer.logits_from(self.tokens.len()),
            Task::Score(scoring) => scoring.logits_from(),
            Task::TopK(top, _) => top.from,
            Task::Hidden(pool) => pool.range().0,
        }
    }

    /// Where hidden states are wanted; `None`: logits are.
    pub(crate) fn layer(&self) -> Option<Layer> {
        match &self.task {
            Task::Hidden(pool) => Some(pool.layer()),
            _ => None,
        }
    }

    /// Takes the hidden state of one of its rows.
    pub(crate) fn take_hidden(&mut self, position: usize, state: &[f32]) {
        self.not_finite |= has_nan(state);
        if let Task::Hidden(pool) = &mut self.task {
            pool.take(position, state);
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
                scoring.take_logits(&self.tokens, position, logits);
                Ok(())
            }
            Task::TopK(top, k) => {
                top.take_logits(*k, logits, sampler);
                Ok(())
            }
            Task::Hidden(_) => Ok(()),
        };
        if let Err(error) = taken {
            self.failed = Some(error);
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
        if let Task::Generate(answer) = &mut self.task {
            answer.reported(self.tokens.len() - self.prompt);
        }
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
            (None, Task::TopK(top, _)) => Outcome::TopK(TopK { token_ids: self.tokens, ..top }),
            (None, Task::Hidden(pool)) => Outcome::Hidden(pool.finish()),
            (None, Task::Score(scoring)) => Outcome::Score(scoring.finish(self.tokens)),
        }
    }
}
