//! Weights whose scales lie apart: some at a time are expanded to f32, which the second-level cache holds, and multiplied
//! from there. Of a matrix stored by outputs some rows are expanded, of one stored by inputs some columns of some rows.
//!
//! What a code stands for is looked up, a byte at a time, where bytes hold whole codes of a row.

use std::ops::Range;

use aerostat_backend::quantised::{self, Code, Quantised, Rounding};
use aerostat_backend::{ScalingView, Tile};
use aerostat_checkpoint::DType;

use crate::isa::{Kernel, Token};
use crate::rows::Rows;
use crate::vector::{LANES, Vector};

/// Weight rows of a task, unless they are wide: whole tiles of the kernels that multiply them.
const TASK_ROWS: usize = 24;
/// Elements of a task's expanded rows, unless one row has more.
const TASK_LEN: usize = 128 << 10;
/// Inputs that are expanded at a time where a matrix is stored by inputs, for the outputs of a task.
pub(crate) const TASK_INPUTS: usize = 256;

/// What every byte of codes stands for.
pub(crate) enum Values {
    /// One element.
    One(Box<[f32; 256]>),
    /// Two elements; and what four bits stand for, with those of the first element.
    Two(Box<[[f32; 2]; 256]>, [f32; LANES], Nibble),
    /// Elements are not whole parts of bytes, or not of one row.
    Neither,
}

/// Four bits of a byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nibble {
    Low,
    High,
}

/// How the codes of a tile are expanded.
#[derive(Clone, Copy)]
pub(crate) struct Expand<'a> {
    pub(crate) w: Tile<'a>,
    pub(crate) quantised: Quantised,
    pub(crate) values: &'a Values,
    pub(crate) scales: Rows,
    pub(crate) zeros: Option<Rows>,
    pub(crate) groups: Option<Rows>,
    /// Rows and columns of a block.
    pub(crate) blocks: (usize, usize),
    pub(crate) first_row: usize,
    /// Elements of a stored row.
    pub(crate) cols: usize,
    /// Stored rows are inputs.
    pub(crate) by_inputs: bool,
}

/// Some stored rows of a tile of codes and some of their columns, from an even one on (of [`Code::Halves`], a whole word), to
/// be expanded to `out`, which is valid for so many f32.
pub(crate) struct Expanded<'a> {
    pub(crate) from: Expand<'a>,
    pub(crate) rows: Range<usize>,
    pub(crate) cols: Range<usize>,
    pub(crate) out: *mut f32,
}

/// Weight rows of a task, where each has `cols` elements.
pub(crate) fn task_rows(cols: usize) -> usize {
    (TASK_LEN / cols.max(1)).clamp(1, TASK_ROWS)
}

impl Values {
    /// `centred`: there are no zero points.
    pub(crate) fn new(code: Code, centred: bool) -> Self {
        let elements = 8 / code.bits();
        let is_by_row = !matches!(code, Code::Columns(_) | Code::Halves);
        if 8 % code.bits() != 0 || elements > 2 || !is_by_row {
            return Self::Neither;
        }
        let mut all = [[0.0; 2]; 256];
        for (byte, values) in all.iter_mut().enumerate() {
            quantised::look_up(code, &[byte as u8], 0, centred, &mut values[..elements]);
        }
        match elements {
            1 => Self::One(Box::new(all.map(|[value, _]| value))),
            _ => {
                let nibble = if let Code::HighFirst(_) = code { Nibble::High } else { Nibble::Low };
                let byte = |i: usize| if nibble == Nibble::High { i << 4 } else { i };
                Self::Two(Box::new(all), std::array::from_fn(|i| all[byte(i)][0]), nibble)
            }
        }
    }
}

impl<'a> Expand<'a> {
    /// Of a tile whose stored rows have `cols` elements.
    pub(crate) fn new(w: Tile<'a>, scaling: &ScalingView<'_>, cols: usize, values: &'a Values) -> Self {
        let ScalingView { quantised, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
        let (scales, zeros, groups) = (scales.into(), zeros.map(Rows::from), groups.map(Rows::from));
        let blocks = (block_rows, block_cols);
        Self { w, quantised, values, scales, zeros, groups, blocks, first_row, cols, by_inputs: false }
    }
}

impl<'a> Expanded<'a> {
    /// Expands, and gives the tile that it is now.
    ///
    /// # Safety
    /// The operands were checked, rows and columns are the tile's, and `out` is valid for `'a`.
    pub(crate) unsafe fn tile(self, token: Token) -> Tile<'a> {
        let (rows, cols, out) = (self.rows.len(), self.cols.len(), self.out);
        // SAFETY: the caller's promise; any f32 is four bytes.
        unsafe {
            token.enter(self);
            let bytes = std::slice::from_raw_parts(out.cast::<u8>(), rows * cols * size_of::<f32>());
            Tile { dtype: DType::F32, rows, cols, bytes }
        }
    }

