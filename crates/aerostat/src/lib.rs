//! Run language models far larger than memory: open, sweep, schedule, sample.
//!
//! ```no_run
//! use aerostat::{Engine, ModelFiles, Options, Request, Silent};
//!
//! # fn main() -> Result<(), aerostat::Error> {
//! let files = ModelFiles::open("path/to/model".as_ref())?;
//! let requests = [Request { token_ids: vec![1, 2, 3], max_new_tokens: 8, ..Request::default() }];
//! let options = Options { memory_bytes: Some(1 << 30), ..Options::default() };
//! let mut engine = Engine::open(&files, &options, &aerostat::generate::need(&requests), &mut Silent)?;
//! let answers = engine.generate(&requests, None, &mut Silent)?;
//! for answer in answers.completions {
//!     println!("{:?}", answer?.token_ids);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The sweep loop is in `sweep.rs`.

#![forbid(unsafe_code)]

mod ahead;
mod answer;
pub mod bench;
mod checked;
pub mod classify;
mod clock;
mod control_groups;
mod diagnose;
pub mod distil;
mod drafts;
pub mod embed;
mod embedder;
mod embedding;
mod engine;
mod error;
mod expected;
mod expert_cache;
mod expert_trace;
mod flow;
pub mod generate;
pub mod gpu;
mod hook;
mod identity;
mod kept;
mod layers;
mod layouts;
mod learned;
pub mod machine;
mod makers;
mod model_files;
mod need;
mod observe;
mod options;
mod parts;
#[cfg(test)]
mod processors;
mod prompt_cache;
mod request;
pub mod rerank;
mod residency;
mod resolve;
mod room;
mod rows;
mod rules;
mod run;
mod sampler;
mod schedule;
pub mod score;
mod scoring;
mod sequence;
pub mod session;
mod spill;
mod states;
mod stats;
mod store;
mod sweep;
mod texts;
mod yielding;

pub use aerostat_backend::Allocated;
pub use aerostat_backend::KvType;
pub use aerostat_cpu::Isa;
pub use aerostat_plan::Machine;
pub use aerostat_plan::{Footprint, Plan, Share, size};
pub use aerostat_stream::{IoChoice, Source};
pub use aerostat_text::{ChatTemplate, Message, Tokenizer};
pub use classify::{Choices, Classification, Measure};
pub use drafts::best_draft;
pub use embedding::{Embedding, EmbeddingText};
pub use engine::{Engine, program};
pub use error::{Error, ErrorKind};
pub use generate::Answers;
pub use hook::{Hook, SharedHook};
pub use identity::result_identity;
pub use machine::{available_bytes, peak_resident_bytes};
pub use model_files::{Inspection, ModelFiles};
pub use need::Need;
pub use observe::{Observer, Phase, Progress, Silent, Totals};
pub use options::{BudgetOf, Device, Draft, Options, Prefixes, PromptCache};
pub use parts::Parts;
pub use request::{
    Completion, Constraint, FinishReason, Gained, Hidden, Layer, Outcome, Pooling, Request, RunEnd, Score,
    StopReason, TokenLogprobs, TopK, UnderWay, Want, Work,
};
pub use rerank::Reranker;
pub use resolve::{
    Download, Found, Headers, HubChoice, Outline, Store, Stores, headers, pull, resolve, resolve_from,
};
pub use rules::TokenRules;
pub use sampler::Sampling;
pub use session::{QueueLimits, Session, SessionHandle};
pub use stats::{GpuStats, Stats};
pub use texts::Vocabulary;
