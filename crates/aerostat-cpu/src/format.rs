//! The stored formats, expanded sixteen elements at a time in registers, with the arithmetic of
//! `aerostat_backend::formats`.

#![allow(non_camel_case_types, reason = "the names are those of the formats")]

use crate::memory::Line;
use crate::vector::{LANES, Vector};

/// A stored format.
///
/// # Safety
/// `block` is valid for [`BYTES`](Self::BYTES) bytes; functions of `V` are used, see [`Vector`].
pub(crate) trait Format {
    /// Groups of sixteen elements in a block.
    const GROUPS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Elements of a block.
    const LEN: usize = LANES * Self::GROUPS;
    /// Plain formats: an element that is -0.0, little-endian. Plain formats have one group in a "block" and may end
    /// within it; the others end with a block.
    const PAD: &[u8] = &[];
    /// A row may end within a block, which is whole all the same and holds zeros after the end.
    const FILLED: bool = false;
    /// Groups that share bytes and are best expanded one after the other.
    const CHUNK: usize = 1;
    /// What is decoded once for a block.
    type Head: Copy;

    unsafe fn head<V: Vector>(block: *const u8) -> Self::Head;

    /// Elements `16 * group ..` of a block.
    unsafe fn group<V: Vector>(block: *const u8, head: &Self::Head, group: usize) -> V;
}

/// The first `len < 16` elements of a group of a plain format, and -0.0 after them, which times +0.0 adds nothing.
///
/// # Safety
/// As [`Format`], but `from` is valid for `len` elements only.
#[inline(always)]
pub(crate) unsafe fn group_part<V: Vector, F: Format>(from: *const u8, len: usize) -> V {
    let mut all = [0u8; LANES * size_of::<f32>()];
    for (i, byte) in all.iter_mut().enumerate() {
        *byte = F::PAD[i % F::PAD.len()];
    }
    // SAFETY: the caller's promise; `all` has 16 elements of up to 4 bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), len * F::PAD.len());
        F::group(all.as_ptr(), &F::head::<V>(all.as_ptr()), 0)
    }
}

/// Elements `col .. col + len` of a row, `len ≤ 16` and `col` a multiple of 16; the others are any. Formats of blocks
/// give whole groups: `len` is less only where a row is [filled](Format::FILLED).
///
/// # Safety
/// As [`Format`], but `row` is valid for a row of which these are elements.
#[inline(always)]
pub(crate) unsafe fn group_at<V: Vector, F: Format>(row: *const u8, col: usize, len: usize) -> V {
    let block = row.wrapping_add(col / F::LEN * F::BYTES);
    // SAFETY: the caller's promise.
    unsafe {
        if F::GROUPS == 1 && len < LANES {
            return group_part::<V, F>(block, len);
        }
        let mut head = F::head::<V>(block);
        if F::GROUPS > 1 {
            V::settle(&mut head);
        }
        F::group(block, &head, col % F::LEN / LANES)
    }
}

/// A plain format.
macro_rules! plain {
    ($name:ident, $pad:expr, $bytes:ident => $load:expr) => {
        pub(crate) struct $name;

        impl Format for $name {
            const GROUPS: usize = 1;
            const BYTES: usize = LANES * Self::PAD.len();
            const PAD: &[u8] = &$pad;
            type Head = ();

            #[inline(always)]
            unsafe fn head<V: Vector>(_block: *const u8) {}

            #[inline(always)]
            unsafe fn group<V: Vector>($bytes: *const u8, _head: &(), _group: usize) -> V {
                // SAFETY: the caller's promise.
                unsafe { $load }
            }
        }
    };
}

plain!(F32, (-0.0f32).to_le_bytes(), bytes => V::load(bytes.cast()));
plain!(F16, 0x8000u16.to_le_bytes(), bytes => V::load_f16(bytes));
plain!(BF16, 0x8000u16.to_le_bytes(), bytes => V::load_bf16(bytes));