    /// The codes of a row, or of the run of rows it is in.
    #[inline(always)]
    fn codes(&self, row: usize) -> &[u8] {
        let code = self.from.quantised.code;
        let (run_rows, run) = code.run();
        let run_bytes = code.row_bytes(self.from.cols) * run_rows;
        &self.from.w.bytes[row / run * run_bytes..][..run_bytes]
    }

    /// What the codes of a row stand for.
    #[inline(always)]
    fn look_up(&self, row: usize, out: &mut [f32]) {
        let Expand { quantised, values, cols: all, zeros, .. } = self.from;
        let (codes, run, first) = (self.codes(row), quantised.code.run().1, self.cols.start);
        match (values, quantised.code) {
            (Values::One(values), _) => {
                for (out, code) in out.iter_mut().zip(&codes[first..]) {
                    *out = values[usize::from(*code)];
                }
            }
            (Values::Two(values, ..), _) => {
                let codes = &codes[first / 2..];
                let (pairs, last) = out.as_chunks_mut::<2>();
                for (out, code) in pairs.iter_mut().zip(codes) {
                    *out = values[usize::from(*code)];
                }
                if let ([last], Some(code)) = (last, codes.get(pairs.len())) {
                    *last = values[usize::from(*code)][0];
                }
            }
            (Values::Neither, Code::Columns(bits)) => columns(bits, codes, row % run, all, first, out),
            (Values::Neither, Code::Halves) => halves(&codes[first / 2..], out),
            (Values::Neither, code) => quantised::look_up(code, codes, row % run, zeros.is_none(), out),
        }
        if let (Code::Columns(_) | Code::Halves, None) = (quantised.code, zeros) {
            let middle = quantised::middle(quantised.code);
            out.iter_mut().for_each(|out| *out -= middle);
        }
    }
}

impl Kernel for Expanded<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let Expand { quantised, scales, zeros, groups, blocks, first_row, by_inputs, .. } = self.from;
        let (block_rows, block_cols) = blocks;
        // SAFETY: the promise of the struct: groups were checked to have this place. Those by index may be anything.
        let index = |rows: Rows, i: usize| unsafe { *rows.at(0, i) as usize };
        for row in self.rows.clone() {
            let block = match groups {
                Some(groups) if by_inputs => index(groups, first_row + row).min(scales.rows - 1),
                _ => (first_row + row) / block_rows,
            };
            let len = self.cols.len();
            // SAFETY: the promise of the struct; the row of blocks has been checked to exist.
            let (out, of_row) = unsafe {
                let of_row =
                    |rows: Rows| std::slice::from_raw_parts(rows.at(block, 0).cast_const(), rows.cols);
                (std::slice::from_raw_parts_mut(self.out.add((row - self.rows.start) * len), len), of_row)
            };
            let (scales, zeros) = (of_row(scales), zeros.map(of_row));
            if let (Values::Two(_, table, nibble), None) = (self.from.values, groups)
                && !by_inputs
                && len.is_multiple_of(LANES)
                && block_cols.is_multiple_of(LANES)
            {
                // SAFETY: the promise of the trait.
                unsafe {
                    by_table::<V>(
                        table,
                        *nibble,
                        self.codes(row),
                        (block_cols, scales, zeros),
                        quantised,
                        out,
                    )
                };
                continue;
            }
            self.look_up(row, out);
            match groups {
                Some(groups) if !by_inputs => {
                    for (out, col) in out.iter_mut().zip(self.cols.clone()) {
                        let group = index(groups, col).min(scales.len() - 1);
                        *out = (*out - zeros.map_or(0.0, |zeros| zeros[group])) * scales[group];
                    }
                }
                _ if block_cols == 1 => {
                    let zeros = zeros.map(|zeros| &zeros[self.cols.clone()]);
                    scale_each(out, zeros, &scales[self.cols.clone()]);
                }
                _ => {
                    let (mut rest, mut col) = (&mut *out, self.cols.start);
                    while !rest.is_empty() {
                        let part;
                        let block = col / block_cols;
                        (part, rest) = rest.split_at_mut(rest.len().min(block_cols - col % block_cols));
                        col += part.len();
                        let zero = zeros.map_or(0.0, |zeros| zeros[block]);
                        part.iter_mut().for_each(|out| *out = (*out - zero) * scales[block]);
                    }
                }
            }
            finish(out, quantised);
        }
    }
}

