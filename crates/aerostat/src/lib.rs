//! Run language models far larger than memory: open, sweep, schedule, sample.
//!
//! ```no_run
//! use aerostat::{Engine, ModelFiles, Options, Request, Silent};
//!
//! # fn main() -> Result<(), aerostat::Error> {
//! let files = ModelFiles::open("path/to/model".as_ref())?;
//! let requests = [Request { token_ids: vec![1, 2, 3], max_new_tokens: 8, ..Request::default() }];
//! let options = Options { memory_bytes: Some(1 << 30), ..Options::default() };
//! let mut engine = Engine::open(&files, &options, &aerostat::generate::demand(&requests), &mut Silent)?;
//! let answers = engine.generate(&requests, None, &mut Silent)?;
//! println!("{:?}", answers.completions[0].token_ids);
//! # Ok(())
//! # }
//! ```
//!
//! The sweep loop is [`Engine`]'s `sweep`, in `engine.rs`.

#![forbid(unsafe_code)]

mod ahead;
pub mod bench;
pub mod classify;
mod diagnose;
pub mod distil;
pub mod embed;
mod engine;
mod error;
mod flow;
pub mod generate;
mod identity;
mod kept;
mod layouts;
mod learned;
mod logits;
pub mod machine;
mod model_files;
mod observe;
mod packed;
mod resolve;
mod room;
pub mod run;
mod schedule;
pub mod score;
mod spill;
mod stats;
mod task;

pub use aerostat_backend::KvType;
pub use aerostat_cpu::Isa;
use aerostat_plan::Totals;
pub use aerostat_plan::{Plan, size};
pub use aerostat_stream::{IoChoice, Source};
pub use aerostat_text::{ChatTemplate, Message, Tokenizer};
pub use classify::{Choices, Classification, Measure};
pub use distil::TopK;
pub use embed::{Hidden, Layer, Pooling};
pub use engine::{Device, Engine, Options, Prefixes};
pub use error::{Error, ErrorKind};
pub use generate::{Answers, Completion, FinishReason};
pub use identity::result_identity;
pub use logits::Sampling;
pub use machine::{available_bytes, peak_resident_bytes};
pub use model_files::{Inspection, ModelFiles};
pub use observe::{Observer, Phase, Progress, Silent};
pub use resolve::{Download, pull, resolve};
pub use run::{Constraint, Gained, Outcome, Request, RunEnd, TokenLogprobs, Want, Work};
pub use score::Score;
pub use stats::Stats;

/// What a run needs from the plan: all its requests added up. Large lists cost nothing.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub(crate) sequence_tokens_max: usize,
    pub(crate) sequences: usize,
    pub(crate) tokens_total: usize,
    pub(crate) rows_useful: usize,
    pub(crate) logit_rows_useful: usize,
    pub(crate) logit_rows_kept: usize,
    pub(crate) totals: Totals,
}

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
            totals: Totals::default(),
        }
    }

    /// One sequence of up to `tokens` tokens.
    pub fn one(tokens: usize) -> Self {
        let mut need = Self::none();
        need.add_tokens(tokens, 0, Want::Generate);
        need
    }

    /// One request more.
    pub fn add(&mut self, request: &Request) {
        let answer = if request.want == Want::Generate { request.max_new_tokens } else { 0 };
        self.add_tokens(request.token_ids.len(), answer, request.want);
        if request.constraint.is_some() {
            let forced = answer.min(FORCED_TOKENS);
            self.rows_useful += forced;
            self.logit_rows_useful += request.top_logprobs.map_or(0, |_| forced);
        }
    }

    /// A request more with a prompt of so many tokens and an answer of up to `answer`.
    pub fn add_tokens(&mut self, prompt: usize, answer: usize, want: Want) {
        let logit_rows = match want {
            Want::Generate => 1,
            Want::Score { from, .. } => prompt + 1 - from.clamp(1, prompt.max(1)),
            Want::TopK { from, .. } => prompt.saturating_sub(from),
            Want::Hidden(_) => 0,
        };
        self.sequence_tokens_max = self.sequence_tokens_max.max(prompt + answer);
        self.sequences += 1;
        self.tokens_total += prompt + answer;
        self.rows_useful += prompt;
        self.logit_rows_useful += match want {
            Want::Generate => logit_rows,
            // Few at a time do: rows of logits are large.
            _ => logit_rows.min(LOGIT_ROWS_GIVEN.saturating_sub(self.logit_rows_useful)),
        };
        self.totals.add(prompt, logit_rows, answer);
    }
}
