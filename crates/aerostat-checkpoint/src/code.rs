//! How elements are coded whose scales lie in other tensors: what a type of bytes or words does not say.

use std::fmt;

/// How the elements of a matrix are coded.
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
    /// Of a matrix stored by inputs, as GPTQ has it: this many bits, 1 to 8, for each output a column of words through which
    /// its inputs run, from the lowest bit up.
    Columns(u32),
    /// Of a matrix stored by inputs, as AWQ has it: four bits, eight outputs in a word, of which the even ones are in the
    /// lower half.
    Halves,
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

impl Code {
    /// Bits of an element.
    pub const fn bits(self) -> usize {
        match self {
            Self::E4M3 | Self::E5M2 | Self::I8 => 8,
            Self::Packed(bits) | Self::Columns(bits) => bits as usize,
            Self::LowFirst(_) | Self::HighFirst(_) | Self::Halves => 4,
        }
    }

    /// The bytes of a stored row of `len` elements, which are inputs of an output or outputs of an input: words of four
    /// bytes where elements are packed; of [`Self::Columns`], those of a row of words.
    pub const fn row_bytes(self, len: usize) -> usize {
        match self {
            Self::Columns(_) => len.saturating_mul(4),
            Self::Packed(_) | Self::Halves => len.saturating_mul(self.bits()).div_ceil(32).saturating_mul(4),
            _ => len.saturating_mul(self.bits()).div_ceil(8),
        }
    }

    /// The fewest stored rows that hold whole inputs (or outputs), and how many.
    pub const fn run(self) -> (usize, usize) {
        match self {
            Self::Columns(bits @ (1 | 2 | 4 | 8)) => (1, 32 / bits as usize),
            Self::Columns(bits) => (bits as usize, 32),
            _ => (1, 1),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::E4M3 => f.write_str("FP8 E4M3"),
            Self::E5M2 => f.write_str("FP8 E5M2"),
            Self::I8 => f.write_str("LLM.int8"),
            Self::Packed(bits) => write!(f, "INT{bits}"),
            Self::LowFirst(table) | Self::HighFirst(table) => match table {
                Table::E2M1 => f.write_str("MXFP4"),
                Table::Nf4 => f.write_str("NF4"),
                Table::Fp4 => f.write_str("FP4"),
            },
            Self::Columns(bits) => write!(f, "GPTQ {bits}-bit"),
            Self::Halves => f.write_str("AWQ 4-bit"),
        }
    }
}

/// How numbers that lie beside codes are stored: scales, zero points, the groups of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numbers {
    /// In a plain type.
    Plain,
    /// Bytes, each a power of two.
    E8M0,
    /// Bytes that stand for numbers of a table, with scales of their own ("double quantisation").
    Nested,
    /// Coded without scales (rows are those of the matrix of numbers); `more` is added, and what no longer fits the bits is
    /// cut off.
    Points {
        /// How.
        code: Code,
        /// What is added.
        more: u32,
    },
    /// Words, each less than this.
    Indices(usize),
}
