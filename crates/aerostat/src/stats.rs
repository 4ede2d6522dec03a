//! The numbers reported with every result.

use aerostat_backend::DeviceCounters;
use serde::Serialize;

/// What a GPU was asked for, from the moment on that all that stays there was there: of all sweeps together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GpuStats {
    /// Batches of commands that were handed to it.
    pub submissions: u64,
    /// Kernels that were started.
    pub dispatches: u64,
    /// Times that the host waited for a batch to be finished.
    pub waits: u64,
    /// Times that results were read back: once for the logits of a sweep, and once for each router.
    pub read_backs: u64,
    /// Times that memory which host and device use in turns went to the device. Each is waited for once at most.
    pub turns: u64,
    /// Bytes of weights that were sent to it.
    pub uploaded_bytes: u64,
    /// Bytes of all else that was sent: where rows stand, their embeddings, angles.
    pub written_bytes: u64,
    /// The most of its memory that was taken at a time since it was opened.
    pub memory_peak_bytes: u64,
    /// What its allocator has of it by now; `None`: it does not say.
    pub reserved_bytes: Option<u64>,
}

impl GpuStats {
    /// What came after `before`.
    pub(crate) fn since(before: DeviceCounters, now: DeviceCounters) -> Self {
        Self {
            submissions: now.submissions - before.submissions,
            dispatches: now.dispatches - before.dispatches,
            waits: now.waits - before.waits,
            read_backs: now.read_backs - before.read_backs,
            turns: now.turns - before.turns,
            uploaded_bytes: now.uploaded_bytes - before.uploaded_bytes,
            written_bytes: now.written_bytes - before.written_bytes,
            memory_peak_bytes: now.memory_peak_bytes,
            reserved_bytes: now.reserved_bytes,
        }
    }
}

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
    /// What a GPU was asked for; `None` on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuStats>,
    /// The device.
    pub device: String,
    /// How weights were read.
    pub io: String,
}