/// A format of blocks.
macro_rules! blocks {
    (
        $name:ident, $groups:literal groups $(by $chunk:literal)? in $bytes:literal bytes, head $head:ty,
        |$b:ident| $head_body:expr, |$block:ident, $h:ident, $g:ident| $group_body:expr
    ) => {
        pub(crate) struct $name;

        impl Format for $name {
            const GROUPS: usize = $groups;
            const BYTES: usize = $bytes;
            $(const CHUNK: usize = $chunk;)?
            type Head = $head;

            #[inline(always)]
            unsafe fn head<V: Vector>($b: *const u8) -> $head {
                // SAFETY: the caller's promise; all offsets are within the block.
                unsafe { $head_body }
            }

            #[inline(always)]
            unsafe fn group<V: Vector>($block: *const u8, $h: &$head, $g: usize) -> V {
                // SAFETY: the caller's promise; all offsets are within the block.
                unsafe { $group_body }
            }
        }
    };
}

mod tables;
pub(crate) use tables::{IQ4_NL, IQ4_XS, MXFP4, TQ1_0, TQ2_0};

blocks!(Q8_0, 2 groups in 34 bytes, head [f32; 2], |b| V::two_halves(b), |b, h, g| {
    V::mul_copies(V::floats(V::signed(b.add(2 + 16 * g))), &h[0])
});
blocks!(Q4_0, 2 groups by 2 in 18 bytes, head [f32; 2], |b| V::two_halves(b), |b, h, g| {
    V::look_up::<4>(V::table::<4>(&h[0], -8, None), nibbles::<V>(b.add(2), g))
});
blocks!(Q4_1, 2 groups by 2 in 20 bytes, head [f32; 2], |b| V::two_halves(b), |b, h, g| {
    V::look_up::<4>(V::table::<4>(&h[0], 0, Some(&h[1])), nibbles::<V>(b.add(4), g))
});
blocks!(Q5_0, 2 groups by 2 in 22 bytes, head [f32; 2], |b| V::two_halves(b), |b, h, g| {
    let q = V::with_fifth(nibbles::<V>(b.add(6), g), (word(b.add(2)) >> (16 * g)) as u16);
    V::mul_copies(V::floats(V::add_int(q, -16)), &h[0])
});
blocks!(Q5_1, 2 groups by 2 in 24 bytes, head [f32; 2], |b| V::two_halves(b), |b, h, g| {
    let q = V::with_fifth(nibbles::<V>(b.add(8), g), (word(b.add(4)) >> (16 * g)) as u16);
    V::mul_add_copies(V::floats(q), &h[0], &h[1])
});
blocks!(Q2_K, 16 groups by 4 in 84 bytes, head [Line; 2], |b| {
    let both = V::unsigned(b);
    let scales = V::mul(V::splat(half::<V>(b, 80)), V::floats(V::and(both, 15)));
    let minima = V::mul(V::splat(-half::<V>(b, 82)), V::floats(V::shift_right(both, 4)));
    [array(scales), array(minima)]
}, |b, h, g| {
    let q = V::unsigned(b.add(16 + 32 * (g / 8) + 16 * (g % 2)));
    V::look_up::<2>(V::table::<2>(&h[0].0[g], 0, Some(&h[1].0[g])), V::shift_bytes(q, 2 * (g / 2 % 4)))
});
blocks!(Q3_K, 16 groups in 110 bytes, head (Line, Bytes), |b| {
    let bytes = three_k_scales(b.add(96));
    let scales = V::floats(V::add_int(V::unsigned(bytes.as_ptr().cast()), -32));
    (array(V::mul(V::splat(half::<V>(b, 108)), scales)), three_bits(&*b.add(32).cast(), &*b.cast()))
}, |_b, h, g| {
    V::mul_copies(V::floats(V::signed(h.1.0.as_ptr().add(16 * g).cast())), &h.0.0[g])
});
blocks!(Q4_K, 16 groups by 4 in 144 bytes, head [Line; 2], |b| six_bit_scales::<V>(b), |b, h, g| {
    let q = nibbles::<V>(b.add(16 + 32 * (g / 4) + 16 * (g % 2)), g / 2 % 2);
    let at = six_bit_place(g);
    V::look_up::<4>(V::table::<4>(&h[0].0[at], 0, Some(&h[1].0[at + 4])), q)
});
blocks!(Q5_K, 16 groups in 176 bytes, head ([Line; 2], Bytes), |b| {
    (six_bit_scales::<V>(b), V::five_bits(b.add(48), b.add(16)))
}, |_b, h, g| {
    let q = V::floats(V::signed(h.1.0.as_ptr().add(16 * g).cast()));
    let at = six_bit_place(g);
    V::mul_add_copies(q, &h.0[0].0[at], &h.0[1].0[at + 4])
});
blocks!(Q6_K, 16 groups in 210 bytes, head (Line, Bytes), |b| {
    let scales = V::mul(V::splat(half::<V>(b, 208)), V::floats(V::signed(b.add(192))));
    (array(scales), six_bits(&*b.cast(), &*b.add(128).cast()))
}, |_b, h, g| {
    V::mul_copies(V::floats(V::signed(h.1.0.as_ptr().add(16 * g).cast())), &h.0.0[g])
});

