//! Weights whose scales lie in other tensors, expanded to f32 in their plainest form.
//!
//! What libraries store beside a matrix of codes differs: one scale for the tensor, for a row, for a block of rows and
//! columns, for a run of a row; zero points, or scales that are codes themselves. All come down to
//! `round((code - zero) * scale)`, with one scale and one zero for each run of [`Groups::len`] elements of a row, and with
//! the rounding of the reference: where it gives bf16 or f16, so does this. `tests/coded.py` makes the fixtures that pin
//! the bits, with the libraries themselves where they run without a GPU.
//!
//! | source | code | scales | rounding |
//! |---|---|---|---|
//! | FP8 (DeepSeek-V3, Qwen3): transformers `Fp8Dequantize` | [`Code::E4M3`] | f32 for 128 x 128 | the model's type |
//! | compressed-tensors `float-quantized` | [`Code::E4M3`], [`Code::E5M2`] | the tensor, or each row | that of the scales |
//! | compressed-tensors `pack-quantized` | [`Code::Packed`] | runs of a row, or rows; zero points | that of the scales |
//! | MXFP4 of gpt-oss: transformers `convert_moe_packed_tensors` | [`Code::LowFirst`], [`Table::E2M1`] | E8M0 for 32 | bf16, which is exact |
//! | bitsandbytes NF4, FP4: `dequantize_4bit` | [`Code::HighFirst`] | f32 for 64, or [`Nested`] | the type it was made from |
//! | bitsandbytes LLM.int8: `int8_vectorwise_dequant` | [`Code::I8`], factor 1/127 | f32 for each row | none |
//! | GPTQ, AWQ (stored by inputs) | [`packed_column`], [`awq`] | f16 for runs of a column; zeros | f16 |

use aerostat_checkpoint::DType;
use half::{bf16, f16};

use crate::Error;

/// How the elements of a row are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// One byte: a sign, four bits of exponent, three of mantissa; no infinities.
    E4M3,
    /// One byte: the upper half of an f16.
    E5M2,
    /// One signed byte.
    I8,
    /// This many bits, 1 to 8, one element after the other from the lowest bit of little-endian words up. Without zero
    /// points, zero is in the middle.
    Packed(u32),
    /// Two in a byte, the first in the low bits, by a table.
    LowFirst(Table),
    /// Two in a byte, the first in the high bits, by a table.
    HighFirst(Table),
}

/// What four bits stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// A sign, two bits of exponent, one of mantissa (OCP Microscaling Formats).
    E2M1,
    /// Quantiles of a normal distribution (QLoRA).
    Nf4,
    /// The FP4 of bitsandbytes: thirds and quarters of powers of two.
    Fp4,
}

/// The type to which a reference rounds what it dequantises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Stays as computed.
    F32,
    /// To nearest even.
    F16,
    /// To nearest even.
    BF16,
}

/// How codes become weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coding {
    /// How elements are stored.
    pub code: Code,
    /// What the scaled value is multiplied by; 1 for most.
    pub factor: f32,
    /// What comes last.
    pub rounding: Rounding,
}

/// Scales and zeros of one row.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// Elements that share a scale; the last group may be shorter.
    pub len: usize,
    /// One for each group.
    pub scales: &'a [f32],
    /// One for each group, or none.
    pub zeros: &'a [f32],
}

/// Scales that are codes themselves, as bitsandbytes has them by "double quantisation".
#[derive(Clone, Copy, Debug)]
pub struct Nested<'a> {
    /// What each byte stands for.
    pub values: &'a [f32; 256],
    /// One for each run of `len` scales.
    pub scales: &'a [f32],
    /// Scales that share one of those.
    pub len: usize,
    /// Added at the end.
    pub offset: f32,
}

/// The values of [`Table::Nf4`].
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The magnitudes of [`Table::Fp4`]; the highest bit is the sign, but there is no negative zero.
const FP4: [f32; 8] = [0.0, 0.005_208_333_5, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25];

impl Code {
    /// Bits of an element.
    pub const fn bits(self) -> usize {
        match self {
            Self::E4M3 | Self::E5M2 | Self::I8 => 8,
            Self::Packed(bits) => bits as usize,
            Self::LowFirst(_) | Self::HighFirst(_) => 4,
        }
    }

    /// The bytes that a row of `len` elements takes: words of four bytes where elements are packed.
    pub const fn row_bytes(self, len: usize) -> usize {
        match self {
            Self::Packed(bits) => (len * bits as usize).div_ceil(32) * 4,
            _ => (len * self.bits()).div_ceil(8),
        }
    }
}

impl Coding {
    /// Of a matrix of codes of one byte, stored as this type.
    pub fn of(dtype: DType, rounding: Rounding) -> Option<Self> {
        let (code, factor) = match dtype {
            DType::F8_E4M3 => (Code::E4M3, 1.0),
            DType::F8_E5M2 => (Code::E5M2, 1.0),
            // LLM.int8
            DType::I8 => (Code::I8, 1.0 / 127.0),
            _ => return None,
        };
        Some(Self { code, factor, rounding })
    }
}

impl Table {
    /// The value of four bits.
    pub fn value(self, bits: u8) -> f32 {
        let bits = usize::from(bits & 15);
        match self {
            Self::E2M1 => f32::from(crate::formats::E2M1_DOUBLED[bits]) * if bits == 8 { -0.5 } else { 0.5 },
            Self::Nf4 => NF4[bits],
            Self::Fp4 if bits <= 8 => FP4[bits % 8],
            Self::Fp4 => -FP4[bits - 8],
        }
    }
}

