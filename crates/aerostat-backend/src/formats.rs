//! The stored weight formats, expanded to f32 in their plainest form.
//!
//! Each function gives one element of one block. Layouts and the order of the f32 operations are those of llama.cpp's
//! reference as its Python package `gguf` has it (`gguf.quants.dequantize`), bit for bit; `tests/formats.py` makes the
//! fixtures that pin this.

use aerostat_checkpoint::DType;
use half::{bf16, f16};

use crate::{Error, ErrorKind};

/// Expands a run of whole blocks to f32.
///
/// # Errors
/// `Unsupported` for a format outside [`DType::COMPUTABLE`]; `Shape` when `bytes` is not exactly the `out.len()` elements.
pub fn expand(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    check_supported(dtype)?;
    if dtype.bytes_for(out.len() as u64) != Some(bytes.len() as u64) {
        return Err(Error::shape(format!(
            "{} bytes are not {} elements of {dtype:?}",
            bytes.len(),
            out.len()
        )));
    }
    let element = match dtype {
        DType::F32 => |b: &[u8], _| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        DType::F16 => |b: &[u8], _| half_at(b, 0),
        DType::BF16 => |b: &[u8], _| bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        DType::Q8_0 => |b: &[u8], i| f32::from(b[2 + i] as i8) * half_at(b, 0),
        DType::Q4_0 => |b: &[u8], i| half_at(b, 0) * f32::from(nibble(&b[2..], i) as i8 - 8),
        DType::Q4_1 => |b: &[u8], i| half_at(b, 0) * f32::from(nibble(&b[4..], i)) + half_at(b, 2),
        DType::Q5_0 => |b: &[u8], i| half_at(b, 0) * f32::from(five_bits(&b[2..], i) as i8 - 16),
        DType::Q5_1 => |b: &[u8], i| half_at(b, 0) * f32::from(five_bits(&b[4..], i)) + half_at(b, 2),
        DType::Q2_K => q2_k,
        DType::Q3_K => q3_k,
        DType::Q4_K => q4_k,
        DType::Q5_K => q5_k,
        DType::Q6_K => q6_k,
        DType::IQ4_NL => |b: &[u8], i| half_at(b, 0) * f32::from(IQ4_VALUES[usize::from(nibble(&b[2..], i))]),
        DType::IQ4_XS => iq4_xs,
        DType::TQ1_0 => tq1_0,
        DType::TQ2_0 => |b: &[u8], i| half_at(b, 64) * f32::from(two_bits(b, i) as i8 - 1),
        _ => |b: &[u8], i| e8m0_half(b[0]) * f32::from(E2M1_DOUBLED[usize::from(nibble(&b[1..], i))]),
    };
    let (block_len, block_bytes) = (dtype.block_len(), dtype.block_bytes());
    for (block, out) in bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(block_len)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = element(block, i);
        }
    }
    Ok(())
}

/// Host devices compute with this format.
pub(crate) fn check_supported(dtype: DType) -> Result<(), Error> {
    if DType::COMPUTABLE.contains(&dtype) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("weights in {dtype:?} are not supported on the CPU")))
}

