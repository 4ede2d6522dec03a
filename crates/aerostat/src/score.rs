//! Log-probabilities of given tokens.

use crate::Error;
use crate::engine::Engine;
use crate::need::Need;
use crate::observe::Observer;
use crate::request::{Outcome, Request, Score, Want};

/// What the plan must provide to score these sequences; `logits` as in [`Engine::score`].
pub fn need(sequences: &[Vec<u32>], logits: bool) -> Need {
    let mut need = Need::none();
    let want = Want::Score { from: 1, logits_last: logits };
    sequences.iter().for_each(|tokens| need.add_tokens(tokens.len(), 0, want));
    need.logit_rows_kept = if logits { sequences.len() } else { 0 };
    need
}

impl Engine {
    /// Scores all sequences; `logits` asks for the logits after the last token of each. A sequence that is empty or holds
    /// token ids outside the vocabulary has an error in its place.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the observer asked to stop; those of reading and
    /// computing.
    pub fn score(
        &mut self,
        sequences: &[Vec<u32>],
        logits: bool,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Result<Score, Error>>, Error> {
        let want = Want::Score { from: 1, logits_last: logits };
        let request = |i: usize| Request { token_ids: sequences[i].clone(), want, ..Request::default() };
        self.results(sequences.len(), &request, observer, |outcome| match outcome {
            Outcome::Score(score) => Some(score),
            _ => None,
        })
    }
}
