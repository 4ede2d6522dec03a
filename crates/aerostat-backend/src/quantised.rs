//! Weights whose scales lie in other tensors, expanded to f32 in their plainest form.
//!
//! What libraries store beside a matrix of codes differs: one scale for the tensor, for a row, for a block of rows and
//! columns, for a run of a row; zero points, or scales that are codes themselves. All come down to
//! `round((code - zero) * scale)`, with one scale and one zero for each run of [`Groups::len`] elements of a row, and with
//! the rounding of the reference: where it gives bf16 or f16, so does this. `tests/quantised.py` makes the fixtures that pin
//! the bits, with the libraries themselves where they run without a GPU.
//!
//! | source | code | scales | rounding |
//! |---|---|---|---|
//! | FP8 (DeepSeek-V3, Qwen3): transformers `Fp8Dequantize` | [`Code::E4M3`] | f32 for 128 x 128 | the model's type |
//! | compressed-tensors `float-quantized` | [`Code::E4M3`], [`Code::E5M2`] | the tensor, or each row | that of the scales |
//! | compressed-tensors `pack-quantized` | [`Code::Packed`] | runs of a row, or rows; zero points | that of the scales |
//! | MXFP4 of gpt-oss: transformers `convert_moe_packed_tensors` | [`Code::LowFirst`], [`Table::E2M1`] | E8M0 for 32 | bf16, which is exact |
//! | bitsandbytes NF4, FP4: `dequantize_4bit` | [`Code::HighFirst`] | f32 for 64, or [`Nested`](crate::Nested) | the type it was made from |
//! | bitsandbytes LLM.int8: `int8_vectorwise_dequant` | [`Code::I8`], factor 1/127 | f32 for each row | none |
//! | GPTQ, AWQ (stored by inputs) | [`Code::Columns`], [`Code::Halves`] | runs of a column, or inputs by index; zeros | that of the scales |

pub use aerostat_checkpoint::{Code, Numbers, Table};
use half::{bf16, f16};

use crate::Error;

/// The type to which a reference rounds what it dequantises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Stays as computed.
    F32,
    /// IEEE half precision, to nearest even.
    F16,
    /// bfloat16, to nearest even.
    BF16,
}

/// Quantised weights: how codes become numbers, with scales that lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantised {
    /// How an element is stored, and what it stands for before it is scaled.
    pub code: Code,
    /// What the scaled value is multiplied by; 1 for most.
    pub factor: f32,
    /// The type that the scaled value is rounded to.
    pub rounding: Rounding,
}

/// Scales and zeros of one row.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// Elements that share a scale; the last group may be shorter.
    pub len: usize,
    /// In place of runs of `len`: the group of each element of the row, whole numbers.
    pub index: Option<&'a [f32]>,
    /// The scale of each group.
    pub scales: &'a [f32],
    /// The zero point of each group; empty: zero is where the code has it.
    pub zeros: &'a [f32],
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

