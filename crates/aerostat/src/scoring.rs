//! Scores and likeliest tokens in the making.

use crate::request::{Score, TopK};
use crate::sampler::{Sampler, log_probability, token_logprobs};

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

impl TopK {
    /// Takes the logits after the next position.
    pub(crate) fn take_logits(&mut self, wanted: usize, logits: &[f32], sampler: &mut Sampler) {
        let top = token_logprobs(logits, 0, wanted, sampler).top;
        self.k = top.len();
        self.ids.extend(top.iter().map(|t| t.0));
        self.logprobs.extend(top.iter().map(|t| t.1));
    }
}
