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
}

/// Bytes and operations of a sweep.
pub(crate) struct Work {
    pub(crate) streamed_bytes: u64,
    pub(crate) pinned_bytes: u64,
    pub(crate) weights: u64,
}

impl Work {
    /// Reading hides behind computing or the other way round; the longer of the two counts.
    pub(crate) fn seconds(&self, rows: usize, machine: &Machine) -> f64 {
        let compute = 2.0 * self.weights as f64 * rows as f64 / machine.flops_per_second;
        let memory = (self.pinned_bytes + self.streamed_bytes) as f64 / machine.memory_bytes_per_second;
        self.read_seconds(machine).max(compute).max(memory)
    }

    fn read_seconds(&self, machine: &Machine) -> f64 {
        self.streamed_bytes as f64 / machine.read_bytes_per_second
    }

    /// The rows at which computing takes as long as what it hides behind.
    pub(crate) fn knee(&self, machine: &Machine) -> usize {
        let per_row = 2.0 * self.weights as f64 / machine.flops_per_second;
        if per_row > 0.0 { ((self.seconds(0, machine) / per_row) as usize).max(1) } else { 1 }
    }

    pub(crate) fn cost(&self, machine: &Machine) -> Cost {
        Cost {
            sweep_seconds: self.seconds(1, machine),
            tokens_per_second: [1, 8, 50].map(|r| (r, r as f64 / self.seconds(r, machine))).into(),
            read_bytes_per_second: machine.read_bytes_per_second,
            flops_per_second: machine.flops_per_second,
        }
    }
}
