//! The device: kernels, cut into tasks, on the pool.

use std::sync::{Mutex, OnceLock, PoisonError};

use aerostat_backend::delta::StateRun;
use aerostat_backend::numerics::Map;
use aerostat_backend::packed::PackedTile;
use aerostat_backend::{
    Attention, Capabilities, Checks, DeltaRule, Error, ErrorKind, Extras, Footprint, HeadCopy, HostDevice,
    HostMemory, Index, Kernels, KvType, KvView, Placement, Rope, ScalingView, ScratchNeed, StateScan, Tile,
    View, packed, visible,
};
use aerostat_checkpoint::DType;

use crate::attention::{Attend, HEADS_MAX, QUERIES_MAX};
use crate::delta::{CONV_COLS, DeltaHead, ShortConv};
use crate::elementwise::{MapRows, NormRows, RopeRows};
use crate::format::{self, Format};
use crate::heads::CopyHeads;
use crate::isa::{Isa, Token};
use crate::k_major::{self, KMajor, SumLanes};
use crate::layer_norm::LayerNormRows;
use crate::matmul::{Matmul, Tasks};
use crate::memory::{advise, grow};
use crate::packed_matmul::PackedMatmul;
use crate::row_norms::norms;
use crate::rows::Rows;
use crate::scaled::{self, Expand, Expanded, Values};
use crate::scan::ScanHead;
use crate::scratch::{self, Scratch};
use crate::sparse::{IndexRow, SparseRow, chosen};
use crate::vector::LANES;
use crate::workers::Workers;

/// Calls a method for the format of a tile.
macro_rules! by_format {
    ($self:ident.$method:ident($w:ident, $($arg:ident),*)) => {
        by_format!($self.$method[$w, $($arg),*]:
            F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4)
    };
    ($self:ident.$method:ident[$w:ident, $($arg:ident),*]: $($format:ident)*) => {
        by_format!(@arms $self $method $w ($w, $($arg),*) $($format)*)
    };
    (@arms $self:ident $method:ident $w:ident $args:tt $($format:ident)*) => {
        match $w.dtype {
            $(DType::$format => {
                $self.$method::<format::$format> $args;
                Ok(())
            })*
            other => Err(unsupported(other)),
        }
    };
}

/// Elements of an elementwise task: enough to be worth a thread's attention.
const TASK_ELEMENTS: usize = 16 * 1024;

/// Rows of a weight tile whose norms a task computes.
const NORM_ROWS: usize = 16;

/// How to open a [`Cpu`].
#[derive(Clone, Copy, Debug)]
pub struct CpuConfig {
    /// Threads that compute, the caller's included; at least 1.
    pub threads: usize,
    /// The instruction set; the widest there is when `None`.
    pub isa: Option<Isa>,
}

/// The CPU device.
pub struct Cpu {
    memory: HostMemory,
    kernels: CpuKernels,
}

/// The kernels of a [`Cpu`].
pub struct CpuKernels {
    token: Token,
    pool: Workers,
    /// One for each thread; never contended, since a thread runs one task at a time.
    scratch: Vec<Mutex<Scratch>>,
}

impl Cpu {
    /// Starts the threads and allocates their scratch.
    ///
    /// # Errors
    /// `Unsupported` when the CPU lacks the instruction set or the number of threads makes no sense; `Device` when a
    /// thread cannot be started; `OutOfMemory`.
    pub fn new(config: CpuConfig) -> Result<Self, Error> {
        let isa = config.isa.unwrap_or_else(Isa::detect);
        let token = Token::require(isa)?;
        let pool = Workers::new(config.threads)?;
        let scratch = (0..config.threads).map(|_| Scratch::new().map(Mutex::new));
        let scratch = scratch.collect::<Result<_, Error>>()?;
        Ok(Self { memory: HostMemory::default(), kernels: CpuKernels { token, pool, scratch } })
    }
}

impl HostDevice for Cpu {
    type Kernels = CpuKernels;

    fn kernels(&self) -> &CpuKernels {
        &self.kernels
    }

    fn memory(&self) -> &HostMemory {
        &self.memory
    }

    fn parts(&mut self, _: Checks) -> (&mut HostMemory, &mut CpuKernels) {
        (&mut self.memory, &mut self.kernels)
    }
}

