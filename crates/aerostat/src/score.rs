//! Log-probabilities of given tokens.

use serde::Serialize;

use crate::engine::Engine;
use crate::logits::{has_nan, log_probability};
use crate::model_files::check_tokens;
use crate::observe::{Observer, Phase};
use crate::schedule::{Rows, Schedule, Sequence, Want};
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
    let total = sequences.iter().map(Vec::len).sum();
    Need {
        sequence_tokens_max: sequences.iter().map(Vec::len).max().unwrap_or(1),
        sequences: sequences.len(),
        tokens_total: total,
        rows_useful: total,
        logit_rows_useful: total.min(64),
        logit_rows_kept: if logits { sequences.len() } else { 0 },
    }
}

impl Engine {
    /// Scores all sequences; `logits` asks for the logits after the last token of each.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for empty sequences or token ids outside the vocabulary;
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the observer asked to stop; those of reading and
    /// computing.
    pub fn score(
        &mut self,
        sequences: &[Vec<u32>],
        logits: bool,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Score>, Error> {
        for (i, tokens) in sequences.iter().enumerate() {
            check_tokens(self.model().spec(), i, tokens, 0)?;
        }
        let score = |tokens: &Vec<u32>| Score {
            token_ids: tokens.clone(),
            logprobs: vec![None; tokens.len()],
            logits_last: None,
        };
        let mut scores: Vec<Score> = sequences.iter().map(score).collect();
        let waiting = sequences.iter().enumerate().map(|(i, t)| Sequence::new(i, t.clone(), 0, Want::All));
        let mut schedule = Schedule::new(waiting);
        self.clock().tokens_left = sequences.iter().map(|t| t.len() as u64).sum();
        let result = self.score_all(&mut schedule, &mut scores, logits, observer);
        self.stop_reading();
        for sequence in std::mem::take(&mut schedule.active) {
            self.pages.release(sequence.into_pages());
        }
        result.map(|()| scores)
    }

    fn score_all(
        &mut self,
        schedule: &mut Schedule,
        scores: &mut [Score],
        want_logits: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let mut rows = Rows::default();
        let limits = self.model().limits();
        let vocab = self.model().spec().vocab;
        loop {
            let chunk = self.prefill_chunk;
            if !schedule.fill(&mut rows, limits, &mut self.pages, chunk) {
                return Ok(());
            }
            let logits = self.sweep(&rows, Phase::Score, schedule.more(), observer)?;
            let mut bad = None;
            let mut finished = Vec::new();
            for (row, &(request, position)) in logits.chunks_exact(vocab).zip(&rows.owners) {
                let score = &mut scores[request];
                if has_nan(row) {
                    bad = Some((request, score.token_ids.clone()));
                    break;
                }
                match score.token_ids.get(position + 1) {
                    Some(&next) => score.logprobs[position + 1] = Some(log_probability(row, next)),
                    None => {
                        score.logits_last = want_logits.then(|| row.to_vec());
                        finished.push(request);
                    }
                }
            }
            if let Some((request, tokens)) = bad {
                return Err(self.not_finite(request, &tokens));
            }
            for request in finished {
                schedule.finish(request, &mut self.pages);
            }
            let clock = self.clock();
            clock.tokens += rows.tokens.len() as u64;
            clock.tokens_left = clock.tokens_left.saturating_sub(rows.tokens.len() as u64);
        }
    }
}
