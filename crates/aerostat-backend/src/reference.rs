//! The reference device: every op in its plainest form, to test the others against. One thread, slow.

use std::cell::Cell;

use aerostat_checkpoint::DType;

use crate::delta::{self, StateRun};
use crate::numerics::{self, LANES, Map, Seen};
use crate::quantised::{self, Groups};
use crate::{
    Activation, Attention, Capabilities, Checks, DeltaRule, Error, Extras, HeadCopy, HostDevice, HostMemory,
    Index, Kernels, KvElement, KvType, KvView, Placement, Rope, RopeStyle, RowPlace, ScalingView, StateScan,
    Tile, View, check, formats, scan,
};

/// The reference device.
#[derive(Default)]
pub struct Reference {
    memory: HostMemory,
    kernels: Naive,
}

impl Reference {
    /// A device without buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

impl HostDevice for Reference {
    type Kernels = Naive;

    fn kernels(&self) -> &Naive {
        &self.kernels
    }

    fn memory(&self) -> &HostMemory {
        &self.memory
    }

    fn parts(&mut self, _: Checks) -> (&mut HostMemory, &mut Naive) {
        (&mut self.memory, &mut self.kernels)
    }
}

/// The kernels of [`Reference`]: `numerics` and `formats` applied to copies.
#[derive(Default)]
pub struct Naive;

impl Kernels for Naive {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            device: "reference",
            detail: "naive".to_owned(),
            weights: DType::COMPUTABLE,
            kv: KvType::ALL,
            threads: 1,
        }
    }

    fn reserve_positions(&mut self, _positions: usize) -> Result<(), Error> {
        Ok(())
    }

    fn matmul(&mut self, w: Tile<'_>, x: View<'_>, y: View<'_>) -> Result<(), Error> {
        let x: Vec<Vec<f32>> = (0..x.rows()).map(|r| copy(x.row(r))).collect();
        let row_bytes = w.bytes.len() / w.rows.max(1);
        for n in 0..w.rows {
            let weights = expand(w, n * row_bytes, row_bytes);
            for (r, x) in x.iter().enumerate() {
                y.row(r)[n].set(numerics::dot(&weights, x));
            }
        }
        Ok(())
    }

    fn matmul_scaled(
        &mut self,
        w: Tile<'_>,
        scaling: ScalingView<'_>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error> {
        let xs: Vec<Vec<f32>> = (0..x.rows()).map(|r| copy(x.row(r))).collect();
        let mut weights = vec![0.0; x.cols()];
        for n in 0..w.rows {
            scaled_row(w, &scaling, false, n, &mut weights)?;
            for (r, x) in xs.iter().enumerate() {
                y.row(r)[n].set(numerics::dot(&weights, x));
            }
        }
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
        let mut weights = vec![0.0; lanes.cols() / LANES];
        for r in 0..x.rows() {
            let mut sums = copy(lanes.row(r));
            if k0 == 0 {
                sums.fill(0.0);
            }
            for k in 0..rows {
                scaled_row(w, &scaling, true, k, &mut weights)?;
                numerics::accumulate(&weights, x.row(r)[k0 + k].get(), k0 + k, &mut sums);
            }
            set(lanes.row(r), &sums);
        }
        Ok(())
    }

    fn matmul_k_major(&mut self, w: Tile<'_>, x: View<'_>, lanes: View<'_>, k0: usize) -> Result<(), Error> {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        for r in 0..x.rows() {
            let mut sums = copy(lanes.row(r));
            if k0 == 0 {
                sums.fill(0.0);
            }
            for k in 0..w.rows {
                let weights = expand(w, k * row_bytes, row_bytes);
                numerics::accumulate(&weights, x.row(r)[k0 + k].get(), k0 + k, &mut sums);
            }
            set(lanes.row(r), &sums);
        }
        Ok(())
    }

    fn sum_lanes(&mut self, lanes: View<'_>, y: View<'_>) {
        for r in 0..y.rows() {
            for (n, y) in y.row(r).iter().enumerate() {
                y.set(numerics::reduce(std::array::from_fn(|lane| {
                    lanes.row(r)[lane * lanes.cols() / LANES + n].get()
                })));
            }
        }
    }

    fn map(&mut self, map: Map, a: View<'_>, b: View<'_>, out: View<'_>) {
        for r in 0..out.rows() {
            for ((out, a), b) in out.row(r).iter().zip(a.row(r)).zip(b.row(r)) {
                out.set(map.apply(a.get(), b.get()));
            }
        }
    }

    fn row_norms(&mut self, w: Tile<'_>, out: View<'_>) -> Result<(), Error> {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        for (n, out) in out.row(0).iter().enumerate() {
            let row = expand(w, n * row_bytes, row_bytes);
            out.set(numerics::inverse_norm(numerics::dot(&row, &row)));
        }
        Ok(())
    }

    fn mul_rows(&mut self, x: View<'_>, factors: View<'_>) {
        for r in 0..x.rows() {
            let factor = factors.row(r)[0].get();
            x.row(r).iter().for_each(|cell| cell.set(cell.get() * factor));
        }
    }

    fn copy_heads(&mut self, x: View<'_>, copy: &HeadCopy, out: View<'_>) {
        for r in 0..x.rows() {
            let heads = x.row(r).chunks(copy.from_dim).zip(out.row(r).chunks(copy.to_dim));
            for (from, to) in heads {
                let from = &from[copy.from_start..][..copy.len];
                to[copy.to_start..].iter().zip(from).for_each(|(to, from)| to.set(from.get()));
            }
        }
    }

    fn rms_norm(&mut self, x: View<'_>, weight: View<'_>, eps: f32, out: View<'_>) {
        let weight = copy(weight.row(0));
        for r in 0..x.rows() {
            for (x, out) in x.row(r).chunks(weight.len()).zip(out.row(r).chunks(weight.len())) {
                let mut normed = vec![0.0; weight.len()];
                numerics::rms_norm(&copy(x), &weight, eps, &mut normed);
                set(out, &normed);
            }
        }
    }

    fn layer_norm(&mut self, x: View<'_>, size: usize, eps: f32, out: View<'_>) {
        for r in 0..x.rows() {
            for (x, out) in x.row(r).chunks(size).zip(out.row(r).chunks(size)) {
                let mut normed = vec![0.0; size];
                numerics::layer_norm(&copy(x), eps, &mut normed);
                set(out, &normed);
            }
        }
    }

    fn rope(&mut self, x: View<'_>, rope: Rope, angles: View<'_>) {
        let half = rope.rotary / 2;
        for r in 0..x.rows() {
            let (cos, sin) = angles.row(r).split_at(half);
            for head in x.row(r).chunks(rope.head_dim) {
                for i in 0..half {
                    let (first, second) = match rope.style {
                        RopeStyle::Half => (&head[rope.start + i], &head[rope.start + i + half]),
                        RopeStyle::Interleaved => (&head[rope.start + 2 * i], &head[rope.start + 2 * i + 1]),
                    };
                    let (a, b) = numerics::rotate(first.get(), second.get(), cos[i].get(), sin[i].get());
                    first.set(a);
                    second.set(b);
                }
            }
        }
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
        for (r, &place) in places.rows.iter().enumerate() {
            let (first, last) = check::visible(place, shape);
            let seen: Vec<usize> = (first..=last).collect();
            attend(q.row(r), out.row(r), (shape, extras), (kv, &places, place), &seen);
        }
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
        for (r, &place) in places.rows.iter().enumerate() {
            let queries = copy(q.row(r));
            let score = |j: usize| {
                let at = kv.value_at(kv.slot(&places, place, j), 0);
                let key = kv_row(kv.value_type, kv.values, at, index.dim);
                let query = |head: usize| &queries[head * index.dim..][..index.dim];
                numerics::index_score(index, query, weights.row(r).iter().map(Cell::get), &key)
            };
            let scores: Vec<f32> = (0..=place.position as usize).map(score).collect();
            let mut cells = out.row(r).iter();
            numerics::select(&scores, &mut scores.clone(), out.cols(), |j| {
                cells.next().into_iter().for_each(|cell| cell.set(j as f32));
            });
            cells.for_each(|cell| cell.set(-1.0));
        }
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
        for (r, &place) in places.rows.iter().enumerate() {
            let chosen = selected.row(r).iter().map(Cell::get).take_while(|j| *j >= 0.0);
            let seen: Vec<usize> = chosen.map(|j| j as usize).collect();
            attend(q.row(r), out.row(r), (shape, Extras::NONE), (kv, &places, place), &seen);
        }
    }

    fn short_conv(
        &mut self,
        x: View<'_>,
        (weights, bias): (View<'_>, Option<View<'_>>),
        silu: bool,
        state: View<'_>,
        runs: &[StateRun],
    ) {
        for run in runs {
            let kept = state.row(run.slot);
            for channel in 0..x.cols() {
                let weights: Vec<f32> = (0..weights.rows()).map(|i| weights.row(i)[channel].get()).collect();
                let bias = bias.map_or(0.0, |bias| bias.row(0)[channel].get());
                let history: Vec<&Cell<f32>> = kept.iter().skip(channel).step_by(x.cols()).collect();
                let mut inputs: Vec<f32> =
                    history.iter().map(|c| if run.fresh { 0.0 } else { c.get() }).collect();
                for row in run.start..run.start + run.rows {
                    let cell = &x.row(row)[channel];
                    inputs.push(cell.get());
                    cell.set(delta::convolve(&inputs, &weights, bias, silu));
                    inputs.remove(0);
                }
                history.iter().zip(inputs).for_each(|(cell, input)| cell.set(input));
            }
        }
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
        let size = rule.key_dim * rule.value_dim;
        for (run, head) in runs.iter().flat_map(|run| (0..rule.value_heads).map(move |head| (run, head))) {
            let kept = &state.row(run.slot)[head * size..][..size];
            let mut state = if run.fresh { vec![0.0; size] } else { copy(kept) };
            let (q, k, v) = rule.places(head);
            let (strength, decay) = rule.strength_at(head);
            for row in run.start..run.start + run.rows {
                let (x, s) = (copy(x.row(row)), strengths.row(row));
                let vectors = (&x[q..][..rule.key_dim], &x[k..][..rule.key_dim], &x[v..][..rule.value_dim]);
                let (strength, decays) = if rule.each {
                    let own = &s[rule.value_heads + head * rule.key_dim..][..rule.key_dim];
                    // Before position 0 the state is zero, whatever would be left of it.
                    let first = run.fresh && row == run.start;
                    let decays = if first { vec![0.0; rule.key_dim] } else { copy(own) };
                    (numerics::activate(s[head].get(), Activation::Sigmoid), decays)
                } else {
                    let (rate, bias) = (parameters.row(0)[head].get(), parameters.row(1)[head].get());
                    let (strength, decay) = delta::strengths(s[strength].get(), s[decay].get(), rate, bias);
                    (strength, vec![decay; rule.key_dim])
                };
                let mut read = vec![0.0; rule.value_dim];
                delta::step(&mut state, vectors, (strength, &decays), &mut read);
                set(&out.row(row)[head * rule.value_dim..], &read);
            }
            set(kept, &state);
        }
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
        let at = |row: usize, column: usize| parameters.row(row)[column].get();
        let (rows, width) = (scan.state_dim, scan.head_dim);
        for (run, head) in runs.iter().flat_map(|run| (0..scan.heads).map(move |head| (run, head))) {
            let kept = &state.row(run.slot)[head * rows * width..][..rows * width];
            let mut state = if run.fresh { vec![0.0; rows * width] } else { copy(kept) };
            let (input, b, c) = scan.places(head);
            for row in run.start..run.start + run.rows {
                let x = copy(x.row(row));
                let mut read = vec![0.0; width];
                let vectors = (&x[b..][..rows], &x[c..][..rows], &x[input..][..width]);
                if scan.each {
                    let steps = copy(&steps.row(row)[input..][..width]);
                    // Before position 0 the state is zero, whatever would be left of it.
                    let first = run.fresh && row == run.start;
                    let decay = |i: usize, j: usize| {
                        if first { 0.0 } else { scan::decay(at(i, input + j), steps[j]) }
                    };
                    scan::step_each(
                        &mut state,
                        vectors,
                        (&steps, &decay, &|j| at(rows, input + j)),
                        &mut read,
                    );
                } else {
                    let argument = steps.row(row)[head].get();
                    let (step, decay) = scan::time_step(argument, at(0, head), at(1, head), scan.steps);
                    scan::step(&mut state, vectors, (step, decay, at(2, head)), &mut read);
                }
                set(&out.row(row)[head * width..], &read);
            }
            set(kept, &state);
        }
    }
}

