//! The plan: what is pinned, what streams, how many rows, and what a sweep costs.
//!
//! [`plan`] is a pure function from a [`ModelSpec`], a [`PlanInput`] and a [`Machine`] to a [`Plan`], an immutable value
//! that prints itself. It does no I/O, reads no clock and starts no thread.

#![forbid(unsafe_code)]

mod cost;
mod explain;
mod fit;
mod mixture;
mod steps;
mod uses;

use std::collections::BTreeMap;

use aerostat_arch::{Block, ModelSpec};
use serde::Serialize;

pub use aerostat_arch::Role;
pub use aerostat_types::{DeviceMemory, Home};
pub use cost::{Cost, Guesses};
pub use explain::size;
pub use fit::{Error, plan};
pub use mixture::Hits;
pub use steps::Step;
pub use uses::ExpertUse;

/// Positions in a page of the KV cache.
pub const PAGE_TOKENS: usize = 16;
/// The largest tile the planner chooses by itself.
pub const TILE_BYTES_MAX: u64 = 4 << 20;
/// Rows of one sweep the planner chooses by itself at most.
pub const ROWS_MAX: usize = 512;

/// What a run asks for, and what it takes in memory.
#[derive(Clone, Debug)]
pub struct PlanInput {
    /// Upper bound of the process's peak resident set; `None`: resident if that fits in 80 % of the available
    /// memory, else that.
    pub budget_bytes: Option<u64>,
    /// Tokens (prompt and answer) of the longest sequence.
    pub sequence_tokens_max: usize,
    /// Sequences that could be active together.
    pub sequences: usize,
    /// Their tokens.
    pub tokens_total: usize,
    /// Rows that could usefully share one sweep.
    pub rows_useful: usize,
    /// Upper bound of rows in a sweep, if the user names one.
    pub rows_max: Option<usize>,
    /// Rows of a sweep that could need logits.
    pub logit_rows_useful: usize,
    /// Rows of logits that the results hold.
    pub logit_rows_kept: usize,
    /// What all sequences take together, over all sweeps.
    pub totals: Totals,
    /// Rows of guessed tokens, each with logits and a place in the KV cache, that a sweep can use beside; 0: none.
    pub draft_rows: usize,
    /// What guessing takes beside them.
    pub draft_bytes: u64,
    /// How the KV cache stores keys and values.
    pub kv_type: &'static str,
    /// What it takes for one token.
    pub kv_bytes_per_token: u64,
    /// What is allocated beside weights, the ring and the KV cache.
    pub footprint: Footprint,
    /// What of the budget is not the engine's.
    pub share: Share,
    /// Tile size, if the user names one.
    pub tile_bytes: Option<u64>,
    /// Upper bound of pinned weights; for measurements. `None`: as much as the budget allows.
    pub pinned_bytes_max: Option<u64>,
    /// How often each expert was used before, if that is known.
    pub expert_use: Option<ExpertUse>,
    /// The memory of a device that has some of its own.
    pub device: Option<DeviceMemory>,
}

/// A part of a budget that is kept for other things; by default there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// It is one of so many equal parts, 2 or more; 0: nothing is kept.
    pub parts: u64,
    /// Its bytes at most.
    pub bytes_max: u64,
}

impl Share {
    /// What it is of a budget, in bytes.
    pub fn of(self, budget: u64) -> u64 {
        budget.checked_div(self.parts).unwrap_or(0).min(self.bytes_max)
    }

    /// What it is of the smallest budget that leaves so many bytes beside it.
    pub(crate) fn beside(self, bytes: u64) -> u64 {
        bytes.checked_div(self.parts.saturating_sub(1)).unwrap_or(0).min(self.bytes_max)
    }
}

/// Memory beside weights, the ring and the KV cache, in bytes: activations and small tensors as the program says, scratch
/// as the device says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Whatever the sweep: small tensors, numbers beside codes, scratch of threads.
    pub fixed_bytes: u64,
    /// For each row that a sweep can carry: activations, partial sums, copies on the host.
    pub row_bytes: u64,
    /// For each row with logits, besides.
    pub logit_row_bytes: u64,
    /// For each sequence that keeps a recurrent state.
    pub state_bytes: u64,
    /// For each position of the KV cache, beside keys and values.
    pub position_bytes: u64,
    /// For each of the first [`first_positions`](Self::first_positions) besides.
    pub first_position_bytes: u64,
    /// How many positions of the KV cache take more than others.
    pub first_positions: usize,
}

