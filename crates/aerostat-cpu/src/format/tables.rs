//! Formats whose elements stand for the values of a table, and ternary ones.

use aerostat_backend::formats::{E2M1_DOUBLED, IQ4_VALUES, e8m0_half};

use super::{Bytes, Format, array, half, nibbles, word};
use crate::memory::Line;
use crate::vector::{LANES, Vector};

static IQ4: [f32; LANES] = floats(IQ4_VALUES);
static E2M1: [f32; LANES] = floats(E2M1_DOUBLED);

blocks!(IQ4_NL, 2 groups by 2 in 18 bytes, head f32, |b| half::<V>(b, 0), |b, h, g| {
    V::choose(V::mul(V::splat(*h), V::load(IQ4.as_ptr())), nibbles::<V>(b.add(2), g))
});
blocks!(IQ4_XS, 16 groups by 2 in 136 bytes, head Line, |b| {
    let (high, low) = (word(b) >> 16, word(b.add(4)));
    let mut scales = [0i8; LANES];
    for i in 0..8 {
        scales[i] = ((low >> (4 * i)) & 15 | ((high >> (2 * i)) & 3) << 4) as i8 - 32;
    }
    array(V::mul(V::splat(half::<V>(b, 0)), V::floats(V::signed(scales.as_ptr().cast()))))
}, |b, h, g| {
    let table = V::mul(V::splat(h.0[g / 2]), V::load(IQ4.as_ptr()));
    V::choose(table, nibbles::<V>(b.add(8 + 16 * (g / 2)), g % 2))
});
blocks!(MXFP4, 2 groups by 2 in 17 bytes, head f32, |b| e8m0_half(*b), |b, h, g| {
    V::choose(V::mul(V::splat(*h), V::load(E2M1.as_ptr())), nibbles::<V>(b.add(1), g))
});
blocks!(TQ1_0, 16 groups in 54 bytes, head (f32, Bytes), |b| {
    (half::<V>(b, 52), digits(&*b.cast(), &*b.add(32).cast(), &*b.add(48).cast()))
}, |_b, h, g| {
    V::mul(V::splat(h.0), V::floats(V::signed(h.1.0.as_ptr().add(16 * g).cast())))
});
blocks!(TQ2_0, 16 groups by 4 in 66 bytes, head f32, |b| half::<V>(b, 64), |b, h, g| {
    let q = V::unsigned(b.add(32 * (g / 8) + 16 * (g % 2)));
    V::look_up::<2>(V::table::<2>(h, -1, None), V::shift_right(q, 2 * (g / 2 % 4)))
});

const fn floats(values: [i8; LANES]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    let mut i = 0;
    while i < LANES {
        out[i] = values[i] as f32;
        i += 1;
    }
    out
}

/// The elements of TQ1_0: five digits of each of 32 bytes, then of 16, then four of each of four.
#[inline(always)]
fn digits(first: &[u8; 32], second: &[u8; 16], last: &[u8; 4]) -> Bytes {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let digit = |byte: u8, power: u8| ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1;
    let mut out = Bytes([0; 256]);
    for (d, power) in POWERS.into_iter().enumerate() {
        for i in 0..32 {
            out.0[32 * d + i] = digit(first[i], power);
        }
        for i in 0..16 {
            out.0[160 + 16 * d + i] = digit(second[i], power);
        }
    }
    for (d, power) in POWERS.into_iter().take(4).enumerate() {
        for i in 0..4 {
            out.0[240 + 4 * d + i] = digit(last[i], power);
        }
    }
    out
}