impl Quantised {
    /// With the factor that goes with the code.
    pub fn new(code: Code, rounding: Rounding) -> Self {
        // LLM.int8
        let factor = if code == Code::I8 { 1.0 / 127.0 } else { 1.0 };
        Self { code, factor, rounding }
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

/// Expands a row of a matrix as it is stored: row `within` of the run of rows that `codes` holds ([`Code::run`]).
///
/// # Errors
/// `Shape` when the codes are not those of `out.len()` elements, or scales or zeros not those of its groups.
pub fn expand(
    quantised: &Quantised,
    codes: &[u8],
    within: usize,
    groups: Groups<'_>,
    out: &mut [f32],
) -> Result<(), Error> {
    let Quantised { code, factor, rounding } = *quantised;
    let Groups { len, index, scales, zeros } = groups;
    let count = if index.is_some() { scales.len() } else { out.len().div_ceil(len.max(1)) };
    let run = code.run();
    if codes.len() != code.row_bytes(out.len()) * run.0
        || within >= run.1
        || scales.len() != count
        || ![0, count].contains(&zeros.len())
        || index.is_some_and(|index| index.len() != out.len())
    {
        return Err(Error::shape(format!(
            "{} bytes of codes, {} scales and {} zeros are not those of {} elements in {code:?} by groups of {len}",
            codes.len(),
            scales.len(),
            zeros.len(),
            out.len()
        )));
    }
    look_up(code, codes, within, zeros.is_empty(), out);
    for (i, out) in out.iter_mut().enumerate() {
        let group = index.map_or(i / len.max(1), |index| index[i] as usize);
        let zero = zeros.get(group).copied().unwrap_or(0.0);
        let scale = scales.get(group).copied().unwrap_or(f32::NAN);
        *out = rounding.round((*out - zero) * scale * factor);
    }
    Ok(())
}

/// What the elements of row `within` of a run of rows stand for before they are scaled. `centred`: zero is in the middle
/// where the code has none.
pub fn look_up(code: Code, codes: &[u8], within: usize, centred: bool, out: &mut [f32]) {
    let middle = if centred { middle(code) } else { 0.0 };
    let columns = out.len();
    for (i, out) in out.iter_mut().enumerate() {
        let byte = |i: usize| codes.get(i).copied().unwrap_or(0);
        *out = match code {
            Code::E4M3 => e4m3(byte(i)),
            Code::E5M2 => f16::from_bits(u16::from(byte(i)) << 8).to_f32(),
            Code::I8 => f32::from(byte(i) as i8),
            Code::Packed(bits) => bits_at(codes, i * bits as usize, bits) as f32 - middle,
            Code::LowFirst(table) => table_value(table, byte(i / 2) >> (4 * (i % 2))),
            Code::HighFirst(table) => table_value(table, byte(i / 2) >> (4 * (1 - i % 2))),
            Code::Columns(bits) => {
                let (word, shift) = (within * bits as usize / 32, within * bits as usize % 32);
                let at = |word: usize| word_at(codes, word * columns + i);
                let both = u64::from(at(word)) | u64::from(at(word + 1)) << 32;
                ((both >> shift) & mask(bits)) as f32 - middle
            }
            Code::Halves => (word_at(codes, i / 8) >> halves_shift(i) & 15) as f32 - middle,
        };
    }
}

/// What [`look_up`] takes from codes that have no zero of their own, unless zero points are given.
pub fn middle(code: Code) -> f32 {
    match code {
        Code::Packed(bits) | Code::Columns(bits) => (1u32 << bits >> 1) as f32,
        Code::Halves => 8.0,
        _ => 0.0,
    }
}

/// By how much the word of a column is to be shifted in [`Code::Halves`].
pub const fn halves_shift(column: usize) -> usize {
    4 * (column % 8 / 2) + 16 * (column % 2)
}

/// Expands zero points: row `within` of a run ([`Numbers::Points`]).
pub fn points(code: Code, more: u32, codes: &[u8], within: usize, out: &mut [f32]) {
    look_up(code, codes, within, false, out);
    let mask = mask(code.bits() as u32) as u32;
    out.iter_mut()
        .filter(|_| more > 0)
        .for_each(|out| *out = ((*out as u32).wrapping_add(more) & mask) as f32);
}

/// The value of four bits.
pub fn table_value(table: Table, bits: u8) -> f32 {
    let bits = usize::from(bits & 15);
    match table {
        Table::E2M1 => f32::from(crate::formats::E2M1_DOUBLED[bits]) * if bits == 8 { -0.5 } else { 0.5 },
        Table::Nf4 => NF4[bits],
        Table::Fp4 if bits <= 8 => FP4[bits % 8],
        Table::Fp4 => -FP4[bits - 8],
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
    ((byte(at / 8) | byte(at / 8 + 1) << 8) >> (at % 8)) & mask(bits) as u32
}

/// The word of this number; zero past the end.
fn word_at(bytes: &[u8], word: usize) -> u32 {
    bytes.get(word * 4..).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}
