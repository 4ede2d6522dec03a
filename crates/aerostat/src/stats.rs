//! The numbers reported with every result.

use serde::Serialize;

/// What a run did. Seconds are wall time.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Passes over the weights.
    pub sweeps: u64,
    /// Rows they carried together.
    pub rows: u64,
    /// Bytes asked of the disk for weights, those that stay in memory included.
    pub read_bytes: u64,
    /// Time with at least one read in flight.
    pub read_seconds: f64,
    /// From opening the engine to now.
    pub wall_seconds: f64,
    /// `read_bytes / read_seconds`.
    pub read_bytes_per_second: f64,
    /// Time spent in ops.
    pub compute_seconds: f64,
    /// Time spent waiting for reads.
    pub stall_seconds: f64,
    /// Weights kept in memory.
    pub pinned_bytes: u64,
    /// Weights read in every full sweep.
    pub streamed_bytes_per_sweep: u64,
    /// The ring.
    pub ring_bytes: u64,
    /// The KV cache.
    pub kv_bytes: u64,
    /// The bound of the process's resident set.
    pub memory_budget_bytes: u64,
    /// The process's peak resident set as the system reports it.
    pub memory_peak_bytes: u64,
    /// Generated (or scored) tokens per second of sweeping.
    pub tokens_per_second: f64,
    /// Tokens generated or scored.
    pub tokens: u64,
    /// Rows that were not computed because they begin like others.
    pub shared_rows: u64,
    /// Rows of guessed tokens.
    pub drafted: u64,
    /// How many of them were right.
    pub accepted: u64,
    /// Tokens of answers for each sweep that brought an answer some: 1 where nothing is guessed; 0 without answers.
    pub tokens_per_sweep: f64,
    /// Bytes of the KV cache that were written to disk to make room.
    pub spilled_bytes: u64,
    /// Bytes of it that were read back.
    pub restored_bytes: u64,
    /// Time before the first sweep: reading what stays in memory.
    pub load_seconds: f64,
    /// Time from the first sweep's beginning to the last one's end.
    pub sweep_seconds: f64,
    /// Experts that rows used, counted once for each block and sweep.
    pub experts: u64,
    /// How many of them were read; the others stay in memory.
    pub experts_read: u64,
    /// The bytes of those, in `read_bytes` too.
    pub expert_bytes: u64,
    /// What the plan predicted for the sweeps that were made, in place of `sweep_seconds`.
    pub predicted_seconds: f64,
    /// What a one-row sweep was predicted to take.
    pub predicted_sweep_seconds: f64,
    /// The device.
    pub device: String,
    /// How weights were read.
    pub io: String,
}
