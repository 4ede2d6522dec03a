//! Log-probabilities of given tokens.

use serde::Serialize;

use crate::engine::Engine;
use crate::logits::log_probability;
use crate::observe::Observer;
use crate::run::{Outcome, Request, RunEnd, Want, Work};
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
        let mut list = List { sequences, logits, next: 0, scores: vec![None; sequences.len()] };
        for id in 0..sequences.len() {
            self.check(&list.request(id), false)?;
        }
        match self.run(&mut list, None, observer)? {
            RunEnd::Interrupted => Err(Error::interrupted()),
            RunEnd::Done => Ok(list.scores.into_iter().flatten().collect()),
        }
    }
}

/// Sequences to be scored.
struct List<'a> {
    sequences: &'a [Vec<u32>],
    logits: bool,
    next: usize,
    scores: Vec<Option<Score>>,
}

impl List<'_> {
    fn request(&self, index: usize) -> Request {
        Request {
            id: index as u64,
            token_ids: self.sequences[index].clone(),
            want: Want::Score { from: 1, logits_last: self.logits },
            ..Request::default()
        }
    }
}

impl Work for List<'_> {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        self.next += 1;
        Ok((self.next <= self.sequences.len()).then(|| self.request(self.next - 1)))
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        match (outcome, self.scores.get_mut(id as usize)) {
            (Outcome::Score(score), Some(place)) => *place = Some(score),
            (Outcome::Failed(error), _) => return Err(error),
            _ => {}
        }
        Ok(())
    }

    fn tokens_left(&self) -> u64 {
        self.sequences.iter().skip(self.next).map(|t| t.len() as u64).sum()
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
