//! Weights times activations.
//!
//! A task is [`TASK_ROWS`] weight rows and all activation rows. A few activation rows are multiplied straight from the
//! stored weights, which are expanded in registers. For more, some weight rows at a time are expanded to a
//! panel of f32 in the first-level cache, which all activation rows of a block then use. `K` is cut into slabs there,
//! the sums waiting in scratch between slabs: the order of additions stays the canonical one.

use std::marker::PhantomData;

use aerostat_backend::Tile;

use crate::format::{F32, Format, group_part};
use crate::isa::{Kernel, Token};
use crate::rows::{Ahead, Rows, Sums, accumulate, dots};
use crate::vector::{LANES, Vector, store_part};

/// Weight rows of a task.
pub(crate) const TASK_ROWS: usize = 24;
/// Activation rows of a block: with a slab's columns they stay in the second-level cache.
const BLOCK_ROWS: usize = 64;
/// Columns of a slab; whole blocks of every format.
const SLAB_COLS: usize = 1024;
/// Distance between the rows of a panel: no power of two, so that they fall into different sets of the cache.
const PANEL_STRIDE: usize = SLAB_COLS + 5 * LANES;
/// Weight rows of a panel; whole tiles of every instruction set.
const PANEL_ROWS: usize = 6;
/// Weight rows that are multiplied at a time without a panel.
const DIRECT_ROWS: usize = 4;
const _: () = assert!(TASK_ROWS.is_multiple_of(PANEL_ROWS) && SLAB_COLS.is_multiple_of(256));

const SUMS_LEN: usize = TASK_ROWS * BLOCK_ROWS * LANES;
/// Scratch of a thread in f32: the sums, then the panel.
pub(crate) const SCRATCH_LEN: usize = SUMS_LEN + PANEL_ROWS * PANEL_STRIDE;

/// Rows `start .. end`, at most [`TASK_ROWS`], of a weight tile times all rows of `x`, to the columns `start .. end` of
/// `y`. The tile's shape fits `x` and `y`, and `scratch` is valid for [`SCRATCH_LEN`] elements.
#[derive(Clone, Copy)]
pub(crate) struct Matmul<'a> {
    pub(crate) w: Tile<'a>,
    pub(crate) x: Rows,
    pub(crate) y: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) scratch: *mut f32,
}

/// A [`Matmul`] without a panel.
struct Direct<'a, F>(Matmul<'a>, PhantomData<F>);

/// Part of a [`Matmul`]: expands columns `col .. col + cols` of `rows` weight rows from `row` to the panel.
struct Expand<'a, F>(Matmul<'a>, Slab, PhantomData<F>);

/// Part of a [`Matmul`]: multiplies the panel with the activation rows `first .. first + count`.
/// Meanwhile the weights of the next panel are fetched.
struct Multiply<'a>(Matmul<'a>, Slab, Block, Ahead);

/// What a panel holds: at most [`PANEL_ROWS`] rows and [`SLAB_COLS`] columns.
#[derive(Clone, Copy)]
struct Slab {
    row: usize,
    rows: usize,
    col: usize,
    cols: usize,
}

/// At most [`BLOCK_ROWS`] activation rows.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    count: usize,
}

