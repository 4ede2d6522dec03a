//! What is done with the rows of a sequence.

use aerostat_text::Tokenizer;

use crate::Error;
use crate::generate::Answer;
use crate::logits::Sampler;
use crate::observe::Observer;
use crate::run::{Gained, Outcome, Request, Want};
use crate::schedule::Sequence;
use crate::score::Scoring;

/// What a sequence is computed for.
#[derive(Debug)]
pub(crate) enum Task<'t> {
    Generate(Answer<'t>),
    Score(Scoring),
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
                (tokens, capacity, Task::Generate(answer))
            }
            Want::Score { from, logits_last } => {
                let scoring = Scoring::new(prompt, from, logits_last);
                (request.token_ids, prompt, Task::Score(scoring))
            }
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
        }
    }

    /// The first position whose logits are needed; all that follow are, too.
    pub(crate) fn logits_from(&self) -> usize {
        match &self.task {
            Task::Generate(answer) => answer.logits_from(self.tokens.len()),
            Task::Score(scoring) => scoring.logits_from(),
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
        };
        if let Err(error) = taken {
            self.failed = Some(error);
        }
    }

    /// Nothing is left to compute.
    pub(crate) fn done(&self) -> bool {
        let open = match &self.task {
            Task::Generate(answer) => !answer.complete(self.tokens.len() - self.prompt),
            Task::Score(_) => self.computed < self.end(),
        };
        self.failed.is_some() || !open
    }

    /// Tokens of the answer that have not been told of.
    pub(crate) fn gained(&self) -> Option<Gained<'_>> {
        match &self.task {
            Task::Generate(answer) => answer.gained(self.id, self.tokens.get(self.prompt..)?),
            Task::Score(_) => None,
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
            Task::Score(_) => self.end() - self.computed,
        }
    }

    /// The result.
    pub(crate) fn into_outcome(self, observer: &mut dyn Observer) -> Outcome {
        match (self.failed, self.task) {
            (Some(error), _) => Outcome::Failed(error),
            (None, Task::Generate(answer)) => {
                Outcome::Completion(answer.finish(self.id, &self.tokens, observer))
            }
            (None, Task::Score(scoring)) => Outcome::Score(scoring.finish(self.tokens)),
        }
    }
}
