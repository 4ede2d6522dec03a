//! What requests need from the plan, added up.

use aerostat_plan::{Share, Totals};

use crate::request::{Request, Want};

/// What a run needs from the plan: all its requests added up. It has the same size for any number of them.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Tokens, prompt and answer, of the longest sequence.
    pub(crate) sequence_tokens_max: usize,
    /// Sequences that could be active together.
    pub(crate) sequences: usize,
    /// Tokens, prompt and answer, of all sequences.
    pub(crate) tokens_total: usize,
    /// Rows that could share one sweep.
    pub(crate) rows_useful: usize,
    /// Those of them that could need logits.
    pub(crate) logit_rows_useful: usize,
    /// Rows of logits, `[vocab]` each, that the results hold.
    pub(crate) logit_rows_kept: usize,
    /// Some are to be answered.
    generates: bool,
    /// Bytes of other results, held until all is done.
    pub(crate) result_bytes: u64,
    /// What of the memory budget is kept for the caller.
    pub(crate) share: Share,
    /// Bytes held for each position of the KV cache, beside keys and values.
    pub(crate) position_bytes: u64,
    /// What all sequences take from their first sweep to their last.
    pub(crate) totals: Totals,
}

/// Positions of one sequence at most: a position is a number of 32 bits, and of f32 exactly up to here.
pub(crate) const POSITIONS_MAX: usize = 1 << 24;

/// Tokens that a grammar forces at a time, as the plan expects it.
const FORCED_TOKENS: usize = 16;

/// Rows of a sweep whose logits are themselves what is wanted.
const LOGIT_ROWS_GIVEN: usize = 64;

impl Need {
    /// Nothing yet.
    pub fn none() -> Self {
        Self {
            sequence_tokens_max: 1,
            sequences: 0,
            tokens_total: 0,
            rows_useful: 0,
            logit_rows_useful: 0,
            logit_rows_kept: 0,
            generates: false,
            result_bytes: 0,
            share: Share::default(),
            position_bytes: 0,
            totals: Totals::default(),
        }
    }

    /// One sequence of up to `tokens` tokens.
    pub fn one(tokens: usize) -> Self {
        let mut need = Self::none();
        need.add_tokens(tokens, 0, Want::Generate);
        need
    }

    /// So many sequences of up to `tokens` tokens each, prompt and answer, that are answered at once as far as memory allows:
    /// what a session is opened for.
    pub fn many(sequences: usize, tokens: usize) -> Self {
        let tokens = tokens.clamp(1, POSITIONS_MAX);
        let all = sequences.saturating_mul(tokens);
        Self {
            sequence_tokens_max: tokens,
            sequences,
            tokens_total: all,
            rows_useful: all,
            // Some more, for those whose prompts are scored.
            logit_rows_useful: sequences.max(LOGIT_ROWS_GIVEN).min(all),
            totals: Totals::at_once(sequences, tokens),
            generates: true,
            ..Self::none()
        }
    }

    /// What both need.
    pub fn merge(&mut self, other: &Self) {
        self.sequence_tokens_max = self.sequence_tokens_max.max(other.sequence_tokens_max);
        self.sequences += other.sequences;
        self.tokens_total += other.tokens_total;
        self.rows_useful += other.rows_useful;
        self.logit_rows_useful += other.logit_rows_useful;
        self.logit_rows_kept += other.logit_rows_kept;
        self.generates |= other.generates;
        self.result_bytes = self.result_bytes.saturating_add(other.result_bytes);
        self.share = if other.share.parts > 0 { other.share } else { self.share };
        self.position_bytes = self.position_bytes.max(other.position_bytes);
        self.totals.merge(&other.totals);
    }

    /// What each of both needs, one after the other.
    pub(crate) fn longer(&mut self, other: &Self) {
        self.sequence_tokens_max = self.sequence_tokens_max.max(other.sequence_tokens_max);
        self.tokens_total = self.tokens_total.max(other.tokens_total);
        self.rows_useful = self.rows_useful.max(other.rows_useful);
        self.logit_rows_useful = self.logit_rows_useful.max(other.logit_rows_useful);
        self.generates |= other.generates;
    }

    /// Counts bytes of results that are held until all is done.
    pub fn hold_results(&mut self, bytes: u64) {
        self.result_bytes = self.result_bytes.saturating_add(bytes);
    }

    /// Keeps a part of the memory budget for what the caller holds.
    pub fn keep_share(&mut self, share: Share) {
        self.share = share;
    }

    /// Counts bytes that are held for each token of the sequences under way, such as its log-probabilities.
    pub fn hold_tokens(&mut self, bytes: u64) {
        self.position_bytes = self.position_bytes.max(bytes);
    }

    /// Positions of the longest sequence, in the KV cache.
    pub(crate) fn positions_max(&self) -> usize {
        self.sequence_tokens_max
    }

    /// Sequences that could be active together.
    pub(crate) fn sequences(&self) -> usize {
        self.sequences
    }

    /// Whether some request is to be answered.
    pub(crate) fn generates(&self) -> bool {
        self.generates
    }

    /// One request more. One that no model has positions for is refused when it comes, and needs nothing.
    pub fn add(&mut self, request: &Request) {
        if request.positions() > POSITIONS_MAX {
            return;
        }
        let answer = if request.want == Want::Generate { request.max_new_tokens } else { 0 };
        self.add_tokens(request.token_ids.len(), answer, request.want);
        if request.want == Want::Generate && request.prompt_logprobs.is_some() {
            // The last row of a prompt has logits anyway.
            let rows = request.token_ids.len().min(POSITIONS_MAX).saturating_sub(1);
            self.logit_rows_useful += self.few(rows);
            self.totals.add(0, rows, 0);
        }
        if request.constraint.is_some() {
            let forced = answer.min(FORCED_TOKENS);
            self.rows_useful += forced;
            self.logit_rows_useful += request.top_logprobs.map_or(0, |_| forced);
        }
    }

    /// A request more with a prompt of so many tokens and an answer of up to `answer`.
    pub fn add_tokens(&mut self, prompt: usize, answer: usize, want: Want) {
        // What is longer is refused when it comes.
        let (prompt, answer) = (prompt.min(POSITIONS_MAX), answer.min(POSITIONS_MAX));
        let logit_rows = match want {
            Want::Generate => 1,
            Want::Score { from, .. } => prompt + 1 - from.clamp(1, prompt.max(1)),
            Want::TopK { from, .. } | Want::Logits { from } => prompt.saturating_sub(from),
            Want::Hidden(_) => 0,
        };
        self.sequence_tokens_max = self.sequence_tokens_max.max(prompt + answer);
        self.sequences += 1;
        self.generates |= want == Want::Generate;
        self.tokens_total += prompt + answer;
        self.rows_useful += prompt;
        self.logit_rows_useful += match want {
            Want::Generate => logit_rows,
            _ => self.few(logit_rows),
        };
        self.totals.add(prompt, logit_rows, answer);
    }

    /// Few at a time do where logits are themselves what is wanted: rows of them are large.
    fn few(&self, logit_rows: usize) -> usize {
        logit_rows.min(LOGIT_ROWS_GIVEN.saturating_sub(self.logit_rows_useful))
    }
}
