//! Recurrent states: the short convolution and the delta rule, each sequence's rows one by one.

use aerostat_backend::delta::{self, KERNEL_MAX, StateRun};
use aerostat_backend::{Activation, DeltaRule, numerics};

use crate::isa::Kernel;
use crate::rows::Rows;
use crate::vector::{LANES, Vector, load_part, store_part};

/// Columns of a task of the convolution.
pub(crate) const CONV_COLS: usize = 256;

/// Vectors of columns of a state that are gone through together, so that sums need not wait for themselves.
const TOGETHER: usize = 4;

/// The convolution of some columns in the rows of one sequence, in place.
pub(crate) struct ShortConv {
    pub(crate) x: Rows,
    /// A row for each position.
    pub(crate) weights: Rows,
    /// One row, as wide as `x`.
    pub(crate) bias: Option<Rows>,
    /// Results go through SiLU.
    pub(crate) silu: bool,
    /// `weights.rows - 1` times as wide as `x`; at most [`KERNEL_MAX`] rows of weights.
    pub(crate) state: Rows,
    pub(crate) run: StateRun,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Kernel for ShortConv {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        for col in (self.start..self.end).step_by(LANES) {
            // SAFETY: the promise of the struct; the columns are within `end`.
            unsafe { self.columns::<V>(col, LANES.min(self.end - col)) }
        }
    }
}

impl ShortConv {
    /// # Safety
    /// What the struct says holds; `len ≤ 16` columns from `col` exist.
    #[inline(always)]
    unsafe fn columns<V: Vector>(&self, col: usize, len: usize) {
        let (kernel, channels) = (self.weights.rows, self.x.cols);
        // SAFETY: the promise of the struct: state and weights have their rows and columns.
        unsafe {
            let mut weights = [V::splat(0.0); KERNEL_MAX];
            let mut inputs = [V::splat(0.0); KERNEL_MAX];
            let bias: V = match self.bias {
                Some(bias) => load_part(bias.at(0, col), len, 0.0),
                None => V::splat(0.0),
            };
            for i in 0..kernel {
                weights[i] = load_part(self.weights.at(i, col), len, 0.0);
                if i + 1 < kernel && !self.run.fresh {
                    inputs[i] = load_part(self.state.at(self.run.slot, i * channels + col), len, 0.0);
                }
            }
            for row in self.run.start..self.run.start + self.run.rows {
                let x = self.x.at(row, col);
                inputs[kernel - 1] = load_part(x, len, 0.0);
                let mut sum = bias;
                for i in 0..kernel {
                    sum = V::mul_add(weights[i], inputs[i], sum);
                }
                if self.silu {
                    let mut out = [0.0; LANES];
                    V::store(sum, out.as_mut_ptr());
                    for out in &mut out {
                        *out = numerics::activate(*out, Activation::Silu);
                    }
                    sum = V::load(out.as_ptr());
                }
                store_part(sum, x, len);
                for i in 1..kernel {
                    inputs[i - 1] = inputs[i];
                }
            }
            for i in 0..kernel - 1 {
                store_part(inputs[i], self.state.at(self.run.slot, i * channels + col), len);
            }
        }
    }
}

/// The delta rule of one value head in the rows of one sequence; the operands are as the op says.
pub(crate) struct DeltaHead<'a> {
    pub(crate) x: Rows,
    pub(crate) strengths: Rows,
    pub(crate) parameters: Rows,
    pub(crate) state: Rows,
    pub(crate) out: Rows,
    pub(crate) rule: &'a DeltaRule,
    pub(crate) run: StateRun,
    pub(crate) head: usize,
}

/// One position: where its vectors lie, and its numbers.
#[derive(Clone, Copy)]
struct Position {
    q: *const f32,
    k: *const f32,
    v: *const f32,
    out: *mut f32,
    strength: f32,
    decay: f32,
    /// A decay for each row of the state, in place of `decay`; null: there are none.
    decays: *const f32,
}

