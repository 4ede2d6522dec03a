//! The selective scan of a state space, each sequence's rows one by one.

use aerostat_backend::delta::StateRun;
use aerostat_backend::{StateScan, numerics, scan};

use crate::isa::Kernel;
use crate::rows::Rows;
use crate::vector::{LANES, Vector, load_part, store_part};

/// Vectors of columns of a state that are gone through together, so that sums need not wait for themselves.
const TOGETHER: usize = 4;

/// The scan of one head in the rows of one sequence; the operands are as the op says.
pub(crate) struct ScanHead<'a> {
    pub(crate) x: Rows,
    pub(crate) steps: Rows,
    pub(crate) parameters: Rows,
    pub(crate) state: Rows,
    pub(crate) out: Rows,
    pub(crate) scan: &'a StateScan,
    pub(crate) run: StateRun,
    pub(crate) head: usize,
}

/// One position: where its vectors lie, and its numbers.
#[derive(Clone, Copy)]
struct Position {
    input: *const f32,
    b: *const f32,
    c: *const f32,
    out: *mut f32,
    step: f32,
    decay: f32,
    skip: f32,
}

impl Kernel for ScanHead<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let StateScan { head_dim, state_dim, .. } = *self.scan;
        let state = self.state.at(self.run.slot, self.head * state_dim * head_dim);
        if self.run.fresh {
            // SAFETY: the promise of the struct: the head's state is there.
            unsafe { std::ptr::write_bytes(state, 0, state_dim * head_dim) };
        }
        for row in self.run.start..self.run.start + self.run.rows {
            // SAFETY: the promise of the struct; columns are within `head_dim`.
            unsafe {
                if self.scan.each {
                    for col in (0..head_dim).step_by(LANES) {
                        self.columns_each::<V>(state, row, col, LANES.min(head_dim - col));
                    }
                    continue;
                }
                let position = self.position(row);
                let mut col = 0;
                while col + TOGETHER * LANES <= head_dim {
                    self.columns::<V, TOGETHER>(state, position, col, LANES);
                    col += TOGETHER * LANES;
                }
                while col < head_dim {
                    self.columns::<V, 1>(state, position, col, LANES.min(head_dim - col));
                    col += LANES;
                }
            }
        }
    }
}

impl ScanHead<'_> {
    /// The columns where each element of the state has a rate of its own.
    ///
    /// # Safety
    /// What the struct says holds; `len ≤ 16` columns from `col` and the row exist.
    #[inline(always)]
    unsafe fn columns_each<V: Vector>(&self, state: *mut f32, row: usize, col: usize, len: usize) {
        let StateScan { head_dim, state_dim, .. } = *self.scan;
        let (input, b, c) = self.scan.places(self.head);
        let at = input + col;
        let is_first = self.run.fresh && row == self.run.start;
        // SAFETY: the caller's promise: the columns exist in the state's rows, in the input, in parameters and in the output.
        unsafe {
            let steps: V = load_part(self.steps.at(row, at), len, 0.0);
            let input: V = load_part(self.x.at(row, at), len, 0.0);
            let taken = V::mul(input, steps);
            let mut read = V::mul(input, load_part(self.parameters.at(state_dim, at), len, 0.0));
            for i in 0..state_dim {
                let mut decays = [0.0; LANES];
                V::store(V::mul(load_part(self.parameters.at(i, at), len, 0.0), steps), decays.as_mut_ptr());
                for decay in &mut decays {
                    // Before position 0 the state is zero, whatever would be left of it.
                    *decay = if is_first { 0.0 } else { numerics::exp(-*decay) };
                }
                let place = state.add(i * head_dim + col);
                let (b, c) = (V::splat(*self.x.at(row, b + i)), V::splat(*self.x.at(row, c + i)));
                let kept = V::mul(load_part(place, len, 0.0), V::load(decays.as_ptr()));
                let kept = V::mul_add(b, taken, kept);
                store_part(kept, place, len);
                read = V::mul_add(kept, c, read);
            }
            store_part(read, self.out.at(row, at), len);
        }
    }

    /// # Safety
    /// What the struct says holds; the row exists.
    #[inline(always)]
    unsafe fn position(&self, row: usize) -> Position {
        let (input, b, c) = self.scan.places(self.head);
        // SAFETY: the promise of the struct: a step, a rate, a bias and a skip for each head.
        let (argument, rate, bias, skip) = unsafe {
            let parameter = |row| *self.parameters.at(row, self.head);
            (*self.steps.at(row, self.head), parameter(0), parameter(1), parameter(2))
        };
        let (step, decay) = scan::time_step(argument, rate, bias, self.scan.steps);
        Position {
            input: self.x.at(row, input),
            b: self.x.at(row, b),
            c: self.x.at(row, c),
            out: self.out.at(row, self.head * self.scan.head_dim),
            step,
            decay,
            skip,
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
        let StateScan { head_dim, state_dim, .. } = *self.scan;
        let Position { input, b, c, out, step, decay, skip } = position;
        // SAFETY: the caller's promise: the columns exist in the state's rows, in the input and in the output.
        unsafe {
            let (step, decay, skip) = (V::splat(step), V::splat(decay), V::splat(skip));
            let (mut taken, mut read) = ([V::splat(0.0); B], [V::splat(0.0); B]);
            for t in 0..B {
                let input: V = load_part(input.add(col + t * LANES), len, 0.0);
                (taken[t], read[t]) = (V::mul(input, step), V::mul(input, skip));
            }
            for i in 0..state_dim {
                let row = state.add(i * head_dim + col);
                let (b, c) = (V::splat(*b.add(i)), V::splat(*c.add(i)));
                for t in 0..B {
                    let at = row.add(t * LANES);
                    let kept = V::mul(load_part(at, len, 0.0), decay);
                    let kept = V::mul_add(b, taken[t], kept);
                    store_part(kept, at, len);
                    read[t] = V::mul_add(kept, c, read[t]);
                }
            }
            for t in 0..B {
                store_part(read[t], out.add(col + t * LANES), len);
            }
        }
    }
}
