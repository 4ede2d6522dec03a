//! Weights times activations.
//!
//! A task is some weight rows and all activation rows. A few activation rows are multiplied straight from the
//! stored weights, which are expanded in registers. For more, some weight rows at a time are expanded to a
//! panel of f32 in the first-level cache, which all activation rows of a block then use; these are packed before, so
//! that their stride does not matter. `K` is cut into slabs there, the sums waiting in scratch between slabs: the
//! order of additions stays the canonical one.

use std::marker::PhantomData;

use aerostat_backend::Tile;

use crate::format::{Format, group_part};
use crate::isa::{Kernel, Token};
use crate::rows::{Rows, Sums, dots, prefetch};
use crate::vector::{LANES, Vector, load_part};

/// Weight rows of a task.
const TASK_ROWS: usize = 24;
/// The same for one activation row: what a task fetches ahead at its end is another thread's, so ends should be few.
const TASK_ROWS_ONE: usize = 64;
/// Weight rows of a task that uses panels: activations are packed once for all of them.
const PANEL_TASK_ROWS: usize = 96;
/// Activation rows of a block: with a slab's columns they stay in the second-level cache.
const BLOCK_ROWS: usize = 64;
/// Columns of a slab, whole blocks of every format: a panel fills three quarters of the first-level cache, and activations
/// stream past it. With half of that, sums go to scratch and back twice as often: 4 to 7 % slower.
const SLAB_COLS: usize = 1024;
/// Weight rows of a panel; whole tiles of every instruction set.
const PANEL_ROWS: usize = 6;
/// Activation rows from what is packed to what is fetched.
const PACK_AHEAD_ROWS: usize = 2;
/// Weight rows that are multiplied at a time without a panel.
const DIRECT_ROWS: usize = 4;
/// The same for one activation row and a plain format, where registers allow: more rows keep more of memory's reads under
/// way, by a tenth.
const DIRECT_ROWS_ONE: usize = 8;
/// Activation rows that all weight rows of a task use before the next ones, without a panel.
const DIRECT_BLOCK_ROWS: usize = 16;
const _: () = assert!((TASK_ROWS_ONE / 4).is_multiple_of(DIRECT_ROWS_ONE));
const _: () = assert!((TASK_ROWS / 3).is_multiple_of(DIRECT_ROWS));
const _: () = assert!((PANEL_TASK_ROWS / 2).is_multiple_of(PANEL_ROWS) && SLAB_COLS.is_multiple_of(256));

const SUMS_LEN: usize = PANEL_TASK_ROWS * BLOCK_ROWS * LANES;
const PANEL_LEN: usize = PANEL_ROWS * SLAB_COLS;
/// Scratch of a thread in f32: the sums, the panel, the packed activations.
pub(crate) const SCRATCH_LEN: usize = SUMS_LEN + PANEL_LEN + BLOCK_ROWS * SLAB_COLS;

/// Rows `start .. end`, those of one of its [`Tasks`], of a weight tile times all rows of `x`, to the columns `start .. end` of
/// `y`. The tile's shape fits `x` and `y`, and `scratch` is valid for [`SCRATCH_LEN`] elements.
#[derive(Clone, Copy)]
pub(crate) struct Matmul<'a> {
    pub(crate) w: Tile<'a>,
    pub(crate) x: Rows,
    pub(crate) y: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) scratch: *mut f32,
    /// What to fetch meanwhile, so far from the bytes of each row; the rows that follow when `None`.
    pub(crate) ahead: Option<usize>,
}

/// A [`Matmul`] without a panel.
struct Direct<'a, F>(Matmul<'a>, PhantomData<F>);

/// Part of a [`Matmul`]: packs the columns of a slab of a block's activation rows, tile by tile as they are multiplied.
struct Pack<'a>(Matmul<'a>, Slab, Block);

/// Part of a [`Matmul`]: expands columns `col .. col + cols` of `rows` weight rows from `row` to the panel.
struct Expand<'a, F>(Matmul<'a>, Slab, PhantomData<F>);

