//! How a model is run.

use std::path::PathBuf;
use std::sync::Arc;

use aerostat_backend::KvType;
use aerostat_cpu::Isa;
use aerostat_stream::IoChoice;

use crate::model_files::ModelFiles;

/// Where ops run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU, so that results do not depend on what else a machine has.
    #[default]
    Auto,
    /// The SIMD kernels of this machine's CPU.
    Cpu,
    /// A GPU: the adapter of this number, or the first. Needs the feature `gpu`.
    Gpu(Option<usize>),
    /// The naive backend that others are tested against.
    Reference,
}

/// What is done with sequences that begin alike. Results are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefixes {
    /// Compute and hold what they share once; not so where they have a recurrent state, which no two can share.
    #[default]
    Shared,
    /// Each computes and holds its own.
    Apart,
}

/// What guesses come from: tokens that may follow, computed in rows that sweeps have to spare, so that a sweep brings several
/// tokens of an answer. Results are the same.
#[derive(Clone, Debug, Default)]
pub enum Draft {
    /// The texts at hand and what the model expected before.
    #[default]
    Texts,
    /// Nothing: every token takes a sweep.
    None,
    /// The same, and a small model with the same tokens, which is held in memory, whole, under the same budget.
    Model(Arc<ModelFiles>),
}

/// Where the KV cache of prompts is kept on disk, to be read instead of computed in later runs. Results are the same.
#[derive(Clone, Debug)]
pub struct PromptCache {
    /// The folder; made when something is kept.
    pub folder: PathBuf,
    /// Bytes that it may hold; the oldest files make room.
    pub bytes_max: u64,
    /// What tells the model apart from others: its files, the adapter. Keys and values of another are never taken for its own.
    pub identity: String,
}

/// What a memory budget bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BudgetOf {
    /// The whole process: code, tokenizer and what the caller holds included.
    #[default]
    Process,
    /// What the engine adds to the process as it is when the plan is made: for programs that hold large things of their own.
    Engine,
}

/// How a model is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bound of memory, in bytes; `None`: resident if that fits in 80 % of the available memory, else that.
    pub memory_bytes: Option<u64>,
    /// What that bounds.
    pub budget_of: BudgetOf,
    /// Where ops run.
    pub device: Device,
    /// Bound of a GPU's memory, in bytes; `None`: 2 GiB are planned with.
    pub vram_bytes: Option<u64>,
    /// Worker threads; `None`: all cores.
    pub threads: Option<usize>,
    /// Instruction set; `None`: the best of this CPU.
    pub isa: Option<Isa>,
    /// How weights are read.
    pub io: IoChoice,
    /// Rows of a sweep at most.
    pub rows_max: Option<usize>,
    /// Element type of the KV cache; [`ModelFiles::usual_kv`](crate::ModelFiles::usual_kv) is what suits a model.
    pub kv: KvType,
    /// Tile size in bytes; `None`: the plan chooses.
    pub tile_bytes: Option<u64>,
    /// Rows of one prompt in one sweep at most.
    pub prefill_chunk: Option<usize>,
    /// Whether sequences that begin alike compute and hold what they share once.
    pub prefixes: Prefixes,
    /// What guesses of the next tokens come from.
    pub draft: Draft,
    /// Where parts of the KV cache may wait on disk, so that more sequences are active at once; `None`: a sequence waits
    /// until its longest answer has room, as it does where sequences have a recurrent state.
    pub spill: Option<PathBuf>,
    /// Where the KV cache of prompts is kept from run to run; `None`: nowhere. Nor is it where sequences keep recurrent states.
    pub prompt_cache: Option<PromptCache>,
    /// Weights kept in memory at most; for measurements. `None`: as much as the budget allows.
    pub pinned_bytes_max: Option<u64>,
    /// What the plan takes reading to yield; `None`: what a look at the disk says.
    pub read_bytes_per_second: Option<f64>,
    /// A small file that learns which experts are used, so that later runs begin with those in memory and foretell what they
    /// read: read when a model is opened, added to when the engine is dropped. It may be missing or deleted. It changes no
    /// results.
    pub expert_use: Option<PathBuf>,
    /// A file that is written anew with which experts each sweep uses, one JSON object a line: `sweep`, `layer`, `rows`, and
    /// `experts`, each named once, in the order of computing. It changes no results.
    pub expert_trace: Option<PathBuf>,
}