impl Rounding {
    /// The nearest value of the type.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::BF16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// Expands a row.
///
/// # Errors
/// `Shape` when the codes are not those of `out.len()` elements, or scales or zeros not those of its groups.
pub fn expand(coding: &Coding, codes: &[u8], groups: Groups<'_>, out: &mut [f32]) -> Result<(), Error> {
    let Coding { code, factor, rounding } = *coding;
    let Groups { len, scales, zeros } = groups;
    let count = out.len().div_ceil(len.max(1));
    if codes.len() != code.row_bytes(out.len()) || scales.len() != count || ![0, count].contains(&zeros.len())
    {
        return Err(Error::shape(format!(
            "{} bytes of codes, {} scales and {} zeros are not those of {} elements in {code:?} by groups of {len}",
            codes.len(),
            scales.len(),
            zeros.len(),
            out.len()
        )));
    }
    let middle = if let Code::Packed(bits) = code { (1u32 << bits >> 1) as f32 } else { 0.0 };
    for (i, out) in out.iter_mut().enumerate() {
        let zero = zeros.get(i / len).copied().unwrap_or(middle);
        let value = match code {
            Code::E4M3 => e4m3(codes[i]),
            Code::E5M2 => f16::from_bits(u16::from(codes[i]) << 8).to_f32(),
            Code::I8 => f32::from(codes[i] as i8),
            Code::Packed(bits) => bits_at(codes, i * bits as usize, bits) as f32,
            Code::LowFirst(table) => table.value(codes[i / 2] >> (4 * (i % 2))),
            Code::HighFirst(table) => table.value(codes[i / 2] >> (4 * (1 - i % 2))),
        };
        *out = rounding.round((value - zero) * scales[i / len] * factor);
    }
    Ok(())
}

/// Expands what the columns of a matrix stored by inputs hold for one input: `codes` from [`packed_column`] or [`awq`], one
/// zero and one scale for each column.
pub fn scale_columns(codes: &mut [f32], zeros: &[f32], scales: &[f32], rounding: Rounding) {
    for ((code, zero), scale) in codes.iter_mut().zip(zeros).zip(scales) {
        *code = rounding.round((*code - zero) * scale);
    }
}

/// The codes of input `k` in a matrix as GPTQ stores it: `words` is `[K * bits / 32, columns]`, and the bits of a column run
/// through its words, from the lowest up.
pub fn packed_column(bits: u32, words: &[u8], k: usize, out: &mut [f32]) {
    let columns = out.len();
    let (word, shift) = (k * bits as usize / 32, k * bits as usize % 32);
    let at = |word: usize, column: usize| {
        words
            .get((word * columns + column) * 4..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |b| u32::from_le_bytes(*b))
    };
    for (column, out) in out.iter_mut().enumerate() {
        let both = u64::from(at(word, column)) | u64::from(at(word + 1, column)) << 32;
        *out = ((both >> shift) & ((1 << bits) - 1)) as f32;
    }
}

/// The zeros of a group as GPTQ stores them: packed along the row, each one less than it is, but in its second version.
pub fn gptq_zeros(bits: u32, words: &[u8], is_second_version: bool, out: &mut [f32]) {
    let mask = (1u32 << bits) - 1;
    for (i, out) in out.iter_mut().enumerate() {
        let stored = bits_at(words, i * bits as usize, bits);
        *out = (stored.wrapping_add(u32::from(!is_second_version)) & mask) as f32;
    }
}

/// The codes of one input (or the zeros of one group) as AWQ stores them: four bits each, eight columns in a word, of which
/// the even ones are in the lower half.
pub fn awq(words: &[u8], out: &mut [f32]) {
    for (column, out) in out.iter_mut().enumerate() {
        let (word, within) = (column / 8, column % 8);
        let place = 4 * (within % 2) + within / 2;
        *out = bits_at(words, 32 * word + 4 * place, 4) as f32;
    }
}

/// Expands scales that are codes themselves; `first` is the number of the first one in its tensor.
pub fn nested_scales(nested: &Nested<'_>, codes: &[u8], first: usize, out: &mut [f32]) {
    for (i, (out, &code)) in out.iter_mut().zip(codes).enumerate() {
        let scale = nested.scales.get((first + i) / nested.len.max(1)).copied().unwrap_or(f32::NAN);
        *out = nested.values[usize::from(code)] * scale + nested.offset;
    }
}

/// `2^(bits - 127)`, and NaN for 255.
pub fn e8m0(bits: u8) -> f32 {
    match bits {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(bits) << 23),
    }
}

/// A sign, four bits of exponent offset by 7, three of mantissa; NaN where all of them are set.
pub fn e4m3(bits: u8) -> f32 {
    let sign = u32::from(bits & 0x80) << 24;
    let magnitude = match bits & 0x7f {
        0x7f => return f32::NAN,
        // Subnormal: eighths of 2^-6.
        small @ 0..8 => return f32::from_bits((f32::from(small) / 512.0).to_bits() | sign),
        bits => u32::from(bits) << 20,
    };
    f32::from_bits((magnitude + ((127 - 7) << 23)) | sign)
}

/// `bits` bits, at most 8, from bit `at` on; those past the end are zero.
fn bits_at(bytes: &[u8], at: usize, bits: u32) -> u32 {
    let byte = |i: usize| u32::from(bytes.get(i).copied().unwrap_or(0));
    ((byte(at / 8) | byte(at / 8 + 1) << 8) >> (at % 8)) & ((1 << bits) - 1)
}