/// Part of a [`Matmul`]: multiplies the panel with the packed activation rows of a block.
struct Multiply<'a>(Matmul<'a>, Slab, Block);

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

/// How the rows of a weight tile are cut into tasks: even ones, and smaller ones towards the end, so that all threads end
/// at about the same time.
#[derive(Clone, Copy)]
pub(crate) struct Tasks {
    rows: usize,
    large: usize,
    large_count: usize,
    small: usize,
}

impl Tasks {
    /// Of a tile of `weight_rows` that multiplies `rows` activation rows on so many threads.
    pub(crate) fn new<F: Format>(token: Token, weight_rows: usize, rows: usize, threads: usize) -> Self {
        let (large, small) = match rows {
            0 | 1 => (TASK_ROWS_ONE, TASK_ROWS_ONE / 4),
            _ if is_direct::<F>(token, rows) => (TASK_ROWS, TASK_ROWS / 3),
            _ => (PANEL_TASK_ROWS, PANEL_TASK_ROWS / 2),
        };
        let large_count = match threads {
            1 => weight_rows.div_ceil(large),
            _ => weight_rows.saturating_sub(threads * large) / large,
        };
        Self { rows: weight_rows, large, large_count, small }
    }

    pub(crate) fn count(self) -> usize {
        self.large_count + self.rows.saturating_sub(self.large_count * self.large).div_ceil(self.small)
    }

    /// First row of a task, and the one after its last.
    pub(crate) fn range(self, task: usize) -> (usize, usize) {
        let (start, rows) = match task.checked_sub(self.large_count) {
            None => (task * self.large, self.large),
            Some(small) => (self.large_count * self.large + small * self.small, self.small),
        };
        (start, self.rows.min(start + rows))
    }
}

fn is_direct<F: Format>(token: Token, rows: usize) -> bool {
    rows <= token.direct_rows_max(F::GROUPS > 1)
}

impl Matmul<'_> {
    /// Does the work.
    ///
    /// # Safety
    /// What the struct says holds, and `F` is the format of the tile.
    pub(crate) unsafe fn run<F: Format>(self, token: Token) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            if is_direct::<F>(token, self.x.rows) {
                token.enter(Direct::<F>(self, PhantomData))
            } else {
                self.by_panels::<F>(token)
            }
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
                    // SAFETY: the caller's promise, passed on; slab and block are within the matrices.
                    unsafe {
                        if row == self.start {
                            token.enter(Pack(self, slab, block));
                        }
                        token.enter(Expand::<F>(self, slab, PhantomData));
                        token.enter(Multiply(self, slab, block));
                    }
                }
            }
        }
    }

    fn row_bytes(&self) -> usize {
        self.w.bytes.len() / self.w.rows
    }

    /// Element (`row`, `col`) of the tile; `col` starts a block.
    #[inline(always)]
    fn weights<F: Format>(&self, row: usize, col: usize) -> *const u8 {
        self.w.bytes.as_ptr().wrapping_add(row * self.row_bytes() + col / (LANES * F::GROUPS) * F::BYTES)
    }

    /// Columns `LANES * step ..` of row `m` of the panel: tiles of `M` rows, of which the same columns lie together.
    #[inline(always)]
    fn panel<const M: usize>(&self, m: usize, step: usize) -> *mut f32 {
        self.scratch.wrapping_add(SUMS_LEN + m / M * M * SLAB_COLS + (step * M + m % M) * LANES)
    }

    /// The same of row `i` of the packed activations.
    #[inline(always)]
    fn packed<const N: usize>(&self, i: usize, step: usize) -> *mut f32 {
        let start = SUMS_LEN + PANEL_LEN;
        self.scratch.wrapping_add(start + i / N * N * SLAB_COLS + (step * N + i % N) * LANES)
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
        const { assert!(DIRECT_BLOCK_ROWS.is_multiple_of(N) && N <= 4) };
        if self.0.x.rows == 1 && F::GROUPS == 1 && V::REGISTERS >= 2 * DIRECT_ROWS_ONE {
            for row in (self.0.start..self.0.end).step_by(DIRECT_ROWS_ONE) {
                // SAFETY: the promise of `Matmul`.
                unsafe { self.tile::<V, DIRECT_ROWS_ONE, 1>(row, 0) };
            }
            return;
        }
        for first in (0..self.0.x.rows).step_by(DIRECT_BLOCK_ROWS) {
            let end = self.0.x.rows.min(first + DIRECT_BLOCK_ROWS);
            for row in (self.0.start..self.0.end).step_by(DIRECT_ROWS) {
                for i in (first..end).step_by(N) {
                    // SAFETY: the promise of `Matmul`; `i` plus the tile's rows stays within the activations.
                    unsafe {
                        match end - i {
                            1 => self.tile::<V, DIRECT_ROWS, 1>(row, i),
                            2 if N > 2 => self.tile::<V, DIRECT_ROWS, 2>(row, i),
                            3 if N > 3 => self.tile::<V, DIRECT_ROWS, 3>(row, i),
                            _ => self.tile::<V, DIRECT_ROWS, N>(row, i),
                        }
                    }
                }
            }
        }
    }
}

