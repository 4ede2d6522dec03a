//! What is counted while sweeping.

use std::time::{Duration, Instant};

use aerostat_arch::ModelSpec;
use aerostat_backend::{Backend, DeviceCounters};
use aerostat_plan::{Guesses, Plan};

use crate::machine;
use crate::observe::{Phase, Progress, Totals};
use crate::stats::{GpuStats, Stats};
use crate::store::WeightStore;

/// Counters and times since an engine was opened.
#[derive(Debug)]
pub(crate) struct Clock {
    opened: Instant,
    pub(crate) sweeps: u64,
    rows: u64,
    pub(crate) load: Duration,
    pub(crate) sweeping: Duration,
    compute: Duration,
    /// What the plan says the sweeps so far take, in seconds.
    predicted: f64,
    pub(crate) tokens: u64,
    pub(crate) tokens_left: u64,
    pub(crate) shared_rows: u64,
    /// Tokens of prompts that have begun, and how often a sequence had to wait on disk.
    pub(crate) prompt_tokens: u64,
    pub(crate) preempted: u64,
    /// Rows of guesses, and how many of them were right.
    pub(crate) drafted: u64,
    pub(crate) accepted: u64,
    /// Tokens of answers, and the sweeps that brought some, counted for each answer.
    pub(crate) answered: (u64, u64),
    /// Written, and read back.
    pub(crate) spilled_bytes: (u64, u64),
    /// What the device was asked for before the first sweep.
    loading: Option<DeviceCounters>,
}

/// Where a tile stands in a sweep, or while weights are loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) phase: Phase,
    /// Tiles that are done, of how many, and the block of the last one.
    pub(crate) tile: usize,
    pub(crate) tiles: usize,
    pub(crate) block: usize,
    /// Rows of the sweep.
    pub(crate) rows: usize,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self {
            opened: Instant::now(),
            sweeps: 0,
            rows: 0,
            load: Duration::ZERO,
            sweeping: Duration::ZERO,
            compute: Duration::ZERO,
            predicted: 0.0,
            tokens: 0,
            tokens_left: 0,
            shared_rows: 0,
            prompt_tokens: 0,
            preempted: 0,
            drafted: 0,
            accepted: 0,
            answered: (0, 0),
            spilled_bytes: (0, 0),
            loading: None,
        }
    }

    /// Weights that stay in memory are read.
    pub(crate) fn loaded(&mut self, backend: &dyn Backend) {
        self.load = self.opened.elapsed();
        self.loading = backend.counters();
    }

    /// A sweep of so many rows begins, some of them with logits, some of those guesses.
    pub(crate) fn begin_sweep(&mut self, plan: &Plan, rows: usize, logit_rows: usize, guesses: Guesses) {
        self.sweeps += 1;
        self.rows += rows as u64;
        self.predicted += plan.cost.seconds_with(rows - guesses.count, logit_rows - guesses.count, guesses);
    }

    /// Counts the time of an op.
    pub(crate) fn computing<T>(&mut self, op: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = op();
        self.compute += begun.elapsed();
        done
    }

    /// Where a run stands.
    pub(crate) fn progress(&self, at: At, spec: &ModelSpec, read_bytes: u64) -> Progress {
        Progress {
            phase: at.phase,
            sweep: self.sweeps,
            block: at.block,
            blocks: spec.blocks.len() + 1,
            tile: at.tile,
            tiles: at.tiles,
            rows: at.rows,
            read_bytes,
            tokens: self.tokens,
            tokens_left: self.tokens_left,
            totals: self.totals(),
            elapsed: self.opened.elapsed(),
        }
    }

    /// What was counted so far.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            prompt_tokens: self.prompt_tokens,
            answer_tokens: self.answered.0,
            shared_rows: self.shared_rows,
            preempted: self.preempted,
        }
    }

    /// The numbers that are reported with every result.
    pub(crate) fn stats(&self, plan: &Plan, store: &WeightStore, backend: &dyn Backend) -> Stats {
        let (ring, io) = store.ring_stats();
        let capabilities = backend.capabilities();
        let per_second = |n: f64, s: f64| if s > 0.0 { n / s } else { 0.0 };
        let sweeping = self.sweeping.as_secs_f64();
        Stats {
            sweeps: self.sweeps,
            rows: self.rows,
            read_bytes: ring.read_bytes,
            read_seconds: ring.read_seconds(),
            wall_seconds: self.opened.elapsed().as_secs_f64(),
            read_bytes_per_second: per_second(ring.read_bytes as f64, ring.read_seconds()),
            compute_seconds: self.compute.as_secs_f64(),
            stall_seconds: ring.stall_seconds(),
            pinned_bytes: plan.pinned_bytes,
            streamed_bytes_per_sweep: plan.streamed_bytes_per_sweep,
            ring_bytes: plan.ring_bytes,
            kv_bytes: plan.kv_bytes,
            memory_budget_bytes: plan.budget_bytes,
            memory_peak_bytes: machine::peak_resident_bytes(),
            tokens_per_second: per_second(self.tokens as f64, sweeping),
            tokens: self.tokens,
            shared_rows: self.shared_rows,
            drafted: self.drafted,
            accepted: self.accepted,
            tokens_per_sweep: per_second(self.answered.0 as f64, self.answered.1 as f64),
            spilled_bytes: self.spilled_bytes.0,
            restored_bytes: self.spilled_bytes.1,
            load_seconds: self.load.as_secs_f64(),
            sweep_seconds: sweeping,
            experts: store.counted.used,
            experts_read: store.counted.read,
            expert_bytes: store.counted.read_bytes,
            predicted_seconds: self.predicted,
            predicted_sweep_seconds: plan.cost.sweep_seconds,
            gpu: self.loading.zip(backend.counters()).map(|(before, now)| GpuStats::since(before, now)),
            device: format!("{} {}", capabilities.device, capabilities.detail).trim().to_owned(),
            io: io.to_owned(),
        }
    }
}