/// [`Q8_0`] in the KV cache, where rows are [filled](Format::FILLED).
pub(crate) struct FilledQ8_0;

impl Format for FilledQ8_0 {
    const GROUPS: usize = Q8_0::GROUPS;
    const BYTES: usize = Q8_0::BYTES;
    const FILLED: bool = true;
    type Head = <Q8_0 as Format>::Head;

    #[inline(always)]
    unsafe fn head<V: Vector>(block: *const u8) -> Self::Head {
        // SAFETY: the caller's promise.
        unsafe { Q8_0::head::<V>(block) }
    }

    #[inline(always)]
    unsafe fn group<V: Vector>(block: *const u8, head: &Self::Head, group: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { Q8_0::group(block, head, group) }
    }
}

/// The f16 at byte `at`.
///
/// # Safety
/// As [`Vector`]; two bytes from `at` are within the block.
#[inline(always)]
unsafe fn half<V: Vector>(block: *const u8, at: usize) -> f32 {
    // SAFETY: the caller's promise; the f16 is within the block.
    unsafe { V::half(u16::from_le(block.add(at).cast::<u16>().read_unaligned())) }
}

/// # Safety
/// Four bytes from `from` are readable.
#[inline(always)]
unsafe fn word(from: *const u8) -> u32 {
    // SAFETY: the caller's promise; the word is within the block.
    unsafe { u32::from_le(from.cast::<u32>().read_unaligned()) }
}

/// # Safety
/// Eight bytes from `from` are readable.
#[inline(always)]
unsafe fn long(from: *const u8) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { u64::from_le(from.cast::<u64>().read_unaligned()) }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn array<V: Vector>(a: V) -> Line {
    let mut out = Line([0.0; LANES]);
    // SAFETY: the caller's promise; `out` has 16 elements.
    unsafe { V::store(a, out.0.as_mut_ptr()) };
    out
}

/// The elements of a block before they are scaled, aligned so that they are not stored across cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Bytes(pub(crate) [i8; 256]);

/// 32 elements in 16 bytes: group 0 is the low nibbles. What stands above the four bits is left.
///
/// # Safety
/// As [`Vector`]; 16 bytes from `q` are readable.
#[inline(always)]
unsafe fn nibbles<V: Vector>(q: *const u8, group: usize) -> V::Ints {
    // SAFETY: the caller's promise.
    unsafe { V::shift_bytes(V::unsigned(q), 4 * group) }
}