impl<F: Format> Direct<'_, F> {
    /// `R` weight rows from `row`, times `N` activation rows from `i`.
    ///
    /// # Safety
    /// What the struct says holds; `row` is within the task, `i + N` within the rows of `x`.
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const N: usize>(&self, row: usize, i: usize) {
        let Matmul { w, x, y, end, .. } = self.0;
        let rows = R.min(end - row);
        let mut ws = [std::ptr::null(); R];
        let mut xs = [std::ptr::null(); N];
        for m in 0..R {
            // Past the end the last row is multiplied again, for nothing.
            ws[m] = self.0.weights::<F>(row + m.min(rows - 1), 0);
        }
        for n in 0..N {
            xs[n] = x.at(i + n, 0).cast_const();
        }
        // Fetched while the first activations are multiplied.
        let ahead = if i == 0 { self.0.ahead.unwrap_or(R * self.0.row_bytes()) } else { 0 };
        // SAFETY: the promise of `Matmul`; all rows are below `end`.
        unsafe {
            let sums = dots::<V, F, R, N>(ws, xs, w.cols, ahead);
            for m in 0..rows {
                for n in 0..N {
                    *y.at(i + n, row + m) = sums[m][n];
                }
            }
        }
    }
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        const { assert!(BLOCK_ROWS.is_multiple_of(N)) };
        let Self(matmul, slab, block) = self;
        for i in 0..block.count {
            let from = matmul.x.at(block.first + i, slab.col).cast_const();
            // The rows that follow are fetched meanwhile: a slab's part of a row is too short for the hardware to do so.
            let next = matmul.x.at(block.first + i + PACK_AHEAD_ROWS, slab.col).cast_const();
            // SAFETY: the promise of `Matmul`; the slab lies within the row, and the scratch holds a block.
            unsafe {
                for step in 0..slab.cols / LANES {
                    V::prefetch(next.wrapping_add(step * LANES).cast());
                    V::store(V::load(from.add(step * LANES)), matmul.packed::<N>(i, step));
                }
                let (done, rest) = (slab.cols / LANES, slab.cols % LANES);
                if rest > 0 {
                    let last: V = load_part(from.add(done * LANES), rest, 0.0);
                    V::store(last, matmul.packed::<N>(i, done));
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
            let from = matmul.weights::<F>(row + m, col);
            let next = from.wrapping_add(PANEL_ROWS * matmul.row_bytes());
            // SAFETY: the promise of `Matmul`; the slab lies within the row, and the panel holds a slab.
            unsafe {
                for block in 0..cols / block_len {
                    let bytes = from.add(block * F::BYTES);
                    prefetch::<V>(next.wrapping_add(block * F::BYTES), F::BYTES);
                    let mut head = F::head::<V>(bytes);
                    if F::GROUPS > 1 {
                        V::settle(&mut head);
                    }
                    for chunk in (0..F::GROUPS).step_by(F::CHUNK) {
                        for group in 0..F::CHUNK {
                            let to = matmul.panel::<M>(m, block * F::GROUPS + chunk + group);
                            V::store(F::group(bytes, &head, chunk + group), to);
                        }
                    }
                }
                let (done, rest) = (cols / block_len, cols % block_len);
                if F::GROUPS == 1 && rest > 0 {
                    let weights = group_part::<V, F>(from.add(done * F::BYTES), rest);
                    V::store(weights, matmul.panel::<M>(m, done));
                }
            }
        }
    }
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        const { assert!(PANEL_ROWS.is_multiple_of(M) && N <= 4) };
        for i in (0..self.2.count).step_by(N) {
            for m in (0..self.1.rows).step_by(M) {
                // SAFETY: the promise of the struct; `i` plus the tile's rows stays within the block, and the panel has
                // whole tiles.
                unsafe {
                    match self.2.count - i {
                        1 => self.tile::<V, M, N, 1>(m, i),
                        2 if N > 2 => self.tile::<V, M, N, 2>(m, i),
                        3 if N > 3 => self.tile::<V, M, N, 3>(m, i),
                        _ => self.tile::<V, M, N, N>(m, i),
                    }
                }
            }
        }
    }
}