impl Kernel for DeltaHead<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let DeltaRule { key_dim, value_dim, .. } = *self.rule;
        let state = self.state.at(self.run.slot, self.head * key_dim * value_dim);
        if self.run.fresh {
            // SAFETY: the promise of the struct: the head's state is there.
            unsafe { std::ptr::write_bytes(state, 0, key_dim * value_dim) };
        }
        for row in self.run.start..self.run.start + self.run.rows {
            // SAFETY: the promise of the struct; columns are within `value_dim`.
            unsafe {
                let position = self.position(row);
                let mut col = 0;
                while col + TOGETHER * LANES <= value_dim {
                    self.columns::<V, TOGETHER>(state, position, col, LANES);
                    col += TOGETHER * LANES;
                }
                while col < value_dim {
                    self.columns::<V, 1>(state, position, col, LANES.min(value_dim - col));
                    col += LANES;
                }
            }
        }
    }
}

impl DeltaHead<'_> {
    /// # Safety
    /// What the struct says holds; the row exists.
    #[inline(always)]
    unsafe fn position(&self, row: usize) -> Position {
        let (q, k, v) = self.rule.places(self.head);
        let first = self.rule.value_heads + self.head * self.rule.key_dim;
        // Before position 0 the state is zero, whatever would be left of it.
        let is_first = self.run.fresh && row == self.run.start;
        let decays = match self.rule.each && !is_first {
            true => self.strengths.at(row, first).cast_const(),
            false => std::ptr::null(),
        };
        let (strength, decay) = self.rule.strength_at(self.head);
        // SAFETY: the promise of the struct: a strength, a decay, a rate and a bias for each head.
        let (strength, decay) = unsafe {
            if self.rule.each {
                let strength = *self.strengths.at(row, self.head);
                (numerics::activate(strength, Activation::Sigmoid), 0.0)
            } else {
                let (rate, bias) = (*self.parameters.at(0, self.head), *self.parameters.at(1, self.head));
                delta::strengths(
                    *self.strengths.at(row, strength),
                    *self.strengths.at(row, decay),
                    rate,
                    bias,
                )
            }
        };
        Position {
            q: self.x.at(row, q),
            k: self.x.at(row, k),
            v: self.x.at(row, v),
            out: self.out.at(row, self.head * self.rule.value_dim),
            strength,
            decay,
            decays,
        }
    }

    /// # Safety
    /// What the struct says holds; `B` times `len ≤ 16` columns from `col` exist, and `len` is 16 where `B` is not 1.
    #[inline(always)]
    unsafe fn columns<V: Vector, const B: usize>(
        &self,
        state: *mut f32,
        position: Position,
        col: usize,
        len: usize,
    ) {
        let DeltaRule { key_dim, value_dim, .. } = *self.rule;
        let Position { q, k, v, out, strength, decay, decays } = position;
        // SAFETY: the caller's promise: the columns exist in the state's rows, in the value and in the output.
        unsafe {
            let strength = V::splat(strength);
            let decay = |i: usize| V::splat(if decays.is_null() { decay } else { *decays.add(i) });
            let mut change = [V::splat(0.0); B];
            for i in 0..key_dim {
                let (row, k, decay) = (state.add(i * value_dim + col), V::splat(*k.add(i)), decay(i));
                for b in 0..B {
                    let kept = V::mul(load_part(row.add(b * LANES), len, 0.0), decay);
                    change[b] = V::mul_add(kept, k, change[b]);
                }
            }
            for b in 0..B {
                let v: V = load_part(v.add(col + b * LANES), len, 0.0);
                // `v - known`, rounded once as a difference is.
                change[b] = V::mul(V::mul_add(change[b], V::splat(-1.0), v), strength);
            }
            let mut read = [V::splat(0.0); B];
            for i in 0..key_dim {
                let row = state.add(i * value_dim + col);
                let (k, q, decay) = (V::splat(*k.add(i)), V::splat(*q.add(i)), decay(i));
                for b in 0..B {
                    let at = row.add(b * LANES);
                    let kept = V::mul(load_part(at, len, 0.0), decay);
                    let kept = V::mul_add(k, change[b], kept);
                    store_part(kept, at, len);
                    read[b] = V::mul_add(kept, q, read[b]);
                }
            }
            for b in 0..B {
                store_part(read[b], out.add(col + b * LANES), len);
            }
        }
    }
}
