//! Signs of life: what a run tells while it goes on.

use std::time::Duration;

use aerostat_plan::Plan;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the weights that stay in memory.
    Loading,
    /// A sweep without a decoding row: reading prompts.
    Prefill,
    /// A sweep with decoding rows.
    Decode,
    /// A sweep of teacher-forced rows.
    Score,
}

/// What was counted since the engine was opened, of all that shared it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tokens of prompts of sequences that have begun.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub answer_tokens: u64,
    /// Rows that were not computed because they begin like others.
    pub shared_rows: u64,
    /// How often a sequence was put aside to make room for others, its pages on disk or to be computed again.
    pub preempted: u64,
}

/// Where a run stands; given after every tile.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Sweeps begun.
    pub sweep: u64,
    /// Blocks done in this sweep.
    pub block: usize,
    /// Blocks of a sweep; the head counts as one.
    pub blocks: usize,
    /// Tiles done in this sweep or while loading.
    pub tile: usize,
    /// Tiles of this sweep or of the load.
    pub tiles: usize,
    /// Rows of this sweep.
    pub rows: usize,
    /// Weight bytes read so far.
    pub read_bytes: u64,
    /// Tokens generated or scored so far.
    pub tokens: u64,
    /// Tokens that are left to do at most.
    pub tokens_left: u64,
    /// What was counted up to the last sweep.
    pub totals: Totals,
    /// Since the engine was opened.
    pub elapsed: Duration,
}

/// Receives progress and text. Its methods run between tiles: they must be quick.
pub trait Observer {
    /// Called after every tile; true asks the run to stop at once.
    fn progress(&mut self, _progress: &Progress) -> bool {
        false
    }

    /// Asked between sweeps; true ends the run there, with nothing half done.
    fn enough(&mut self) -> bool {
        false
    }

    /// The plan, before anything large is allocated.
    fn planned(&mut self, _plan: &Plan) {}

    /// New text of request `index`, whole characters only.
    fn text(&mut self, _index: usize, _text: &str) {}

    /// Something worth telling the user, as one sentence.
    fn note(&mut self, _text: &str) {}
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