/// A small model in memory, which guesses what the planned one would say.
#[derive(Clone, Debug, Serialize)]
pub struct DraftModel {
    /// What it takes in memory, in bytes.
    pub bytes: u64,
    /// Seconds of a round, in which it goes on from some guesses at once.
    pub round_seconds: f64,
    /// How many times as many tokens as without it a sweep must bring for it to be worth its time, and the weights of the
    /// planned model that its memory could have held.
    pub pays_above: f64,
}

/// What sequences take from their first sweep to their last, added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Rows that are computed.
    pub rows: u64,
    /// Those of them that have logits.
    pub logit_rows: u64,
    /// Pages of the KV cache, counted in every sweep in which they are held.
    pub kv_pages: u64,
}

impl Totals {
    /// Adds what other sequences take.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.logit_rows += other.logit_rows;
        self.kv_pages = self.kv_pages.saturating_add(other.kv_pages);
    }

    /// Sequences of so many tokens, prompt and answer, that are all to be active at once, whatever rows a sweep has.
    pub fn at_once(sequences: usize, tokens: usize) -> Self {
        let rows = sequences as u64;
        let pages = rows.saturating_mul(tokens.div_ceil(PAGE_TOKENS) as u64);
        Self { rows, logit_rows: rows, kv_pages: rows.saturating_mul(pages) }
    }

    /// Adds a sequence: a prompt, of whose rows `logit_rows` have logits, and an answer of so many tokens.
    pub fn add(&mut self, prompt: usize, logit_rows: usize, answer: usize) {
        // The last token of an answer is never computed; the first comes with the prompt.
        let more = answer.saturating_sub(1);
        let sweeps = answer.max(prompt.div_ceil(ROWS_MAX));
        let held = (prompt + more / 2).div_ceil(PAGE_TOKENS) as u64;
        self.rows += (prompt + more) as u64;
        self.logit_rows += (logit_rows + more) as u64;
        self.kv_pages = self.kv_pages.saturating_add(held.saturating_mul(sweeps as u64));
    }
}

/// What the plan must know of the machine, all of it measured by others.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Memory that could be used now without swapping.
    pub available_bytes: u64,
    /// What the process already holds: code, tokenizer, headers.
    pub process_bytes: u64,
    /// The largest resident set the process has had so far.
    pub process_peak_bytes: u64,
    /// Worker threads.
    pub threads: usize,
    /// Alignment of direct reads; a ring slot holds a tile and two of these.
    pub alignment: u64,
    /// Sequential direct reads.
    pub read_bytes_per_second: f64,
    /// What multiplying takes, by ascending rows: from one row, where memory bounds it, to many.
    pub multiply: Vec<Multiply>,
}

/// What multiplying weights in memory with some rows takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multiply {
    /// Rows of activations.
    pub rows: usize,
    /// Seconds for each weight, all rows together.
    pub seconds_per_weight: f64,
}

