//! Scores and likeliest tokens in the making.

use crate::request::{Score, TokenLogprobs, TopK};
use crate::sampler::{Sampler, log_probability, token_logprobs};

/// A score in the making.
#[derive(Debug)]
pub(crate) struct Scoring {
    from: usize,
    /// The logits after the last token are wanted.
    pub(crate) logits_last: bool,
    logprobs: Vec<Option<f32>>,
    /// Of each token, if wanted, and how many of the likeliest in its place.
    top: Option<(usize, Vec<Option<TokenLogprobs>>)>,
    last: Option<Vec<f32>>,
}

impl Scoring {
    /// Of `tokens` tokens, from number `from`, with so many of the likeliest in the place of each.
    pub(crate) fn new(tokens: usize, from: usize, logits_last: bool, top: Option<usize>) -> Self {
        let top = top.map(|top| (top, vec![None; tokens]));
        Self { from: from.max(1), logits_last, logprobs: vec![None; tokens], top, last: None }
    }

    /// The first position whose logits are needed.
    pub(crate) fn logits_from(&self) -> usize {
        self.from - 1
    }

    pub(crate) fn take_logits(
        &mut self,
        tokens: &[u32],
        position: usize,
        logits: &[f32],
        sampler: &mut Sampler,
    ) {
        let (Some(&next), Some(place)) = (tokens.get(position + 1), self.logprobs.get_mut(position + 1))
        else {
            self.last = self.logits_last.then(|| logits.to_vec());
            return;
        };
        *place = Some(log_probability(logits, next));
        if let Some((count, top)) = &mut self.top
            && let Some(place) = top.get_mut(position + 1)
        {
            *place = Some(token_logprobs(logits, next, *count, sampler));
        }
    }

    pub(crate) fn finish(self, token_ids: Vec<u32>) -> Score {
        let top = self.top.map(|(_, top)| top);
        Score { token_ids, logprobs: self.logprobs, logits_last: self.last, top }
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