impl Kernels for CpuKernels {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            device: "cpu",
            detail: self.token.isa().to_string(),
            weights: DType::COMPUTABLE,
            kv: KvType::ALL,
            threads: self.pool.threads(),
        }
    }

    fn footprint(&self, need: &ScratchNeed) -> Footprint {
        let threads = self.pool.threads() as u64;
        let of_a_thread = scratch::footprint(need);
        Footprint {
            fixed_bytes: threads * of_a_thread.fixed_bytes,
            position_bytes: threads * of_a_thread.position_bytes,
            first_position_bytes: threads * of_a_thread.first_position_bytes,
            ..of_a_thread
        }
    }

    fn reserve(&mut self, need: &ScratchNeed) -> Result<(), Error> {
        let len = scratch::expanded_len(need);
        self.scratch.iter().try_for_each(|scratch| grow(&mut lock(scratch).expanded, len))
    }

    fn scratch_bytes(&self) -> u64 {
        self.scratch.iter().map(|scratch| lock(scratch).bytes()).sum()
    }

    fn reserve_positions(&mut self, positions: usize) -> Result<(), Error> {
        let len = scratch::scores_len(positions)?;
        self.scratch.iter().try_for_each(|scratch| grow(&mut lock(scratch).scores, len))
    }

    fn advise(&self, start: *const u8, bytes: usize) {
        advise(start, bytes);
    }

    fn matmul(&mut self, w: Tile<'_>, x: View<'_>, y: View<'_>) -> Result<(), Error> {
        by_format!(self.matmul_format(w, x, y))
    }

    fn matmul_scaled(
        &mut self,
        w: Tile<'_>,
        scaling: ScalingView<'_>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error> {
        self.check_expanded(scratch::scaled_len(x.cols()))?;
        let values = Values::new(scaling.quantised.code, scaling.zeros.is_none());
        let from = Expand { by_inputs: false, ..Expand::new(w, &scaling, x.cols(), &values) };
        let (token, scratch, task_rows) = (self.token, &self.scratch, scaled::task_rows(x.cols()));
        let (x, y) = (Rows::from(x), Rows::from(y));
        self.pool.run(w.rows.div_ceil(task_rows), &|task, thread| {
            let start = task * task_rows;
            let end = w.rows.min(start + task_rows);
            let mut guard = lock(&scratch[thread]);
            let Scratch { matmul, expanded, .. } = &mut *guard;
            let out = expanded.as_mut_ptr().cast();
            let rows = Expanded { from, rows: start..end, cols: 0..x.cols, out };
            // SAFETY: the operands were checked: the tile has its codes and there are scales for its rows. Both pieces of
            // scratch have their lengths and are locked.
            unsafe {
                let tile = rows.tile(token);
                let scratch = matmul.as_mut_ptr().cast();
                let (y, end) = (y.columns_from(start), end - start);
                Matmul { w: tile, x, y, start: 0, end, scratch, ahead: None }.run::<format::F32>(token);
            }
        });
        Ok(())
    }

    fn matmul_scaled_k_major(
        &mut self,
        w: Tile<'_>,
        rows: usize,
        scaling: ScalingView<'_>,
        x: View<'_>,
        lanes: View<'_>,
        k0: usize,
    ) -> Result<(), Error> {
        let outputs = lanes.cols() / LANES;
        self.check_expanded(scratch::BY_INPUTS_LEN)?;
        let values = Values::new(scaling.quantised.code, scaling.zeros.is_none());
        let from = Expand { by_inputs: true, ..Expand::new(w, &scaling, outputs, &values) };
        let (token, scratch, x, lanes) = (self.token, &self.scratch, Rows::from(x), Rows::from(lanes));
        self.pool.run(outputs.div_ceil(k_major::TASK_COLS), &|task, thread| {
            let start = task * k_major::TASK_COLS;
            let end = outputs.min(start + k_major::TASK_COLS);
            let out = lock(&scratch[thread]).expanded.as_mut_ptr().cast();
            // An empty tile at the start still makes the lanes zeros.
            for first in (0..rows.max(1)).step_by(scaled::TASK_INPUTS) {
                let part = first..rows.min(first + scaled::TASK_INPUTS);
                let part = Expanded { from, rows: part, cols: start..end, out };
                // SAFETY: the operands were checked: the tile has its codes, there are scales for its inputs, and it fits `x`
                // and `lanes`. The scratch has its length, and a thread runs one task at a time.
                unsafe {
                    let tile = part.tile(token);
                    let lanes = lanes.columns_from(start);
                    token.enter(KMajor::<format::F32>::some(tile, x, lanes, outputs, k0 + first));
                }
            }
        });
        Ok(())
    }

    fn matmul_k_major(&mut self, w: Tile<'_>, x: View<'_>, lanes: View<'_>, k0: usize) -> Result<(), Error> {
        by_format!(self.k_major_format(w, x, lanes, k0))
    }

    fn sum_lanes(&mut self, lanes: View<'_>, y: View<'_>) {
        let (token, lanes, y) = (self.token, Rows::from(lanes), Rows::from(y));
        self.by_rows(y.rows, lanes.cols, &|start, end| {
            // SAFETY: the operands were checked: `lanes` has sixteen columns for each of `y`.
            unsafe { token.enter(SumLanes { lanes, y, start, end }) }
        });
    }

    fn matmul_packed(
        &mut self,
        w: Tile<'_>,
        checked: bool,
        scaling: Option<ScalingView<'_>>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error> {
        let parts = packed::parts(&w).collect::<Result<Vec<_>, _>>()?;
        let mut row = 0;
        for run in parts.chunk_by(|a, b| a.stored().is_none() && b.stored().is_none()) {
            let rows = run.iter().map(|part| part.rows).sum();
            let (y, scaling) = (y.col_range(row, rows), scaling.map(|scaling| scaling.from_row(row)));
            match run.first().and_then(|part| part.stored()) {
                None => self.matmul_exponents(run, checked, scaling, x, y)?,
                Some(rows) => {
                    if !checked {
                        self.check(run)?;
                    }
                    match scaling {
                        Some(scaling) => self.matmul_scaled(rows, scaling, x, y)?,
                        None => self.matmul(rows, x, y)?,
                    }
                }
            }
            row += rows;
        }
        Ok(())
    }

    fn map(&mut self, map: Map, a: View<'_>, b: View<'_>, out: View<'_>) {
        let (token, a, b, out) = (self.token, Rows::from(a), Rows::from(b), Rows::from(out));
        self.by_rows(out.rows, out.cols, &|start, end| {
            // SAFETY: the operands were checked: `a` and `b` have the shape of `out`.
            unsafe { token.enter(MapRows { map, a, b, out, start, end }) }
        });
    }

    fn row_norms(&mut self, w: Tile<'_>, out: View<'_>) -> Result<(), Error> {
        let (failed, out) = (OnceLock::new(), Rows::from(out));
        self.pool.run(w.rows.div_ceil(NORM_ROWS), &|task, _| {
            let rows = task * NORM_ROWS..w.rows.min((task + 1) * NORM_ROWS);
            // SAFETY: `out` has an element for each row of the tile; tasks have rows of their own.
            let done = norms(w, rows, |row, norm| unsafe { *out.at(0, row) = norm });
            if let Err(error) = done {
                let _ = failed.set(error);
            }
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    fn mul_rows(&mut self, x: View<'_>, factors: View<'_>) {
        let (token, x, factors) = (self.token, Rows::from(x), Rows::from(factors));
        self.by_rows(x.rows, x.cols, &|start, end| {
            for row in start..end {
                // SAFETY: the operands were checked: there is a factor for each row.
                unsafe {
                    let map = Map::Scale(*factors.at(row, 0));
                    token.enter(MapRows { map, a: x, b: x, out: x, start: row, end: row + 1 });
                }
            }
        });
    }

    fn copy_heads(&mut self, x: View<'_>, copy: &HeadCopy, out: View<'_>) {
        let (token, x, copy, out) = (self.token, Rows::from(x), *copy, Rows::from(out));
        self.by_rows(out.rows, out.cols, &|start, end| {
            // SAFETY: the operands were checked: both have as many whole heads, with these columns.
            unsafe { token.enter(CopyHeads { x, copy, out, start, end }) }
        });
    }

    fn rms_norm(&mut self, x: View<'_>, weight: View<'_>, eps: f32, out: View<'_>) {
        let (token, x, weight, out) = (self.token, Rows::from(x), Rows::from(weight), Rows::from(out));
        self.by_rows(x.rows, x.cols, &|start, end| {
            // SAFETY: the operands were checked: `out` has the shape of `x`, whole groups of `weight`.
            unsafe { token.enter(NormRows { x, weight, eps, out, start, end }) }
        });
    }

    fn layer_norm(&mut self, x: View<'_>, size: usize, eps: f32, out: View<'_>) {
        let (token, x, out) = (self.token, Rows::from(x), Rows::from(out));
        self.by_rows(x.rows, x.cols, &|start, end| {
            // SAFETY: the operands were checked: `out` has the shape of `x`, whole groups of `size`.
            unsafe { token.enter(LayerNormRows { x, size, eps, out, start, end }) }
        });
    }

    fn rope(&mut self, x: View<'_>, rope: Rope, angles: View<'_>) {
        let (token, x, angles) = (self.token, Rows::from(x), Rows::from(angles));
        self.by_rows(x.rows, x.cols, &|start, end| {
            // SAFETY: the operands were checked: whole heads, and angles for each row.
            unsafe { token.enter(RopeRows { x, rope, angles, start, end }) }
        });
    }

    fn attention(
        &mut self,
        q: View<'_>,
        out: View<'_>,
        shape: &Attention,
        extras: Extras<View<'_>>,
        kv: KvView<'_>,
        places: Placement<'_>,
    ) {
        let (token, scratch, q, out) = (self.token, &self.scratch, Rows::from(q), Rows::from(out));
        let extras = Extras { sinks: extras.sinks.map(Rows::from), biases: extras.biases.map(Rows::from) };
        let group = shape.heads / shape.kv_heads;
        let parts = group.div_ceil(HEADS_MAX);
        let longest = places.rows.iter().map(|place| visible(*place, shape).1 + 1).max().unwrap_or(0);
        let pitch = longest.next_multiple_of(LANES).max(LANES);
        // As many rows in a task as its scores have room for, but a few tasks for each thread.
        let lines = (lock(&scratch[0]).scores.len() * LANES / pitch).min(QUERIES_MAX);
        let tasks = q.rows * shape.kv_heads * parts;
        let task_rows = (lines / group.min(HEADS_MAX)).min(tasks / (4 * self.pool.threads())).max(1);
        let row_tasks = q.rows.div_ceil(task_rows);
        self.pool.run(row_tasks * shape.kv_heads * parts, &|task, thread| {
            // The rows of one KV head follow each other: its keys and values stay in the cache.
            let (row, within) = (task % row_tasks * task_rows, task / row_tasks);
            let part = within % parts * HEADS_MAX;
            let (head, heads) = (within / parts * group + part, HEADS_MAX.min(group - part));
            let rows = task_rows.min(q.rows - row);
            let mut guard = lock(&scratch[thread]);
            let scores = guard.scores.as_mut_ptr().cast();
            // SAFETY: the operands and places were checked. There is room for a query of each head at all positions of
            // the KV cache, and for those of `task_rows` rows. A thread runs one task at a time.
            unsafe {
                Attend { q, out, shape, extras, kv, places, row, rows, head, heads, scores, pitch }.run(token)
            }
        });
    }

    fn select_positions(
        &mut self,
        q: View<'_>,
        weights: View<'_>,
        out: View<'_>,
        index: &Index,
        kv: KvView<'_>,
        places: Placement<'_>,
    ) {
        let (token, scratch) = (self.token, &self.scratch);
        let (q, weights, out) = (Rows::from(q), Rows::from(weights), Rows::from(out));
        self.pool.run(q.rows, &|row, thread| {
            let mut guard = lock(&scratch[thread]);
            let half = guard.scores.len() * LANES / 2;
            let scores = guard.scores.as_mut_ptr().cast();
            // SAFETY: the operands and places were checked. The scratch holds at least two scores for each position of
            // the KV cache. A thread runs one task at a time.
            unsafe { IndexRow { q, weights, out, index, kv, places, row, scores, half }.run(token) }
        });
    }

    fn sparse_attention(
        &mut self,
        q: View<'_>,
        out: View<'_>,
        shape: &Attention,
        kv: KvView<'_>,
        places: Placement<'_>,
        selected: View<'_>,
    ) {
        let (token, scratch, q, out) = (self.token, &self.scratch, Rows::from(q), Rows::from(out));
        let group = shape.heads / shape.kv_heads;
        let parts = group.div_ceil(HEADS_MAX);
        let longest = places.rows.iter().map(|place| place.position as usize + 1).max().unwrap_or(0);
        let (longest, selected) = (longest.min(selected.cols()), Rows::from(selected));
        let pitch = longest.next_multiple_of(LANES).max(LANES);
        self.pool.run(q.rows * shape.kv_heads * parts, &|task, thread| {
            let (row, within) = (task / (shape.kv_heads * parts), task % (shape.kv_heads * parts));
            let part = within % parts * HEADS_MAX;
            let (head, heads) = (within / parts * group + part, HEADS_MAX.min(group - part));
            let mut guard = lock(&scratch[thread]);
            let scores = guard.scores.as_mut_ptr().cast();
            // SAFETY: the operands, places and positions were checked. The scratch holds a line of scores for each of
            // `HEADS_MAX` heads at all positions of the KV cache. A thread runs one task at a time.
            unsafe {
                let seen = chosen(selected, row);
                SparseRow { q, out, shape, kv, places, row, head, heads, seen, scores, pitch }.run(token)
            }
        });
    }

    fn short_conv(
        &mut self,
        x: View<'_>,
        (weights, bias): (View<'_>, Option<View<'_>>),
        silu: bool,
        state: View<'_>,
        runs: &[StateRun],
    ) {
        let (token, x, weights, state) = (self.token, Rows::from(x), Rows::from(weights), Rows::from(state));
        let bias = bias.map(Rows::from);
        let parts = x.cols.div_ceil(CONV_COLS);
        self.pool.run(runs.len() * parts, &|task, _| {
            let (run, start) = (runs[task / parts], task % parts * CONV_COLS);
            let end = x.cols.min(start + CONV_COLS);
            // SAFETY: the operands and runs were checked: tasks have columns or slots and rows of their own.
            unsafe { token.enter(ShortConv { x, weights, bias, silu, state, run, start, end }) }
        });
    }

    fn delta_rule(
        &mut self,
        x: View<'_>,
        strengths: View<'_>,
        parameters: View<'_>,
        state: View<'_>,
        out: View<'_>,
        rule: &DeltaRule,
        runs: &[StateRun],
    ) {
        let (token, x, strengths) = (self.token, Rows::from(x), Rows::from(strengths));
        let (parameters, state, out) = (Rows::from(parameters), Rows::from(state), Rows::from(out));
        self.pool.run(runs.len() * rule.value_heads, &|task, _| {
            let (run, head) = (runs[task / rule.value_heads], task % rule.value_heads);
            // SAFETY: the operands and runs were checked: tasks have heads or slots and rows of their own.
            unsafe { token.enter(DeltaHead { x, strengths, parameters, state, out, rule, run, head }) }
        });
    }

    fn state_scan(
        &mut self,
        x: View<'_>,
        steps: View<'_>,
        parameters: View<'_>,
        state: View<'_>,
        out: View<'_>,
        scan: &StateScan,
        runs: &[StateRun],
    ) {
        let (token, x, steps) = (self.token, Rows::from(x), Rows::from(steps));
        let (parameters, state, out) = (Rows::from(parameters), Rows::from(state), Rows::from(out));
        self.pool.run(runs.len() * scan.heads, &|task, _| {
            let (run, head) = (runs[task / scan.heads], task % scan.heads);
            // SAFETY: the operands and runs were checked: tasks have heads or slots and rows of their own.
            unsafe { token.enter(ScanHead { x, steps, parameters, state, out, scan, run, head }) }
        });
    }
}

impl CpuKernels {
    fn matmul_format<F: Format>(&mut self, w: Tile<'_>, x: View<'_>, y: View<'_>) {
        let (token, scratch, x, y) = (self.token, &self.scratch, Rows::from(x), Rows::from(y));
        let tasks = Tasks::new::<F>(token, w.rows, x.rows, self.pool.threads());
        self.pool.run(tasks.count(), &|task, thread| {
            let (start, end) = tasks.range(task);
            let mut guard = lock(&scratch[thread]);
            let scratch = guard.matmul.as_mut_ptr().cast();
            // SAFETY: the operands were checked: the tile has its bytes and fits `x` and `y`; the format is its own.
            // The scratch has its length and is locked.
            unsafe { Matmul { w, x, y, start, end, scratch, ahead: None }.run::<F>(token) }
        });
    }

    fn k_major_format<F: Format>(&mut self, w: Tile<'_>, x: View<'_>, lanes: View<'_>, k0: usize) {
        let (token, x, lanes) = (self.token, Rows::from(x), Rows::from(lanes));
        self.pool.run(w.cols.div_ceil(k_major::TASK_COLS), &|task, _| {
            let start = task * k_major::TASK_COLS;
            let end = w.cols.min(start + k_major::TASK_COLS);
            // SAFETY: the operands were checked: the tile has its bytes and fits `x` and `lanes`; the format is its own.
            unsafe { token.enter(KMajor::<F>::new(w, x, lanes, k0, (start, end))) }
        });
    }

    fn matmul_exponents(
        &mut self,
        parts: &[PackedTile<'_>],
        checked: bool,
        scaling: Option<ScalingView<'_>>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error> {
        let (token, scratch) = (self.token, &self.scratch);
        let threads = self.pool.threads();
        let values = scaling.map(|scaling| Values::new(scaling.quantised.code, scaling.zeros.is_none()));
        let scaled = scaling.zip(values.as_ref()).map(|(scaling, values)| {
            let none = Tile { dtype: DType::U8, rows: 0, cols: x.cols(), bytes: &[] };
            Expand::new(none, &scaling, x.cols(), values)
        });
        let job = PackedMatmul::new(parts, checked, scaled, (Rows::from(x), Rows::from(y)), threads);
        self.pool.run(job.tasks(), &|task, thread| {
            let Scratch { matmul, expanded, .. } = &mut *lock(&scratch[thread]);
            // SAFETY: the operands were checked: the tiles fit `x` and `y`, whose columns are divided among tasks. The
            // scratch has its length and is locked.
            unsafe { job.run(task, token, expanded, matmul.as_mut_ptr().cast()) }
        });
        job.finish()
    }

    /// Whether every thread has reserved so many values of expanded rows: packed tiles may have made one's scratch larger.
    fn check_expanded(&self, len: usize) -> Result<(), Error> {
        let least = self.scratch.iter().map(|scratch| lock(scratch).expanded.len() * LANES).min();
        match least {
            Some(have) if len <= have => Ok(()),
            have => {
                let message =
                    format!("codes with scales take {len} values of scratch where {have:?} are reserved");
                Err(Error::shape(message))
            }
        }
    }

    /// Checks the checksums of a tile's groups, some for each thread.
    fn check(&mut self, parts: &[PackedTile<'_>]) -> Result<(), Error> {
        for part in parts {
            let failed = OnceLock::new();
            let each = part.groups.div_ceil(2 * self.pool.threads());
            self.pool.run(part.groups.div_ceil(each), &|task, _| {
                let mut groups = task * each..part.groups.min((task + 1) * each);
                if let Err(error) = groups.try_for_each(|group| part.checked(group).map(|_| ())) {
                    let _ = failed.set(error);
                }
            });
            failed.into_inner().map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Runs `work(start, end)` over ranges of rows.
    fn by_rows(&mut self, rows: usize, cols: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let task_rows = (TASK_ELEMENTS / cols.max(1)).max(1);
        self.pool.run(rows.div_ceil(task_rows), &|task, _| {
            work(task * task_rows, rows.min((task + 1) * task_rows))
        });
    }
}

fn unsupported(dtype: DType) -> Error {
    Error::new(ErrorKind::Unsupported, format!("weights in {dtype} cannot be multiplied on the CPU"))
}

fn lock(scratch: &Mutex<Scratch>) -> std::sync::MutexGuard<'_, Scratch> {
    scratch.lock().unwrap_or_else(PoisonError::into_inner)
}
