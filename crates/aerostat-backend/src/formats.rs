//! The stored weight formats, expanded to f32 in their plainest form.
//!
//! Each function gives one element of one block. Layouts and the order of the f32 operations are those of llama.cpp's
//! reference as its Python package `gguf` has it (`gguf.quants.dequantize`), bit for bit; `tests/formats.py` makes the
//! fixtures that pin this.

use aerostat_checkpoint::DType;
use half::{bf16, f16};

use crate::{Error, check};

/// Expands a run of whole blocks to f32.
///
/// # Errors
/// `Unsupported` for a format outside [`DType::COMPUTABLE`]; `Shape` when `bytes` is not exactly the `out.len()` elements.
pub fn expand(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    check::supported(dtype)?;
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
        _ => q6_k,
    };
    let (block_len, block_bytes) = (dtype.block_len(), dtype.block_bytes());
    for (block, out) in bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(block_len)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = element(block, i);
        }
    }
    Ok(())
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