/// One row over the positions `seen`.
fn attend(
    q: &[Cell<f32>],
    out: &[Cell<f32>],
    (shape, extras): (&Attention, Extras<View<'_>>),
    (kv, places, place): (KvView<'_>, &Placement<'_>, RowPlace),
    seen: &[usize],
) {
    let end = seen.last().map_or(0, |last| last + 1);
    // The row of one KV head at every position that is seen.
    let rows = |of: KvElement, bytes: &[u8], at: &dyn Fn(usize) -> usize, dim: usize| -> Vec<Vec<f32>> {
        let mut rows = vec![Vec::new(); end];
        for &j in seen {
            rows[j] = kv_row(of, bytes, at(kv.slot(places, place, j)), dim);
        }
        rows
    };
    for head in 0..shape.heads {
        let kv_head = head / (shape.heads / shape.kv_heads);
        let keys = rows(kv.key_type, kv.keys, &|slot| kv.key_at(slot, kv_head), shape.key_dim);
        let values = rows(kv.value_type, kv.values, &|slot| kv.value_at(slot, kv_head), shape.value_dim);
        let query = copy(&q[head * shape.key_dim..][..shape.key_dim]);
        let (mut scores, mut sum) = (vec![0.0; seen.len()], vec![0.0; shape.value_dim]);
        let biases = extras.biases.map(|biases| copy(biases.row(head)));
        let view = Seen {
            head,
            position: place.position as usize,
            sink: extras.sinks.map(|sinks| sinks.row(0)[head].get()),
            biases: biases.as_deref(),
        };
        let (key, value) = (|j: usize| &keys[j][..], |j: usize| &values[j][..]);
        numerics::attend(&query, shape, view, seen, key, value, &mut scores, &mut sum);
        set(&out[head * shape.value_dim..], &sum);
    }
}

fn copy(cells: &[Cell<f32>]) -> Vec<f32> {
    cells.iter().map(Cell::get).collect()
}

fn set(cells: &[Cell<f32>], values: &[f32]) {
    for (cell, &value) in cells.iter().zip(values) {
        cell.set(value);
    }
}

fn expand(w: Tile<'_>, start: usize, len: usize) -> Vec<f32> {
    let mut row = vec![0.0; w.cols];
    let expanded = formats::expand(w.dtype, &w.bytes[start..][..len], &mut row);
    debug_assert!(expanded.is_ok(), "the tile was checked");
    row
}

/// Row `row` of a tile of codes, expanded.
fn scaled_row(
    w: Tile<'_>,
    scaling: &ScalingView<'_>,
    by_inputs: bool,
    row: usize,
    out: &mut [f32],
) -> Result<(), Error> {
    let ScalingView { quantised, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
    let (run_rows, run) = quantised.code.run();
    let run_bytes = quantised.code.row_bytes(out.len()) * run_rows;
    let groups = groups.map(|groups| copy(groups.row(0)));
    let block = match &groups {
        Some(groups) if by_inputs => groups[first_row + row] as usize,
        _ => (first_row + row) / block_rows,
    };
    let zeros = zeros.map_or(Vec::new(), |zeros| copy(zeros.row(block)));
    let index = groups.as_deref().filter(|_| !by_inputs);
    let groups = Groups { len: block_cols, index, scales: &copy(scales.row(block)), zeros: &zeros };
    quantised::expand(&quantised, &w.bytes[row / run * run_bytes..][..run_bytes], row % run, groups, out)
}

fn kv_row(element: KvElement, bytes: &[u8], start: usize, len: usize) -> Vec<f32> {
    let bytes = &bytes[start..][..element.row_bytes(len)];
    let pair = |b: &[u8]| [b[0], b[1]];
    match element {
        KvElement::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(pair(b)).to_f32()).collect(),
        KvElement::BF16 => {
            bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes(pair(b)).to_f32()).collect()
        }
        KvElement::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        KvElement::Q8 => {
            let mut row = vec![0.0; len.next_multiple_of(DType::Q8_0.block_len())];
            let expanded = formats::expand(DType::Q8_0, bytes, &mut row);
            debug_assert!(expanded.is_ok(), "whole blocks");
            row.truncate(len);
            row
        }
    }
}
