//! Weights whose scales lie apart: some rows at a time are expanded to f32, which the second-level cache holds, and
//! multiplied from there.
//!
//! What a code stands for is looked up, a byte at a time, so that all codes go the same way.

use aerostat_backend::Tile;
use aerostat_backend::coded::{self, Code, Coding, Groups, Rounding};
use aerostat_checkpoint::DType;

use crate::isa::Kernel;
use crate::rows::Rows;
use crate::vector::Vector;

/// Weight rows of a task, unless they are wide: whole tiles of the kernels that multiply them.
const TASK_ROWS: usize = 24;
/// Elements of a task's expanded rows, unless one row has more; `aerostat-plan` counts them for each thread.
const TASK_LEN: usize = 128 << 10;

/// What every byte of codes stands for.
pub(crate) enum Values {
    /// One element.
    One(Box<[f32; 256]>),
    /// Two elements.
    Two(Box<[[f32; 2]; 256]>),
    /// Elements are not whole parts of bytes.
    Neither,
}

/// Rows `start .. end` of a tile of codes, to be expanded to `out`, which is valid for `end - start` rows of `cols` f32.
#[derive(Clone, Copy)]
pub(crate) struct ScaledRows<'a> {
    pub(crate) w: Tile<'a>,
    pub(crate) coding: Coding,
    pub(crate) values: &'a Values,
    pub(crate) scales: Rows,
    /// Rows and columns of a block.
    pub(crate) blocks: (usize, usize),
    pub(crate) first_row: usize,
    pub(crate) cols: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) out: *mut f32,
}

/// Weight rows of a task, where each has `cols` elements.
pub(crate) fn task_rows(cols: usize) -> usize {
    (TASK_LEN / cols.max(1)).clamp(1, TASK_ROWS)
}

impl Values {
    pub(crate) fn new(code: Code) -> Self {
        let elements = 8 / code.bits();
        if 8 % code.bits() != 0 || elements > 2 {
            return Self::Neither;
        }
        // Expanded alone, with a scale of one, a code is what it stands for.
        let coding = Coding { code, factor: 1.0, rounding: Rounding::F32 };
        let mut all = [[0.0; 2]; 256];
        for (byte, values) in all.iter_mut().enumerate() {
            let codes = [byte as u8, 0, 0, 0];
            let groups = Groups { len: 2, scales: &[1.0], zeros: &[] };
            let expanded =
                coded::expand(&coding, &codes[..code.row_bytes(elements)], groups, &mut values[..elements]);
            debug_assert!(expanded.is_ok(), "one byte of codes");
        }
        match elements {
            1 => Self::One(Box::new(all.map(|[value, _]| value))),
            _ => Self::Two(Box::new(all)),
        }
    }
}

impl<'a> ScaledRows<'a> {
    /// The expanded rows as a tile.
    ///
    /// # Safety
    /// They have been expanded, and `out` is valid for `'a`.
    pub(crate) unsafe fn expanded(&self) -> Tile<'a> {
        let rows = self.end - self.start;
        // SAFETY: the caller's promise; any f32 is four bytes.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.out.cast::<u8>(), rows * self.cols * size_of::<f32>()) };
        Tile { dtype: DType::F32, rows, cols: self.cols, bytes }
    }

    fn codes(&self, row: usize) -> &[u8] {
        let row_bytes = self.coding.code.row_bytes(self.cols);
        &self.w.bytes[row * row_bytes..][..row_bytes]
    }
}

impl Kernel for ScaledRows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let Self {
            coding,
            values,
            scales,
            blocks: (block_rows, block_cols),
            first_row,
            cols,
            start,
            end,
            out,
            ..
        } = self;
        for row in start..end {
            let codes = self.codes(row);
            let block = (first_row + row) / block_rows;
            // SAFETY: the promise of the struct; the row of blocks has been checked to exist.
            let (out, scales) = unsafe {
                (
                    std::slice::from_raw_parts_mut(out.add((row - start) * cols), cols),
                    std::slice::from_raw_parts(scales.at(block, 0).cast_const(), scales.cols),
                )
            };
            match values {
                Values::One(values) => {
                    for (out, code) in out.iter_mut().zip(codes) {
                        *out = values[usize::from(*code)];
                    }
                }
                Values::Two(values) => {
                    let (pairs, last) = out.as_chunks_mut::<2>();
                    for (out, code) in pairs.iter_mut().zip(codes) {
                        *out = values[usize::from(*code)];
                    }
                    if let ([last], Some(code)) = (last, codes.get(pairs.len())) {
                        *last = values[usize::from(*code)][0];
                    }
                }
                Values::Neither => {
                    let groups = Groups { len: block_cols, scales, zeros: &[] };
                    let expanded = coded::expand(&coding, codes, groups, out);
                    debug_assert!(expanded.is_ok(), "codes and scales were checked");
                    continue;
                }
            }
            for (out, &scale) in out.chunks_mut(block_cols).zip(scales) {
                scale_block(out, scale, coding);
            }
        }
    }
}

/// Scales and rounds some elements.
#[inline(always)]
fn scale_block(out: &mut [f32], scale: f32, coding: Coding) {
    match coding.rounding {
        // Written out, so that it is done many at a time.
        Rounding::BF16 => {
            for out in out {
                let bits = (*out * scale * coding.factor).to_bits();
                let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
                let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
                *out = f32::from_bits(if is_nan { bits } else { rounded });
            }
        }
        rounding => {
            for out in out {
                *out = rounding.round(*out * scale * coding.factor);
            }
        }
    }
}
