//! What a model thinks likely after every token: targets to train smaller models on.

use serde::Serialize;

use crate::engine::Engine;
use crate::logits::{Sampler, token_logprobs};
use crate::observe::Observer;
use crate::run::{Outcome, Request, RunEnd, Want};
use crate::{Error, Need};

/// The likeliest tokens after each token of a text, by the model's own distribution (temperature 1).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TopK {
    /// The text.
    pub token_ids: Vec<u32>,
    /// The first position that is told of; `from = n` leaves the first n positions out.
    pub from: usize,
    /// Tokens told of for each position; fewer than asked for if the vocabulary is smaller.
    pub k: usize,
    /// `[positions, k]`, likeliest first: what the model expects after each position. The target of the row of position
    /// i is the token at i + 1.
    pub ids: Vec<u32>,
    /// `[positions, k]`: their log-probabilities.
    pub logprobs: Vec<f32>,
}

/// What the plan must provide to distil these sequences.
pub fn demand(sequences: &[Vec<u32>]) -> Need {
    let mut need = Need::none();
    sequences.iter().for_each(|t| need.add_tokens(t.len(), 0, Want::TopK { k: 1, from: 0 }));
    need
}

impl Engine {
    /// The `k` likeliest tokens after every token of given texts. For texts of the model's own, ask for
    /// [`top_logprobs`](crate::Request::top_logprobs) of answers.
    ///
    /// In a training loop, the student's loss at position i is the cross-entropy between these probabilities (`exp`,
    /// divided by their sum, or with the rest as one more class) and its own at the same ids.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for empty sequences or token ids outside the vocabulary;
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the observer asked to stop; those of reading and
    /// computing.
    pub fn distil(
        &mut self,
        sequences: &[Vec<u32>],
        k: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<TopK>, Error> {
        let want = Want::TopK { k, from: 0 };
        let request = |i: usize| Request { token_ids: sequences[i].clone(), want, ..Request::default() };
        let (outcomes, end) = self.run_list(sequences.len(), &request, None, observer)?;
        if end == RunEnd::Interrupted {
            return Err(Error::interrupted());
        }
        let top = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::TopK(top)) => Some(top),
            _ => None,
        };
        Ok(outcomes.into_iter().filter_map(top).collect())
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