impl Matmul<'_> {
    /// Does the work.
    ///
    /// # Safety
    /// What the struct says holds, and `F` is the format of the tile.
    pub(crate) unsafe fn run<F: Format>(self, token: Token) {
        let direct = self.x.rows <= token.direct_rows_max(F::GROUPS > 1);
        // SAFETY: the caller's promise, passed on.
        unsafe {
            if direct { token.enter(Direct::<F>(self, PhantomData)) } else { self.by_panels::<F>(token) }
        }
    }

    /// # Safety
    /// As `run`.
    unsafe fn by_panels<F: Format>(self, token: Token) {
        for first in (0..self.x.rows).step_by(BLOCK_ROWS) {
            let block = Block { first, count: BLOCK_ROWS.min(self.x.rows - first) };
            for col in (0..self.w.cols.max(1)).step_by(SLAB_COLS) {
                let cols = SLAB_COLS.min(self.w.cols - col);
                for row in (self.start..self.end).step_by(PANEL_ROWS) {
                    let slab = Slab { row, rows: PANEL_ROWS.min(self.end - row), col, cols };
                    let ahead = self.ahead::<F>(slab);
                    // SAFETY: the caller's promise, passed on; slab and block are within the matrices.
                    unsafe {
                        token.enter(Expand::<F>(self, slab, PhantomData));
                        token.enter(Multiply(self, slab, block, ahead));
                    }
                }
            }
        }
    }

    /// The weights that follow a panel's: of the next rows, or the first rows' next columns.
    fn ahead<F: Format>(&self, slab: Slab) -> Ahead {
        let (row, col) = match slab.row + PANEL_ROWS {
            row if row < self.end => (row, slab.col),
            _ => (self.start, (slab.col + SLAB_COLS) % self.w.cols.max(1).next_multiple_of(SLAB_COLS)),
        };
        let bytes = slab.cols / (LANES * F::GROUPS) * F::BYTES;
        let step = bytes.div_ceil((slab.cols / LANES).max(1));
        Ahead { start: self.weights::<F>(row, col), row_bytes: self.row_bytes(), rows: PANEL_ROWS, step }
    }

    fn row_bytes(&self) -> usize {
        self.w.bytes.len() / self.w.rows
    }

    /// Element (`row`, `col`) of the tile; `col` starts a block.
    #[inline(always)]
    fn weights<F: Format>(&self, row: usize, col: usize) -> *const u8 {
        self.w.bytes.as_ptr().wrapping_add(row * self.row_bytes() + col / (LANES * F::GROUPS) * F::BYTES)
    }

    /// Row `m` of the panel.
    #[inline(always)]
    fn panel(&self, m: usize) -> *mut f32 {
        self.scratch.wrapping_add(SUMS_LEN + m * PANEL_STRIDE)
    }

    /// The lanes of a weight row, counted from `start`, times activation row `i` of a block.
    #[inline(always)]
    fn sums(&self, row: usize, i: usize) -> *mut f32 {
        self.scratch.wrapping_add((row * BLOCK_ROWS + i) * LANES)
    }
}

impl<F: Format> Kernel for Direct<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let rows = self.0.x.rows;
        for row in (self.0.start..self.0.end).step_by(DIRECT_ROWS) {
            let mut i = 0;
            // SAFETY: the promise of `Matmul`; `i` plus the tile's rows stays within the activations.
            unsafe {
                while i + N <= rows {
                    self.tile::<V, N>(row, i);
                    i += N;
                }
                if i + 2 <= rows {
                    self.tile::<V, 2>(row, i);
                    i += 2;
                }
                if i < rows {
                    self.tile::<V, 1>(row, i);
                }
            }
        }
    }
}

impl<F: Format> Direct<'_, F> {
    /// [`DIRECT_ROWS`] weight rows from `row`, times `N` activation rows from `i`.
    ///
    /// # Safety
    /// What the struct says holds; `row` is within the task, `i + N` within the rows of `x`.
    #[inline(always)]
    unsafe fn tile<V: Vector, const N: usize>(&self, row: usize, i: usize) {
        let Matmul { w, x, y, end, .. } = self.0;
        let rows = DIRECT_ROWS.min(end - row);
        let mut ws = [std::ptr::null(); DIRECT_ROWS];
        let mut xs = [std::ptr::null(); N];
        for m in 0..DIRECT_ROWS {
            // Past the end the last row is multiplied again, for nothing.
            ws[m] = self.0.weights::<F>(row + m.min(rows - 1), 0);
        }
        for n in 0..N {
            xs[n] = x.at(i + n, 0).cast_const();
        }
        // SAFETY: the promise of `Matmul`; all rows are below `end`.
        unsafe {
            let sums = dots::<V, F, DIRECT_ROWS, N>(ws, xs, w.cols);
            for m in 0..rows {
                for n in 0..N {
                    *y.at(i + n, row + m) = sums[m][n];
                }
            }
        }
    }
}

