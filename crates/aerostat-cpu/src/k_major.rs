//! Weights times activations, where the weights of one input lie together: matrices stored `[K, N]`.
//!
//! A vector is sixteen outputs here, not sixteen inputs. The sixteen lanes of an output are summed one after the other:
//! inputs 0, 16, 32 and so on of a slab, then 1, 17, 33. So a register holds one lane of sixteen outputs while a slab is
//! multiplied, weights are used by several activation rows, and every lane has its summands in ascending order.

use std::marker::PhantomData;

use aerostat_backend::Tile;

use crate::format::{Format, group_part};
use crate::isa::Kernel;
use crate::rows::{Rows, prefetch};
use crate::vector::{LANES, Vector, load_part, store_part};

/// Outputs of a task: whole register tiles of every instruction set.
pub(crate) const TASK_COLS: usize = 96;
/// Inputs of a slab: with a task's outputs its weights stay in the second-level cache for all activation rows.
const SLAB_ROWS: usize = 512;
const _: () = assert!(SLAB_ROWS.is_multiple_of(LANES));

/// Outputs `start .. end` of a tile of rows `k0 ..` of a matrix, added to `lanes`, which are `pitch` columns from each other.
/// The tile's shape fits `x` and `lanes`, its format is `F`.
pub(crate) struct KMajor<'a, F> {
    w: Tile<'a>,
    x: Rows,
    lanes: Rows,
    pitch: usize,
    k0: usize,
    start: usize,
    end: usize,
    format: PhantomData<F>,
}

/// Some inputs of one lane and some outputs, for some activation rows: what a register tile multiplies.
#[derive(Clone, Copy)]
struct Part {
    /// First output, and how many of the last vector.
    col: usize,
    last: usize,
    /// First activation row.
    row: usize,
    /// The lane, and the first of its inputs (of the tile) and the one after the last.
    lane: usize,
    first: usize,
    end: usize,
}

