//! What a sweep costs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Machine;

/// Predicted cost of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Of a sweep with one row.
    pub sweep_seconds: f64,
    /// Tokens per second when this many rows decode together.
    pub tokens_per_second: BTreeMap<usize, f64>,
    /// Read rate the prediction assumes.
    pub read_bytes_per_second: f64,
    /// Compute rate the prediction assumes.
    pub flops_per_second: f64,
    /// Time for what a row adds.
    #[serde(skip)]
    row_seconds: f64,
    /// Time that rows do not change: reading, or streaming through memory.
    #[serde(skip)]
    fixed_seconds: f64,
}

impl Cost {
    /// Of a sweep over `streamed_bytes` from disk and `pinned_bytes` in memory, `weights` multiply-adds a row.
    pub(crate) fn new(streamed_bytes: u64, pinned_bytes: u64, weights: u64, machine: &Machine) -> Self {
        let read = streamed_bytes as f64 / machine.read_bytes_per_second;
        let memory = (pinned_bytes + streamed_bytes) as f64 / machine.memory_bytes_per_second;
        let mut cost = Self {
            sweep_seconds: 0.0,
            tokens_per_second: BTreeMap::new(),
            read_bytes_per_second: machine.read_bytes_per_second,
            flops_per_second: machine.flops_per_second,
            row_seconds: 2.0 * weights as f64 / machine.flops_per_second,
            fixed_seconds: read.max(memory),
        };
        cost.sweep_seconds = cost.seconds(1);
        cost.tokens_per_second = [1, 8, 50].map(|r| (r, r as f64 / cost.seconds(r))).into();
        cost
    }

    /// Of a sweep with this many rows: computing hides behind reading or the other way round; the longer counts.
    pub fn seconds(&self, rows: usize) -> f64 {
        self.fixed_seconds.max(self.row_seconds * rows as f64)
    }

    /// The rows at which computing takes as long as what it hides behind.
    pub(crate) fn knee(&self) -> usize {
        if self.row_seconds > 0.0 { ((self.fixed_seconds / self.row_seconds) as usize).max(1) } else { 1 }
    }
}