impl<F: Format> Kernel for Expand<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let Self(matmul, Slab { row, rows, col, cols }, _) = self;
        let block_len = LANES * F::GROUPS;
        for m in 0..rows {
            let (from, to) = (matmul.weights::<F>(row + m, col), matmul.panel(m));
            // SAFETY: the promise of `Matmul`; the slab lies within the row, and the panel holds a slab.
            unsafe {
                for block in 0..cols / block_len {
                    let bytes = from.add(block * F::BYTES);
                    let head = F::head::<V>(bytes);
                    for group in 0..F::GROUPS {
                        V::store(F::group(bytes, &head, group), to.add(block * block_len + group * LANES));
                    }
                }
                let (done, rest) = (cols / block_len, cols % block_len);
                if F::GROUPS == 1 && rest > 0 {
                    let weights = group_part::<V, F>(from.add(done * F::BYTES), rest);
                    store_part(weights, to.add(done * block_len), rest);
                }
            }
        }
    }
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        const { assert!(PANEL_ROWS.is_multiple_of(M)) };
        for m in (0..self.1.rows).step_by(M) {
            let mut i = 0;
            // SAFETY: the promise of the struct; `i` plus the tile's rows stays within the block, and the panel has
            // whole tiles.
            unsafe {
                while i + N <= self.2.count {
                    self.tile::<V, M, N>(m, i);
                    i += N;
                }
                if i + 2 <= self.2.count {
                    self.tile::<V, M, 2>(m, i);
                    i += 2;
                }
                if i < self.2.count {
                    self.tile::<V, M, 1>(m, i);
                }
            }
        }
    }
}

impl Multiply<'_> {
    /// `M` rows of the panel from `m`, times `N` activation rows of the block from `i`. Panel rows that the slab lacks
    /// hold old values; their sums have a place, but are not used.
    ///
    /// # Safety
    /// What the struct says holds; `m + M` is within the panel, `i + N` within the block.
    #[inline(always)]
    unsafe fn tile<V: Vector, const M: usize, const N: usize>(&self, m: usize, i: usize) {
        let Self(matmul, slab, block, ahead) = *self;
        let row = slab.row - matmul.start + m;
        let mut w = [std::ptr::null::<u8>(); M];
        let mut x = [std::ptr::null(); N];
        for a in 0..M {
            w[a] = matmul.panel(m + a).cast_const().cast();
        }
        for b in 0..N {
            x[b] = matmul.x.at(block.first + i + b, slab.col).cast_const();
        }
        // SAFETY: the promise of the struct.
        unsafe {
            let mut sums: Sums<V, M, N> = [[V::splat(0.0); N]; M];
            if slab.col > 0 {
                for a in 0..M {
                    for b in 0..N {
                        sums[a][b] = V::load(matmul.sums(row + a, i + b));
                    }
                }
            }
            accumulate::<V, F32, M, N>(
                &mut sums,
                w,
                x,
                slab.cols,
                share(ahead, (m, M), (i / N, block.count / N)),
            );
            let last = slab.col + slab.cols == matmul.w.cols;
            for a in 0..M {
                for b in 0..N {
                    if !last {
                        V::store(sums[a][b], matmul.sums(row + a, i + b));
                    } else if m + a < slab.rows {
                        *matmul.y.at(block.first + i + b, slab.row + m + a) = V::reduce(sums[a][b]);
                    }
                }
            }
        }
    }
}

/// The part of what is to be fetched that falls to one tile: some of the rows `m .. m + rows`, spread over the tiles
/// that use them.
#[inline(always)]
fn share(ahead: Ahead, (m, rows): (usize, usize), (tile, tiles): (usize, usize)) -> Ahead {
    let count = rows.div_ceil(tiles.max(1));
    let first = tile * count;
    let start = ahead.start.wrapping_add((m + first) * ahead.row_bytes);
    Ahead { start, rows: count.min(rows.saturating_sub(first)), ..ahead }
}
