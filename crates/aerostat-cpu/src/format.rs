//! The stored formats, expanded sixteen elements at a time in registers, with the arithmetic of
//! `aerostat_backend::formats`.

#![allow(non_camel_case_types, reason = "the names are those of the formats")]

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
    /// Plain formats: an element that is -0.0, little-endian. Plain formats have one group in a "block" and may end
    /// within it; the others end with a block.
    const PAD: &[u8] = &[];
    /// Groups that share work, which is found when they are expanded one after the other.
    const CHUNK: usize = if Self::GROUPS > 4 { 4 } else { Self::GROUPS };
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
        $name:ident, $groups:literal groups in $bytes:literal bytes, head $head:ty,
        |$b:ident| $head_body:expr, |$block:ident, $h:ident, $g:ident| $group_body:expr
    ) => {
        pub(crate) struct $name;

        impl Format for $name {
            const GROUPS: usize = $groups;
            const BYTES: usize = $bytes;
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

blocks!(Q8_0, 2 groups in 34 bytes, head f32, |b| half::<V>(b, 0), |b, d, g| {
    V::mul(V::floats(V::signed(b.add(2 + 16 * g))), V::splat(*d))
});
blocks!(Q4_0, 2 groups in 18 bytes, head f32, |b| half::<V>(b, 0), |b, d, g| {
    V::look_up16(V::table16(*d, -8, None), nibbles::<V>(b.add(2), g))
});
blocks!(Q4_1, 2 groups in 20 bytes, head (f32, f32), |b| (half::<V>(b, 0), half::<V>(b, 2)), |b, h, g| {
    V::look_up16(V::table16(h.0, 0, Some(h.1)), nibbles::<V>(b.add(4), g))
});
blocks!(Q5_0, 2 groups in 22 bytes, head f32, |b| half::<V>(b, 0), |b, d, g| {
    let high = V::bits((word(b.add(2)) >> (16 * g)) as u16);
    V::look_up32(V::table32(*d, -16, None), nibbles::<V>(b.add(6), g), high)
});
blocks!(Q5_1, 2 groups in 24 bytes, head (f32, f32), |b| (half::<V>(b, 0), half::<V>(b, 2)), |b, h, g| {
    let high = V::bits((word(b.add(4)) >> (16 * g)) as u16);
    V::look_up32(V::table32(h.0, 0, Some(h.1)), nibbles::<V>(b.add(8), g), high)
});
blocks!(Q2_K, 16 groups in 84 bytes, head ([f32; 16], [f32; 16]), |b| {
    let both = V::unsigned(b);
    let scales = V::mul(V::splat(half::<V>(b, 80)), V::floats(V::and(both, 15)));
    let minima = V::mul(V::splat(half::<V>(b, 82)), V::floats(V::shift_right(both, 4)));
    (array(scales), array(minima))
}, |b, h, g| {
    let q = V::floats(two_bits::<V>(b.add(16), g));
    V::sub(V::mul(V::splat(h.0[g]), q), V::splat(h.1[g]))
});
blocks!(Q3_K, 16 groups in 110 bytes, head [f32; 16], |b| {
    let bytes = three_k_scales(b.add(96));
    let scales = V::floats(V::add_int(V::unsigned(bytes.as_ptr().cast()), -32));
    array(V::mul(V::splat(half::<V>(b, 108)), scales))
}, |b, scales, g| {
    // The offset of 4 is not taken where the high bit is set.
    let high = V::and(V::shift_right(V::unsigned(b.add(16 * (g % 2))), g / 2), 1);
    let q = V::add_int(V::or(two_bits::<V>(b.add(32), g), V::shift_left(high, 2)), -4);
    V::mul(V::splat(scales[g]), V::floats(q))
});
blocks!(Q4_K, 16 groups in 144 bytes, head [f32; 16], |b| six_bit_scales::<V>(b), |b, h, g| {
    V::look_up16(V::table16(h[g / 2], 0, Some(h[8 + g / 2])), long_nibbles::<V>(b.add(16), g))
});
blocks!(Q5_K, 16 groups in 176 bytes, head [f32; 16], |b| six_bit_scales::<V>(b), |b, h, g| {
    let high = V::bits_at(b.add(16 + 16 * (g % 2)), g / 2);
    V::look_up32(V::table32(h[g / 2], 0, Some(h[8 + g / 2])), long_nibbles::<V>(b.add(48), g), high)
});
blocks!(Q6_K, 16 groups in 210 bytes, head ([f32; 16], [i8; 256]), |b| {
    let scales = V::mul(V::splat(half::<V>(b, 208)), V::floats(V::signed(b.add(192))));
    (array(scales), six_bits(&*b.cast(), &*b.add(128).cast()))
}, |_b, h, g| {
    V::mul(V::splat(h.0[g]), V::floats(V::signed(h.1.as_ptr().add(16 * g).cast())))
});

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
/// As [`Vector`].
#[inline(always)]
unsafe fn array<V: Vector>(a: V) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    // SAFETY: the caller's promise; `out` has 16 elements.
    unsafe { V::store(a, out.as_mut_ptr()) };
    out
}

/// 32 elements in 16 bytes: group 0 is the low nibbles. What stands above the four bits is left.
///
/// # Safety
/// As [`Vector`]; 16 bytes from `q` are readable.
#[inline(always)]
unsafe fn nibbles<V: Vector>(q: *const u8, group: usize) -> V::Ints {
    // SAFETY: the caller's promise.
    unsafe { V::shift_right(V::unsigned(q), 4 * group) }
}

/// 256 elements in runs of 64: 32 low nibbles, then 32 high ones.
///
/// # Safety
/// As [`Vector`]; 128 bytes from `q` are readable.
#[inline(always)]
unsafe fn long_nibbles<V: Vector>(q: *const u8, group: usize) -> V::Ints {
    // SAFETY: the caller's promise.
    unsafe { nibbles::<V>(q.add(32 * (group / 4) + 16 * (group % 2)), group / 2 % 2) }
}

/// 256 elements in runs of 128: 32 bytes, four times two bits.
#[inline(always)]
unsafe fn two_bits<V: Vector>(q: *const u8, group: usize) -> V::Ints {
    // SAFETY: the caller's promise.
    unsafe {
        V::and(
            V::shift_right(V::unsigned(q.add(32 * (group / 8) + 16 * (group % 2))), 2 * (group / 2 % 4)),
            3,
        )
    }
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

/// The scales, then the negated minima, of the eight sub-blocks of Q4_K and Q5_K, multiplied by `d` and `dmin`.
///
/// # Safety
/// As [`Vector`]; 16 bytes from `block` are readable.
#[inline(always)]
unsafe fn six_bit_scales<V: Vector>(block: *const u8) -> [f32; 16] {
    // SAFETY: the caller's promise.
    unsafe {
        let (s, m, both) = (word(block.add(4)), word(block.add(8)), word(block.add(12)));
        let bytes = [
            s & 0x3f3f_3f3f,
            (both & 0x0f0f_0f0f) | ((s >> 2) & 0x3030_3030),
            m & 0x3f3f_3f3f,
            ((both >> 4) & 0x0f0f_0f0f) | ((m >> 2) & 0x3030_3030),
        ];
        let bytes = bytes.map(u32::to_le);
        let mut factors = [half::<V>(block, 0); 16];
        factors[8..].fill(-half::<V>(block, 2));
        array(V::mul(V::load(factors.as_ptr()), V::floats(V::unsigned(bytes.as_ptr().cast()))))
    }
}

/// The elements of Q6_K, by halves of 128.
#[inline(always)]
fn six_bits(low: &[[u8; 64]; 2], high: &[[u8; 32]; 2]) -> [i8; 256] {
    let mut out = [[0i8; 128]; 2];
    for half in 0..2 {
        let (low, high, out) = (&low[half], &high[half], &mut out[half]);
        for i in 0..32 {
            let join = |low: u8, high: u8| (low & 15 | (high & 3) << 4) as i8 - 32;
            out[i] = join(low[i], high[i]);
            out[32 + i] = join(low[32 + i], high[i] >> 2);
            out[64 + i] = join(low[i] >> 4, high[i] >> 4);
            out[96 + i] = join(low[32 + i] >> 4, high[i] >> 6);
        }
    }
    let mut all = [0; 256];
    all[..128].copy_from_slice(&out[0]);
    all[128..].copy_from_slice(&out[1]);
    all
}
