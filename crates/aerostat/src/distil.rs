//! What a model thinks likely after every token: targets to train smaller models on.

use crate::Error;
use crate::engine::Engine;
use crate::need::Need;
use crate::observe::Observer;
use crate::request::{Outcome, Request, TopK, Want};

/// What the plan must provide to distil these sequences.
pub fn need(sequences: &[Vec<u32>]) -> Need {
    let mut need = Need::none();
    sequences.iter().for_each(|t| need.add_tokens(t.len(), 0, Want::TopK { k: 1, from: 0 }));
    need
}

impl Engine {
    /// The `k` likeliest tokens after every token of given texts. For texts of the model's own, ask for
    /// [`top_logprobs`](Request::top_logprobs) of answers.
    ///
    /// In a training loop, the student's loss at position i is the cross-entropy between these probabilities (`exp`,
    /// divided by their sum, or with the rest as one more class) and its own at the same ids.
    ///
    /// A sequence that is empty or holds token ids outside the vocabulary has an error in its place.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the observer asked to stop; those of reading and
    /// computing.
    pub fn distil(
        &mut self,
        sequences: &[Vec<u32>],
        k: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Result<TopK, Error>>, Error> {
        let want = Want::TopK { k, from: 0 };
        let request = |i: usize| Request { token_ids: sequences[i].clone(), want, ..Request::default() };
        self.results(sequences.len(), &request, observer, |outcome| match outcome {
            Outcome::TopK(top) => Some(top),
            _ => None,
        })
    }
}