impl Multiply<'_> {
    /// `M` rows of the panel from `m`, times `R` of the `N` activation rows of a packed tile from `i`. Panel rows that the
    /// slab lacks hold old values; their sums have a place, but are not used.
    ///
    /// # Safety
    /// What the struct says holds; `m + M` is within the panel, `i + R` within the block, `R` at most `N`.
    #[inline(always)]
    unsafe fn tile<V: Vector, const M: usize, const N: usize, const R: usize>(&self, m: usize, i: usize) {
        let Self(matmul, slab, _) = *self;
        let row = slab.row - matmul.start + m;
        // SAFETY: the promise of the struct.
        unsafe {
            let mut sums: Sums<V, M, R> = [[V::splat(0.0); R]; M];
            if slab.col > 0 {
                for a in 0..M {
                    for b in 0..R {
                        sums[a][b] = V::load(matmul.sums(row + a, i + b));
                        V::prefetch(matmul.sums(row + a, i + N + b).cast());
                    }
                }
            }
            let (mut w, mut x) =
                (matmul.panel::<M>(m, 0).cast_const(), matmul.packed::<N>(i, 0).cast_const());
            for _ in 0..slab.cols.div_ceil(LANES) {
                let mut xs = [V::splat(0.0); R];
                for b in 0..R {
                    xs[b] = V::load(x.add(b * LANES));
                }
                for a in 0..M {
                    let weights = V::load(w.add(a * LANES));
                    for b in 0..R {
                        sums[a][b] = V::mul_add(weights, xs[b], sums[a][b]);
                    }
                }
                (w, x) = (w.add(M * LANES), x.add(N * LANES));
            }
            if slab.col + slab.cols < matmul.w.cols {
                for a in 0..M {
                    for b in 0..R {
                        V::store(sums[a][b], matmul.sums(row + a, i + b));
                    }
                }
            } else {
                self.finish(&sums, m, i);
            }
        }
    }

    /// Adds the lanes of complete sums, to `y`.
    ///
    /// # Safety
    /// As [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn finish<V: Vector, const M: usize, const R: usize>(
        &self,
        sums: &Sums<V, M, R>,
        m: usize,
        i: usize,
    ) {
        let Self(matmul, slab, block) = *self;
        for b in 0..R {
            for a in (0..M).step_by(4) {
                let count = 4.min(slab.rows.saturating_sub(m + a)).min(M - a);
                // SAFETY: the caller's promise; `count` rows from `m + a` are within the slab.
                unsafe {
                    let mut four = [sums[M - 1][b]; 4];
                    for k in 0..4.min(M - a) {
                        four[k] = sums[a + k][b];
                    }
                    let four = V::reduce_four(four);
                    for k in 0..count {
                        *matmul.y.at(block.first + i + b, slab.row + m + a + k) = four[k];
                    }
                }
            }
        }
    }
}