/// The rows `start .. end` of `y` from their lanes, which are sixteen times as many columns.
pub(crate) struct SumLanes {
    pub(crate) lanes: Rows,
    pub(crate) y: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl<'a, F: Format> KMajor<'a, F> {
    pub(crate) fn new(w: Tile<'a>, x: Rows, lanes: Rows, k0: usize, (start, end): (usize, usize)) -> Self {
        Self { w, x, lanes, pitch: w.cols, k0, start, end, format: PhantomData }
    }

    /// Of a tile that has some of the outputs, from the first of `lanes` on, where `pitch` is the number of all.
    pub(crate) fn some(w: Tile<'a>, x: Rows, lanes: Rows, pitch: usize, k0: usize) -> Self {
        Self { w, x, lanes, pitch, k0, start: 0, end: w.cols, format: PhantomData }
    }

    /// The block of input `k` of the tile that has output `col`, a multiple of sixteen.
    #[inline(always)]
    fn block(&self, k: usize, col: usize) -> *const u8 {
        let row_bytes = self.w.cols / F::LEN * F::BYTES + self.w.cols % F::LEN * F::PAD.len();
        self.w.bytes.as_ptr().wrapping_add(k * row_bytes + col / F::LEN * F::BYTES)
    }

    /// The weights of input `k` of the tile and `len` outputs from `col`; fewer than sixteen only at the end.
    ///
    /// # Safety
    /// What the struct says holds; input and outputs are within the tile.
    #[inline(always)]
    unsafe fn weights<V: Vector>(&self, k: usize, col: usize, len: usize) -> V {
        let from = self.block(k, col);
        // SAFETY: the caller's promise; only plain formats end within a group.
        unsafe {
            if F::GROUPS == 1 && len < LANES {
                return group_part::<V, F>(from, len);
            }
            let mut head = F::head::<V>(from);
            if F::GROUPS > 1 {
                V::settle(&mut head);
            }
            F::group(from, &head, col % F::LEN / LANES)
        }
    }

    /// All activation rows and lanes, for `A` vectors of outputs from `col`, the last of `last`.
    ///
    /// # Safety
    /// What the struct says holds; the outputs are within the task.
    #[inline(always)]
    unsafe fn slab<V: Vector, const A: usize, const N: usize>(&self, col: usize, last: usize, slab: usize) {
        let slab_end = self.w.rows.min(slab + SLAB_ROWS);
        for row in (0..self.x.rows).step_by(N) {
            for lane in 0..LANES {
                // The first input of the slab that goes to this lane.
                let first = slab + (lane + LANES - (self.k0 + slab) % LANES) % LANES;
                let part = Part { col, last, row, lane, first, end: slab_end };
                // SAFETY: the caller's promise; `row` plus the tile's rows stays within the activations.
                unsafe {
                    match self.x.rows - row {
                        1 => self.part::<V, A, 1>(part),
                        2 if N > 2 => self.part::<V, A, 2>(part),
                        3 if N > 3 => self.part::<V, A, 3>(part),
                        _ => self.part::<V, A, N>(part),
                    }
                }
            }
        }
    }

    /// `A` vectors of outputs, `B` activation rows.
    ///
    /// # Safety
    /// What the struct says holds; the part is within the matrices.
    #[inline(always)]
    unsafe fn part<V: Vector, const A: usize, const B: usize>(&self, part: Part) {
        let Part { col, last, row, lane, first, end } = part;
        let len = |a: usize| if a + 1 == A { last } else { LANES };
        let lanes = |a: usize, b: usize| self.lanes.at(row + b, lane * self.pitch + col + a * LANES);
        let is_start = self.k0 == 0 && first < LANES;
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[V::splat(0.0); B]; A];
            if !is_start {
                for a in 0..A {
                    for b in 0..B {
                        sums[a][b] = load_part(lanes(a, b), len(a), 0.0);
                    }
                }
            }
            for k in (first..end).step_by(LANES) {
                if row == 0 {
                    // The next lane's weights follow in memory.
                    prefetch::<V>(self.block(k + 1, col), A.div_ceil(F::GROUPS) * F::BYTES);
                }
                let mut xs = [V::splat(0.0); B];
                for b in 0..B {
                    xs[b] = V::splat(*self.x.at(row + b, self.k0 + k));
                }
                for a in 0..A {
                    let weights = self.weights::<V>(k, col + a * LANES, len(a));
                    for b in 0..B {
                        sums[a][b] = V::mul_add(weights, xs[b], sums[a][b]);
                    }
                }
            }
            for a in 0..A {
                for b in 0..B {
                    store_part(sums[a][b], lanes(a, b), len(a));
                }
            }
        }
    }
}

impl<F: Format> Kernel for KMajor<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        const { assert!(TASK_COLS.is_multiple_of(M * LANES) && N <= 4) };
        // An empty tile at the start still makes the lanes zeros.
        for slab in (0..self.w.rows.max(1)).step_by(SLAB_ROWS) {
            let mut col = self.start;
            // SAFETY: the promise of the struct; outputs are below `end`.
            unsafe {
                while self.end - col >= M * LANES {
                    self.slab::<V, M, N>(col, LANES, slab);
                    col += M * LANES;
                }
                while col < self.end {
                    let last = LANES.min(self.end - col);
                    self.slab::<V, 1, N>(col, last, slab);
                    col += last;
                }
            }
        }
    }
}

impl Kernel for SumLanes {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let Self { lanes, y, start, end } = self;
        for row in start..end {
            for col in (0..y.cols).step_by(LANES) {
                let len = LANES.min(y.cols - col);
                // SAFETY: the promise of the struct.
                unsafe {
                    let mut sums = [V::splat(0.0); LANES];
                    for lane in 0..LANES {
                        sums[lane] = load_part(lanes.at(row, lane * y.cols + col), len, 0.0);
                    }
                    for half in [8, 4, 2, 1] {
                        for i in 0..half {
                            sums[i] = V::add(sums[i], sums[i + half]);
                        }
                    }
                    store_part(sums[0], y.at(row, col), len);
                }
            }
        }
    }
}
