//! Matrices as kernels see them, and the inner sum that matmul and attention share.

use std::mem::MaybeUninit;

use aerostat_backend::View;

use crate::format::{Format, group_at};
use crate::vector::{LANES, Vector, load_part};

/// A matrix in a buffer, to be read and written by many threads.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    start: *mut f32,
    stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

// SAFETY: a pointer into a buffer that outlives the job; the tasks of a job write disjoint elements, and none that
// another task reads (outputs are apart from inputs, or the same element by element).
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl From<View<'_>> for Rows {
    fn from(view: View<'_>) -> Self {
        Self { start: view.as_ptr(), stride: view.stride(), rows: view.rows(), cols: view.cols() }
    }
}

impl Rows {
    /// Without the columns before `col`.
    pub(crate) fn columns_from(self, col: usize) -> Self {
        Self { start: self.at(0, col), cols: self.cols.saturating_sub(col), ..self }
    }

    /// Element (`row`, `col`), which must exist for the pointer to be used.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize, col: usize) -> *mut f32 {
        self.start.wrapping_add(row * self.stride + col)
    }
}

/// Sums of products of `M` weight rows and `N` rows of f32.
pub(crate) type Sums<V, const M: usize, const N: usize> = [[V; N]; M];

/// Adds `w[m][k] * x[n][k]` for all `k < len` to the lanes of `sums[m][n]`, in canonical order. What lies `ahead` bytes
/// after the weights (modulo the address space) is fetched meanwhile, unless `ahead` is 0.
///
/// # Safety
/// As [`Vector`]; each `w` is valid for `len` elements in format `F`, each `x` for `len` f32; `len` is whole blocks if
/// `F` is neither plain nor [filled](Format::FILLED).
#[inline(always)]
pub(crate) unsafe fn accumulate<V: Vector, F: Format, const M: usize, const N: usize>(
    sums: &mut Sums<V, M, N>,
    w: [*const u8; M],
    x: [*const f32; N],
    len: usize,
    ahead: usize,
) {
    let block_len = LANES * F::GROUPS;
    // SAFETY: all accesses are below `len`, by the caller's promise within the rows.
    unsafe {
        let blocks = len / block_len;
        let chunks = F::GROUPS / F::CHUNK;
        // While a large block is multiplied the heads of the next one are decoded, some rows with each chunk: decoding
        // waits for other parts of the core than multiplying does. It takes registers besides.
        let is_early = chunks > 2 && V::REGISTERS >= 32;
        let decoded = if is_early { M.div_ceil(chunks) } else { M };
        let mut heads = [[const { MaybeUninit::uninit() }; M]; 2];
        for m in 0..M {
            if is_early && blocks > 0 {
                heads[0][m].write(F::head::<V>(w[m]));
            }
        }
        for block in 0..blocks {
            let (current, other) = if is_early { (block % 2, (block + 1) % 2) } else { (0, 0) };
            let next = if is_early { (block + 1).min(blocks - 1) } else { block };
            // Once for each cache line.
            if ahead > 0 && (F::BYTES >= 64 || block.is_multiple_of(64 / F::BYTES)) {
                for m in 0..M {
                    let from = w[m].wrapping_add(block * F::BYTES).wrapping_add(ahead);
                    prefetch::<V>(from, F::BYTES);
                }
            }
            for chunk in 0..chunks {
                for m in chunk * decoded..M.min((chunk + 1) * decoded) {
                    heads[other][m].write(F::head::<V>(w[m].add(next * F::BYTES)));
                }
                if F::GROUPS > 1 {
                    V::settle(&mut heads);
                }
                // Rows take turns as often as they can, so that their sums do not wait for themselves.
                for m in 0..M {
                    let head = heads[current][m].assume_init_ref();
                    for group in chunk * F::CHUNK..(chunk + 1) * F::CHUNK {
                        let weights: V = F::group(w[m].add(block * F::BYTES), head, group);
                        for n in 0..N {
                            let xs = V::load(x[n].add(block * block_len + group * LANES));
                            sums[m][n] = V::mul_add(weights, xs, sums[m][n]);
                        }
                    }
                }
            }
        }
        if F::GROUPS == 1 || F::FILLED {
            accumulate_end::<V, F, M, N>(sums, w, x, len);
        }
    }
}

/// The part of [`accumulate`] after the last whole block.
///
/// # Safety
/// As [`accumulate`].
#[inline(always)]
unsafe fn accumulate_end<V: Vector, F: Format, const M: usize, const N: usize>(
    sums: &mut Sums<V, M, N>,
    w: [*const u8; M],
    x: [*const f32; N],
    len: usize,
) {
    let rest = len % F::LEN;
    for m in 0..M {
        for col in (len - rest..len).step_by(LANES) {
            let part = LANES.min(len - col);
            // SAFETY: the caller's promise; what a filled row holds after `len` is zero.
            unsafe {
                let weights: V = group_at::<V, F>(w[m], col, part);
                for n in 0..N {
                    let xs = load_part(x[n].add(col), part, 0.0);
                    sums[m][n] = V::mul_add(weights, xs, sums[m][n]);
                }
            }
        }
    }
}

/// The canonical dot products of `M` weight rows and `N` rows of f32.
///
/// # Safety
/// As [`accumulate`].
#[inline(always)]
pub(crate) unsafe fn dots<V: Vector, F: Format, const M: usize, const N: usize>(
    w: [*const u8; M],
    x: [*const f32; N],
    len: usize,
    ahead: usize,
) -> [[f32; N]; M] {
    let mut out = [[0.0; N]; M];
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        accumulate::<V, F, M, N>(&mut sums, w, x, len, ahead);
        for n in 0..N {
            if M.is_multiple_of(4) {
                for first in (0..M).step_by(4) {
                    let mut four = [sums[first][n]; 4];
                    for m in 1..4 {
                        four[m] = sums[first + m][n];
                    }
                    let four = V::reduce_four(four);
                    for m in 0..4 {
                        out[first + m][n] = four[m];
                    }
                }
            } else {
                for m in 0..M {
                    out[m][n] = V::reduce(sums[m][n]);
                }
            }
        }
    }
    out
}

/// Asks for the cache lines of `len` bytes.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(crate) unsafe fn prefetch<V: Vector>(from: *const u8, len: usize) {
    for at in (0..len).step_by(64) {
        // SAFETY: the caller's promise; the address need not be valid.
        unsafe { V::prefetch(from.wrapping_add(at)) };
    }
}