/// The answer. All sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The model's family.
    pub family: String,
    /// Elements of all tensors in use.
    pub parameters: u64,
    /// Stored size of all tensors in use.
    pub weight_bytes: u64,
    /// The bound of the process's resident set.
    pub budget_bytes: u64,
    /// The smallest budget that would do for the same demand; never more than the one that does.
    pub minimum_bytes: u64,
    /// Weights kept in memory.
    pub pinned_bytes: u64,
    /// Those of them that stay in memory of the device.
    pub device_pinned_bytes: u64,
    /// What is planned in memory of a device, weights included; 0 where it has none of its own.
    pub device_bytes: u64,
    /// The bound of that; `None`: the device computes in memory of the host.
    pub device_budget_bytes: Option<u64>,
    /// Weights read in every sweep, head included; of experts, as many as one row uses.
    pub streamed_bytes_per_sweep: u64,
    /// Weights that sweeps with this many rows are expected to read; it differs only where there are experts.
    pub expected_sweep_bytes: BTreeMap<usize, u64>,
    /// The ring, `ring_slots` buffers of `slot_bytes`.
    pub ring_bytes: u64,
    /// Buffers of the ring.
    pub ring_slots: usize,
    /// Size of a buffer.
    pub slot_bytes: u64,
    /// Upper bound of a tile.
    pub tile_bytes: u64,
    /// How the KV cache stores keys and values.
    pub kv_type: &'static str,
    /// KV cache of one token.
    pub kv_bytes_per_token: u64,
    /// Pages of the KV cache.
    pub kv_pages: usize,
    /// The whole KV cache.
    pub kv_bytes: u64,
    /// Recurrent states of one sequence.
    pub state_bytes_per_sequence: u64,
    /// Sequences whose recurrent states are kept; 0 where they have none.
    pub state_slots: usize,
    /// All recurrent states.
    pub state_bytes: u64,
    /// Rows of the embedding that stay in memory once they are read.
    pub kept_rows: usize,
    /// All of those.
    pub kept_bytes: u64,
    /// Activations, logits included.
    pub activation_bytes: u64,
    /// Code, tokenizer, headers, small tensors, and a reserve.
    pub overhead_bytes: u64,
    /// Tokens of the longest sequence that was planned for.
    pub context: usize,
    /// Rows of a sweep at most.
    pub rows_max: usize,
    /// Rows of a sweep that can have logits.
    pub logit_rows_max: usize,
    /// Rows of guessed tokens that a sweep can carry among those, each with a place in the KV cache of its own.
    pub draft_rows: usize,
    /// The small model that guesses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_model: Option<DraftModel>,
    /// Rows at which computing takes as long as reading.
    pub rows_at_knee: usize,
    /// Everything is pinned: weights are read once.
    pub resident: bool,
    /// Packed weights are kept in memory as they were before they were packed.
    pub expanded: bool,
    /// What a sweep costs.
    #[serde(flatten)]
    pub cost: Cost,
    /// The tiles that every sweep uses, in order, the head's last; those of experts are [`Plan::expert_steps`].
    #[serde(skip)]
    pub steps: Vec<Step>,
    /// Slots for experts of each block: as many can be in memory at once, those used last; all where everything is.
    #[serde(skip)]
    pub expert_slots: Vec<usize>,
    /// How many uses of experts are expected to be found in those; `None`: all, or there are no experts.
    pub expert_hits: Option<Hits>,
    /// The experts of each block to begin with, as earlier runs learned them, those used most first.
    #[serde(skip)]
    pub warm_experts: Vec<Vec<u32>>,
}

impl Plan {
    /// The steps of the blocks, and those of the head.
    pub fn sweep(&self) -> (&[Step], &[Step]) {
        let blocks = self.steps.iter().position(|s| s.role == Role::Head).unwrap_or(self.steps.len());
        self.steps.split_at(blocks)
    }

    /// The tiles of one expert of a block, in order.
    pub fn expert_steps(&self, spec: &ModelSpec, block: usize, expert: u32) -> Vec<Step> {
        let mut steps = steps::expert_tiles(spec, block, expert, self.tile_bytes);
        if self.resident {
            steps.iter_mut().for_each(|step| step.home = Home::Host);
        }
        steps
    }

    /// The largest tile at each place among the tiles of a block's experts, in bytes.
    pub fn expert_tile_sizes(&self, spec: &ModelSpec, block: usize) -> Vec<u64> {
        steps::expert_tile_sizes(spec, block, self.tile_bytes)
    }

    /// The largest tile, in bytes.
    pub fn largest_tile(&self, spec: &ModelSpec) -> u64 {
        let first =
            |(i, block): (usize, &Block)| block.experts.is_some().then(|| self.expert_steps(spec, i, 0));
        let experts = spec.blocks.iter().enumerate().filter_map(first).flatten();
        experts.chain(self.steps.iter().copied()).map(|s| s.extent.bytes).max().unwrap_or(0)
    }

    /// What every sweep reads, whatever experts it uses.
    pub fn certain_bytes(&self) -> u64 {
        self.steps.iter().filter(|s| s.is_streamed()).map(|s| s.extent.bytes).sum()
    }

    /// The part of the weights that stays in memory, from 0 to 1.
    pub fn pinned_fraction(&self, spec: &ModelSpec) -> f64 {
        let streamed = self.certain_bytes() + self.cost.expert_bytes();
        1.0 - streamed as f64 / spec.matrix_bytes().max(1) as f64
    }
}

/// Sizes of weights, which follow from the model alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) weight_bytes: u64,
    /// The fewest bytes that every matrix can be cut to.
    pub(crate) row_bytes_max: u64,
}

impl Sizes {
    pub(crate) fn of(spec: &ModelSpec) -> Self {
        const F32: u64 = 4;
        let tables =
            spec.tables().skip(usize::from(spec.tied())).map(|table| table.extent.bytes).sum::<u64>();
        let vectors = spec.vectors().map(|v| v.len as u64).sum::<u64>() * F32;
        Self {
            weight_bytes: spec.matrix_bytes() + tables + vectors,
            row_bytes_max: spec.matrices().map(|m| m.unit_bytes()).max().unwrap_or(0),
        }
    }
}