/// The block of Q8_0 of 32 elements: the largest becomes 127 or -127, and the others follow, rounded to nearest. What is
/// not finite makes all of the block NaN.
///
/// # Panics
/// When `x` is not 32 elements or `out` not 34 bytes.
pub fn q8_0(x: &[f32], out: &mut [u8]) {
    assert!(x.len() == DType::Q8_0.block_len() && out.len() == DType::Q8_0.block_bytes());
    let largest = x.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
    let d = if x.iter().all(|v| v.is_finite()) { f16::from_f32(largest / 127.0) } else { f16::NAN };
    let inverse = if d == f16::ZERO { 0.0 } else { 1.0 / d.to_f32() };
    out[..2].copy_from_slice(&d.to_le_bytes());
    for (byte, v) in out[2..].iter_mut().zip(x) {
        *byte = (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
    }
}

/// What the four bits of IQ4_NL and IQ4_XS stand for.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// What the four bits of MXFP4 stand for, times two: a sign, two bits of exponent, one of mantissa.
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of `2^(bits - 127)`.
pub fn e8m0_half(bits: u8) -> f32 {
    match bits {
        0 | 1 => f32::from_bits(0x0020_0000 << bits),
        _ => f32::from_bits(u32::from(bits - 1) << 23),
    }
}

/// `scales[16] quants[64] d dmin`: 16 elements share a 4-bit scale and a 4-bit minimum.
fn q2_k(b: &[u8], i: usize) -> f32 {
    let (scale, q) = (b[i / 16], two_bits(&b[16..], i));
    (half_at(b, 80) * f32::from(scale & 15)) * f32::from(q) - half_at(b, 82) * f32::from(scale >> 4)
}

/// `high_bits[32] quants[64] scales[12] d`: a high bit that is clear subtracts 4.
fn q3_k(b: &[u8], i: usize) -> f32 {
    let high = (b[i % 32] >> (i / 32)) & 1;
    let q = two_bits(&b[32..], i) as i8 - if high == 1 { 0 } else { 4 };
    let (scales, s) = (&b[96..], i / 16);
    let low = (scales[s % 8] >> (4 * (s / 8))) & 15;
    let scale = (low | ((scales[8 + s % 4] >> (2 * (s / 4))) & 3) << 4) as i8 - 32;
    (half_at(b, 108) * f32::from(scale)) * f32::from(q)
}

/// `d dmin scales[12] quants[128]`: 32 elements share a 6-bit scale and a 6-bit minimum.
fn q4_k(b: &[u8], i: usize) -> f32 {
    scaled(b, i, long_nibble(&b[16..], i))
}

/// As [`q4_k`], with `high_bits[32]` before the quants.
fn q5_k(b: &[u8], i: usize) -> f32 {
    let high = (b[16 + i % 32] >> (i / 32)) & 1;
    scaled(b, i, long_nibble(&b[48..], i) | high << 4)
}

/// `low[128] high[64] scales[16] d`: 16 elements share an 8-bit scale.
fn q6_k(b: &[u8], i: usize) -> f32 {
    let (half, within) = (i / 128, i % 128);
    let low = (b[64 * half + within % 64] >> (4 * (within / 64))) & 15;
    let high = (b[128 + 32 * half + within % 32] >> (2 * (within / 32))) & 3;
    let scale = f32::from(b[192 + i / 16] as i8);
    (half_at(b, 208) * scale) * f32::from((low | high << 4) as i8 - 32)
}

/// `d high_scales[2] low_scales[4] quants[128]`: 32 elements share a 6-bit scale.
fn iq4_xs(b: &[u8], i: usize) -> f32 {
    let group = i / 32;
    let high = (u16::from_le_bytes([b[2], b[3]]) >> (2 * group)) as u8 & 3;
    let low = (b[4 + group / 2] >> (4 * (group % 2))) & 15;
    let scale = (low | high << 4) as i8 - 32;
    let value = IQ4_VALUES[usize::from(nibble(&b[8 + 16 * group..], i % 32))];
    (half_at(b, 0) * f32::from(scale)) * f32::from(value)
}

/// `five_digits[48] four_digits[4] d`: digits to the base of three, each byte a fraction of 256 of which multiplying by
/// three brings the next digit out at the top.
fn tq1_0(b: &[u8], i: usize) -> f32 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let (byte, digit) = match i {
        0..160 => (i % 32, i / 32),
        160..240 => (32 + i % 16, (i - 160) / 16),
        _ => (48 + i % 4, (i - 240) / 4),
    };
    let fraction = b[byte].wrapping_mul(POWERS[digit]);
    let q = ((u16::from(fraction) * 3) >> 8) as i8 - 1;
    half_at(b, 52) * f32::from(q)
}

/// `d * scale * q - dmin * minimum`, the 6-bit scales and minima as in [`q4_k`].
fn scaled(b: &[u8], i: usize, q: u8) -> f32 {
    let (s, group) = (&b[4..16], i / 32);
    let (scale, minimum) = if group < 4 {
        (s[group] & 63, s[group + 4] & 63)
    } else {
        let both = s[group + 4];
        (both & 15 | (s[group - 4] >> 6) << 4, both >> 4 | (s[group] >> 6) << 4)
    };
    (half_at(b, 0) * f32::from(scale)) * f32::from(q) - half_at(b, 2) * f32::from(minimum)
}

/// 32 elements: the low nibbles, then the high ones.
fn nibble(q: &[u8], i: usize) -> u8 {
    (q[i % 16] >> (4 * (i / 16))) & 15
}

/// `high_bits[4] nibbles[16]`.
fn five_bits(q: &[u8], i: usize) -> u8 {
    nibble(&q[4..], i) | ((q[i / 8] >> (i % 8)) & 1) << 4
}

/// 256 elements in runs of 64: 32 low nibbles, then 32 high ones.
fn long_nibble(q: &[u8], i: usize) -> u8 {
    (q[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2))) & 15
}

/// 256 elements in runs of 128: 32 bytes, four times two bits.
fn two_bits(q: &[u8], i: usize) -> u8 {
    (q[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3
}

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}
