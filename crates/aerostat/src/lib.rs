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

pub mod bench;
mod diagnose;
mod engine;
mod error;
mod flow;
pub mod generate;
mod learned;
mod logits;
pub mod machine;
mod model_files;
mod observe;
mod resolve;
mod schedule;
pub mod score;
mod stats;

pub use aerostat_cpu::Isa;
pub use aerostat_plan::{Plan, size};
pub use aerostat_stream::{IoChoice, Source};
pub use aerostat_text::{ChatTemplate, Message, Tokenizer};
pub use engine::{Device, Engine, KvChoice, Options};
pub use error::{Error, ErrorKind};
pub use generate::{Answers, Completion, FinishReason, Request};
pub use logits::Sampling;
pub use machine::{available_bytes, peak_resident_bytes};
pub use model_files::{Inspection, ModelFiles};
pub use observe::{Observer, Phase, Progress, Silent};
pub use resolve::{Download, pull, resolve};
pub use score::Score;
pub use stats::Stats;

/// What a run needs from the plan; made by [`generate::demand`] and [`score::demand`].
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub(crate) sequence_tokens_max: usize,
    pub(crate) sequences: usize,
    pub(crate) tokens_total: usize,
    pub(crate) rows_useful: usize,
    pub(crate) logit_rows_useful: usize,
    pub(crate) logit_rows_kept: usize,
}

impl Need {
    /// One sequence of up to `tokens` tokens.
    pub fn one(tokens: usize) -> Self {
        Self {
            sequence_tokens_max: tokens,
            sequences: 1,
            tokens_total: tokens,
            rows_useful: tokens,
            logit_rows_useful: 1,
            logit_rows_kept: 0,
        }
    }
}
