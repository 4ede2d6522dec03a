//! Log-probabilities of given tokens.

use serde::Serialize;

use crate::engine::Engine;
use crate::logits::log_probability;
use crate::observe::Observer;
use crate::run::{Outcome, Request, RunEnd, Want};
use crate::{Error, Need};

/// The log-probabilities of a sequence of tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The tokens.
    pub token_ids: Vec<u32>,
    /// For each token, its log-probability given those before it; `None` for the first.
    pub logprobs: Vec<Option<f32>>,
    /// The logits after the last token, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits_last: Option<Vec<f32>>,
}

/// What the plan must provide to score these sequences; `logits` as in [`Engine::score`].
pub fn demand(sequences: &[Vec<u32>], logits: bool) -> Need {
    let mut need = Need::none();
    let want = Want::Score { from: 1, logits_last: logits };
    sequences.iter().for_each(|tokens| need.add_tokens(tokens.len(), 0, want));
    need.logit_rows_kept = if logits { sequences.len() } else { 0 };
    need
}

impl Engine {
    /// Scores all sequences; `logits` asks for the logits after the last token of each.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for empty sequences or token ids outside the vocabulary; [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the
    /// observer asked to stop; those of reading and computing.
    pub fn score(
        &mut self,
        sequences: &[Vec<u32>],
        logits: bool,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Score>, Error> {
        let want = Want::Score { from: 1, logits_last: logits };
        let request = |i: usize| Request { token_ids: sequences[i].clone(), want, ..Request::default() };
        let (outcomes, end) = self.run_list(sequences.len(), &request, None, observer)?;
        if end == RunEnd::Interrupted {
            return Err(Error::interrupted());
        }
        let score = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::Score(score)) => Some(score),
            _ => None,
        };
        Ok(outcomes.into_iter().filter_map(score).collect())
    }
}

/// A score in the making.
#[derive(Debug)]
pub(crate) struct Scoring {
    from: usize,
    /// The logits after the last token are wanted.
    pub(crate) logits_last: bool,
    logprobs: Vec<Option<f32>>,
    last: Option<Vec<f32>>,
}

impl Scoring {
    /// Of `tokens` tokens, from number `from`.
    pub(crate) fn new(tokens: usize, from: usize, logits_last: bool) -> Self {
        Self { from: from.max(1), logits_last, logprobs: vec![None; tokens], last: None }
    }

    /// The first position whose logits are needed.
    pub(crate) fn logits_from(&self) -> usize {
        self.from - 1
    }

    pub(crate) fn take_logits(&mut self, tokens: &[u32], position: usize, logits: &[f32]) {
        match (tokens.get(position + 1), self.logprobs.get_mut(position + 1)) {
            (Some(&next), Some(place)) => *place = Some(log_probability(logits, next)),
            _ => self.last = self.logits_last.then(|| logits.to_vec()),
        }
    }

    pub(crate) fn finish(self, token_ids: Vec<u32>) -> Score {
        Score { token_ids, logprobs: self.logprobs, logits_last: self.last }
    }
}