/// The codes of input `within` of a run, for the outputs from `first` on of `all`.
#[inline(always)]
fn columns(bits: u32, codes: &[u8], within: usize, all: usize, first: usize, out: &mut [f32]) {
    let (word, shift) = (within * bits as usize / 32, (within * bits as usize % 32) as u32);
    let mask = (1u32 << bits) - 1;
    let row = |word: usize| codes[(word * all + first) * 4..].as_chunks::<4>().0;
    let low = row(word);
    if shift + bits <= 32 {
        for (out, low) in out.iter_mut().zip(low) {
            *out = (u32::from_le_bytes(*low) >> shift & mask) as i32 as f32;
        }
        return;
    }
    for ((out, low), high) in out.iter_mut().zip(low).zip(row(word + 1)) {
        let both = u32::from_le_bytes(*low) >> shift | u32::from_le_bytes(*high) << (32 - shift);
        *out = (both & mask) as i32 as f32;
    }
}

/// The codes of an input, from a whole word on; `out` is whole words.
#[inline(always)]
fn halves(codes: &[u8], out: &mut [f32]) {
    const SHIFTS: [usize; 8] = {
        let (mut shifts, mut i) = ([0; 8], 0);
        while i < 8 {
            shifts[i] = quantised::halves_shift(i);
            i += 1;
        }
        shifts
    };
    for (out, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks().0) {
        let word = u32::from_le_bytes(*word);
        for (out, shift) in out.iter_mut().zip(SHIFTS) {
            *out = (word >> shift & 15) as i32 as f32;
        }
    }
}

/// A row of codes of four bits, where whole vectors share a scale: what the sixteen stand for is scaled and rounded, not each
/// element.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn by_table<V: Vector>(
    table: &[f32; LANES],
    nibble: Nibble,
    codes: &[u8],
    (block_cols, scales, zeros): (usize, &[f32], Option<&[f32]>),
    quantised: Quantised,
    out: &mut [f32],
) {
    let blocks = out.chunks_mut(block_cols).zip(codes.chunks(block_cols / 2));
    for (block, (out, codes)) in blocks.enumerate() {
        let zero = match zeros {
            Some(zeros) => zeros[block],
            None => 0.0,
        };
        let mut scaled = *table;
        for value in &mut scaled {
            *value = (*value - zero) * scales[block];
        }
        finish(&mut scaled, quantised);
        // SAFETY: the caller's promise; arrays of sixteen.
        unsafe {
            let scaled = V::load(scaled.as_ptr());
            for (out, codes) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(codes.as_chunks::<8>().0) {
                let mut indices = [0u8; LANES];
                for i in 0..8 {
                    let (low, high) = (codes[i] & 15, codes[i] >> 4);
                    let is_low = nibble as u8 == Nibble::Low as u8;
                    (indices[2 * i], indices[2 * i + 1]) = if is_low { (low, high) } else { (high, low) };
                }
                V::store(V::choose(scaled, V::unsigned(indices.as_ptr())), out.as_mut_ptr());
            }
        }
    }
}

/// Each element by its own zero and scale.
#[inline(always)]
fn scale_each(out: &mut [f32], zeros: Option<&[f32]>, scales: &[f32]) {
    match zeros {
        Some(zeros) => {
            for ((out, zero), scale) in out.iter_mut().zip(zeros).zip(scales) {
                *out = (*out - zero) * scale;
            }
        }
        None => out.iter_mut().zip(scales).for_each(|(out, scale)| *out *= scale),
    }
}

/// What is done to scaled elements; written out, so that it is done many at a time.
#[inline(always)]
fn finish(out: &mut [f32], quantised: Quantised) {
    if quantised.factor != 1.0 {
        out.iter_mut().for_each(|out| *out *= quantised.factor);
    }
    match quantised.rounding {
        Rounding::F32 => {}
        Rounding::BF16 => {
            for out in out {
                let bits = out.to_bits();
                let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
                let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
                *out = f32::from_bits(if is_nan { bits } else { rounded });
            }
        }
        Rounding::F16 => {
            for out in out {
                let bits = out.to_bits();
                let size = bits & 0x7fff_ffff;
                // Thirteen bits go; beyond the largest that rounds to a finite one is infinity. Below 2^-14 there are only
                // multiples of 2^-24, which is the distance of values from 0.5 to 1.
                let rounded = bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff;
                let small = (f32::from_bits(size) + 0.75 - 0.75).to_bits() | bits & 0x8000_0000;
                let large = if size > 0x7f80_0000 { bits } else { 0x7f80_0000 | bits & 0x8000_0000 };
                let bits = if size >= 0x477f_f000 { large } else { rounded };
                *out = f32::from_bits(if size < 0x3880_0000 { small } else { bits });
            }
        }
    }
}
