//! Element types of both formats and the sizes of their blocks.

use std::fmt;

/// The type of a tensor's elements: every type that safetensors or ggml writes to files.
///
/// Types are stored as blocks of [`block_len`](DType::block_len) elements in [`block_bytes`](DType::block_bytes) bytes;
/// plain types have blocks of one element. Sources: the safetensors format (`Dtype`) and ggml (`ggml-common.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs, reason = "the names are those of the formats")]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    F6_E2M3,
    F6_E3M2,
    F4,
    C64,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    BOOL,
    Q8_0,
    Q8_1,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
}

use DType::*;

/// The types a safetensors header may name; the strings are those of [`DType::name`].
const SAFETENSORS: &[DType] = &[
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
];

impl DType {
    /// The types that packed matrices may have: of codes whose scales lie in other tensors, and those to compute with.
    pub const PACKED: &[DType] = &[
        F8_E4M3, F8_E5M2, F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL,
        IQ4_XS, TQ1_0, TQ2_0, MXFP4,
    ];
    /// The types that a sweep can compute with.
    pub const COMPUTABLE: &[DType] = Self::PACKED.split_at(2).1;

    /// Packed matrices of this type may have coded exponents.
    pub const fn has_coded_exponents(self) -> bool {
        matches!(self, BF16 | F16 | F8_E4M3 | F8_E5M2)
    }

    /// Elements per block; 1 for plain types.
    pub const fn block_len(self) -> usize {
        self.layout().1
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        self.layout().2
    }

    /// The name the type has in its format.
    pub fn name(self) -> &'static str {
        self.layout().0
    }

    /// The bytes that `elements` elements take; `None` if they are not whole blocks or the product overflows.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        let (_, block_len, block_bytes) = self.layout();
        let (block_len, block_bytes) = (block_len as u64, block_bytes as u64);
        if !elements.is_multiple_of(block_len) {
            return None;
        }
        (elements / block_len).checked_mul(block_bytes)
    }

    /// The type a safetensors header calls `name`.
    pub(crate) fn from_safetensors(name: &str) -> Option<DType> {
        SAFETENSORS.iter().copied().find(|dtype| dtype.name() == name)
    }

    /// The type with the number `id` in ggml. Numbers of withdrawn types (4, 5, 31–33, 36–38) are not known.
    pub(crate) fn from_ggml(id: u32) -> Option<DType> {
        Some(match id {
            0 => F32,
            1 => F16,
            2 => Q4_0,
            3 => Q4_1,
            6 => Q5_0,
            7 => Q5_1,
            8 => Q8_0,
            9 => Q8_1,
            10 => Q2_K,
            11 => Q3_K,
            12 => Q4_K,
            13 => Q5_K,
            14 => Q6_K,
            15 => Q8_K,
            16 => IQ2_XXS,
            17 => IQ2_XS,
            18 => IQ3_XXS,
            19 => IQ1_S,
            20 => IQ4_NL,
            21 => IQ3_S,
            22 => IQ2_S,
            23 => IQ4_XS,
            24 => I8,
            25 => I16,
            26 => I32,
            27 => I64,
            28 => F64,
            29 => IQ1_M,
            30 => BF16,
            34 => TQ1_0,
            35 => TQ2_0,
            39 => MXFP4,
            40 => NVFP4,
            41 => Q1_0,
            _ => return None,
        })
    }

    /// Name, elements per block, bytes per block.
    const fn layout(self) -> (&'static str, usize, usize) {
        match self {
            F64 => ("F64", 1, 8),
            F32 => ("F32", 1, 4),
            F16 => ("F16", 1, 2),
            BF16 => ("BF16", 1, 2),
            F8_E4M3 => ("F8_E4M3", 1, 1),
            F8_E5M2 => ("F8_E5M2", 1, 1),
            F8_E8M0 => ("F8_E8M0", 1, 1),
            F8_E4M3FNUZ => ("F8_E4M3FNUZ", 1, 1),
            F8_E5M2FNUZ => ("F8_E5M2FNUZ", 1, 1),
            F6_E2M3 => ("F6_E2M3", 4, 3),
            F6_E3M2 => ("F6_E3M2", 4, 3),
            F4 => ("F4", 2, 1),
            C64 => ("C64", 1, 8),
            I64 => ("I64", 1, 8),
            I32 => ("I32", 1, 4),
            I16 => ("I16", 1, 2),
            I8 => ("I8", 1, 1),
            U64 => ("U64", 1, 8),
            U32 => ("U32", 1, 4),
            U16 => ("U16", 1, 2),
            U8 => ("U8", 1, 1),
            BOOL => ("BOOL", 1, 1),
            Q8_0 => ("Q8_0", 32, 34),
            Q8_1 => ("Q8_1", 32, 36),
            Q4_0 => ("Q4_0", 32, 18),
            Q4_1 => ("Q4_1", 32, 20),
            Q5_0 => ("Q5_0", 32, 22),
            Q5_1 => ("Q5_1", 32, 24),
            Q2_K => ("Q2_K", 256, 84),
            Q3_K => ("Q3_K", 256, 110),
            Q4_K => ("Q4_K", 256, 144),
            Q5_K => ("Q5_K", 256, 176),
            Q6_K => ("Q6_K", 256, 210),
            Q8_K => ("Q8_K", 256, 292),
            IQ1_S => ("IQ1_S", 256, 50),
            IQ1_M => ("IQ1_M", 256, 56),
            IQ2_XXS => ("IQ2_XXS", 256, 66),
            IQ2_XS => ("IQ2_XS", 256, 74),
            IQ2_S => ("IQ2_S", 256, 82),
            IQ3_XXS => ("IQ3_XXS", 256, 98),
            IQ3_S => ("IQ3_S", 256, 110),
            IQ4_NL => ("IQ4_NL", 32, 18),
            IQ4_XS => ("IQ4_XS", 256, 136),
            TQ1_0 => ("TQ1_0", 256, 54),
            TQ2_0 => ("TQ2_0", 256, 66),
            MXFP4 => ("MXFP4", 32, 17),
            NVFP4 => ("NVFP4", 64, 36),
            Q1_0 => ("Q1_0", 128, 18),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
