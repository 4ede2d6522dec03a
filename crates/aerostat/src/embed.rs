//! Hidden states pooled into one vector for each text.

use crate::Error;
use crate::engine::Engine;
use crate::need::Need;
use crate::observe::Observer;
use crate::request::{Hidden, Outcome, Request, Want};

/// What the plan must provide to embed these sequences.
pub fn need(sequences: &[Vec<u32>]) -> Need {
    let mut need = Need::none();
    sequences.iter().for_each(|tokens| need.add_tokens(tokens.len(), 0, Want::Hidden(Hidden::default())));
    need
}

impl Engine {
    /// The pooled hidden states of sequences, one vector for each; mean pooling if `hidden` names none. A sequence that is
    /// empty or holds token ids outside the vocabulary, or for which there is no such layer, has an error in its place.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the observer asked to stop; those of reading and
    /// computing.
    pub fn embed(
        &mut self,
        sequences: &[Vec<u32>],
        hidden: Hidden,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        let want = Want::Hidden(Hidden { pooling: Some(hidden.pooling.unwrap_or_default()), ..hidden });
        let request = |i: usize| Request { token_ids: sequences[i].clone(), want, ..Request::default() };
        self.results(sequences.len(), &request, observer, |outcome| match outcome {
            Outcome::Hidden(mut vectors) => vectors.pop(),
            _ => None,
        })
    }
}