/// The sixteen 6-bit scales of Q3_K from their 12 bytes, still offset by 32.
///
/// # Safety
/// Twelve bytes from `from` are readable.
#[inline(always)]
unsafe fn three_k_scales(from: *const u8) -> [u32; 4] {
    // SAFETY: the caller's promise.
    let (a, b, high) = unsafe { (word(from), word(from.add(4)), word(from.add(8))) };
    let join = |low: u32, high: u32| ((low & 0x0f0f_0f0f) | ((high & 0x0303_0303) << 4)).to_le();
    [join(a, high), join(b, high >> 2), join(a >> 4, high >> 4), join(b >> 4, high >> 6)]
}

/// The scales of the eight sub-blocks of Q4_K and Q5_K times `d`, and their minima times `-dmin`. Both arrays hold
/// both: the scales of four sub-blocks, their minima, the same of the other four.
///
/// # Safety
/// As [`Vector`]; 16 bytes from `block` are readable.
#[inline(always)]
unsafe fn six_bit_scales<V: Vector>(block: *const u8) -> [Line; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, both) = (long(block.add(4)), u64::from(word(block.add(12))));
        let both = (both | both << 28) & 0x0f0f_0f0f_0f0f_0f0f;
        let bytes =
            [(low & 0x3f3f_3f3f_3f3f_3f3f).to_le(), (both | low >> 2 & 0x3030_3030_3030_3030).to_le()];
        let bytes = V::floats(V::unsigned(bytes.as_ptr().cast()));
        let mut factors = V::two_halves(block);
        factors[1] = -factors[1];
        V::settle(&mut factors);
        [array(V::mul_copies(bytes, &factors[0])), array(V::mul_copies(bytes, &factors[1]))]
    }
}

/// Where [`six_bit_scales`] holds the scale of a group; four further on is the minimum. In terms of runs of four groups, so
/// that the compiler sees which groups share a scale.
#[inline(always)]
fn six_bit_place(group: usize) -> usize {
    group / 8 * 8 + group / 4 % 2 * 2 + group / 2 % 2
}

// What follows is plain Rust, which the compiler turns into operations on as many bytes as a register holds.

/// The elements of Q3_K, by halves of 128: a high bit that is clear subtracts 4.
#[inline(always)]
fn three_bits(low: &[[u8; 32]; 2], high: &[u8; 32]) -> Bytes {
    let mut out = Bytes([0; 256]);
    for (run, out) in out.0.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for i in 0..32 {
            let (low, high) = (low[run / 4][i] >> (2 * (run % 4)) & 3, high[i] >> run & 1);
            out[i] = (low | high << 2) as i8 - 4;
        }
    }
    out
}

/// The elements of Q5_K, by runs of 64: 32 low nibbles, then 32 high ones.
#[inline(always)]
pub(crate) fn five_bits(low: &[[u8; 32]; 4], high: &[u8; 32]) -> Bytes {
    let mut out = Bytes([0; 256]);
    for (run, out) in out.0.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for i in 0..32 {
            out[i] = (low[run / 2][i] >> (4 * (run % 2)) & 15 | (high[i] >> run & 1) << 4) as i8;
        }
    }
    out
}

/// The elements of Q6_K, by halves of 128.
#[inline(always)]
fn six_bits(low: &[[u8; 64]; 2], high: &[[u8; 32]; 2]) -> Bytes {
    let mut out = Bytes([0; 256]);
    for (half, out) in out.0.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (low, high) = (&low[half], &high[half]);
        for i in 0..32 {
            let join = |low: u8, high: u8| (low & 15 | (high & 3) << 4) as i8 - 32;
            out[i] = join(low[i], high[i]);
            out[32 + i] = join(low[32 + i], high[i] >> 2);
            out[64 + i] = join(low[i] >> 4, high[i] >> 4);
            out[96 + i] = join(low[32 + i] >> 4, high[i] >> 6);
        }
    }
    out
}
