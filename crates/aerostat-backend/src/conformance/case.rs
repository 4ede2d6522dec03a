//! The ops that the suite compares, each with its shapes.

use aerostat_checkpoint::DType;

#[allow(unused_imports, reason = "for the documentation")]
use crate::Backend;
use crate::quantised::Quantised;
use crate::{
    Activation, Attention, Capabilities, DeltaRule, Error, HeadCopy, Index, KvType, Rope, StateScan, defect,
};

/// Where the values of a case come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Between -1 and 1, many digits.
    Plain,
    /// With zeros of both signs, subnormals, huge values, infinities and NaN among them.
    Special,
}

/// An op that works element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elementwise {
    /// [`Backend::add`].
    Add,
    /// [`Backend::add_bias`].
    AddBias,
    /// [`Backend::mul_columns`].
    MulColumns,
    /// [`Backend::mul_rows`].
    MulRows,
    /// [`Backend::mul`].
    Mul,
    /// [`Backend::scale`].
    Scale(f32),
    /// [`Backend::softcap`].
    Softcap(f32),
    /// [`Backend::clip`].
    Clip(f32),
    /// [`Backend::activate`].
    Activate(Activation),
    /// [`Backend::glu`], to a matrix of its own.
    Glu(Activation),
    /// [`Backend::glu`], over its first input.
    GluInPlace(Activation),
}

/// One op with its shapes.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are the shapes that the ops name")]
pub enum Case {
    Matmul {
        dtype: DType,
        rows: usize,
        n: usize,
        k: usize,
        weights: Keep,
        values: Values,
    },
    /// [`Backend::matmul_scaled`] of a tile from `first_row` on, or [`Backend::matmul_scaled_k_major`] by tiles of
    /// `tile_rows` from it on; the other device multiplies by the expanded weights.
    MatmulScaled {
        quantised: Quantised,
        rows: usize,
        n: usize,
        k: usize,
        block: (usize, usize),
        /// Zero points.
        zeros: bool,
        /// Groups by index.
        groups: bool,
        /// The matrix is stored by inputs.
        tile_rows: Option<usize>,
        first_row: usize,
        weights: Keep,
    },
    /// [`Backend::matmul_k_major`] by tiles of `tile_rows`; in plain formats the other device multiplies by the transposed
    /// matrix.
    MatmulKMajor {
        dtype: DType,
        rows: usize,
        n: usize,
        k: usize,
        tile_rows: usize,
        weights: Keep,
        values: Values,
    },
    ExpandRows {
        dtype: DType,
        n: usize,
        k: usize,
    },
    /// [`Backend::gather_weights`] of two tiles; the other device expands the rows from the host.
    GatherWeights {
        dtype: DType,
        n: usize,
        k: usize,
        packed: bool,
    },
    /// [`Backend::row_norms`]; the other device by tiles of one row, not packed.
    RowNorms {
        dtype: DType,
        n: usize,
        k: usize,
        packed: bool,
        weights: Keep,
        values: Values,
    },
    /// [`Backend::upload`] of so many tiles, of one row and more, which are in flight together.
    Uploads {
        dtype: DType,
        count: usize,
        k: usize,
    },
    CopyHeads {
        rows: usize,
        heads: usize,
        copy: HeadCopy,
    },
    Elementwise {
        op: Elementwise,
        rows: usize,
        cols: usize,
        values: Values,
    },
    RmsNorm {
        rows: usize,
        groups: usize,
        size: usize,
        in_place: bool,
        values: Values,
    },
    LayerNorm {
        rows: usize,
        groups: usize,
        size: usize,
        in_place: bool,
        values: Values,
    },
    Rope {
        rows: usize,
        heads: usize,
        rope: Rope,
    },
    Gather {
        rows: usize,
        cols: usize,
    },
    Scatter {
        rows: usize,
        cols: usize,
    },
    /// [`Backend::attention`]; on the tested device a page was saved, and loaded to another place.
    Attention {
        kv_type: KvType,
        shape: Attention,
        sinks: bool,
        /// Positions that biases by distance reach to either side; `None`: there are none.
        biases: Option<usize>,
        page_tokens: usize,
        lengths: Vec<usize>,
        values: Values,
    },
    SparseAttention {
        kv_type: KvType,
        shape: Attention,
        index: Index,
        count: usize,
        page_tokens: usize,
        lengths: Vec<usize>,
    },
    /// [`Backend::short_conv`] in two sweeps: of each sequence some rows, the rest by the same rows or, on the other device,
    /// one by one.
    ShortConv {
        channels: usize,
        kernel: usize,
        bias: bool,
        silu: bool,
        lengths: Vec<(usize, usize)>,
        values: Values,
    },
    /// The same of [`Backend::delta_rule`].
    DeltaRule {
        rule: DeltaRule,
        lengths: Vec<(usize, usize)>,
        values: Values,
    },
    /// The same of [`Backend::state_scan`].
    StateScan {
        scan: StateScan,
        lengths: Vec<(usize, usize)>,
        values: Values,
    },
}

/// How a case gives its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It passes through, at an address that is this many bytes past an even one.
    Arriving(usize),
    /// It stays.
    Resident,
}

impl Case {
    /// The device declares the formats of this case.
    pub fn is_declared(&self, capabilities: &Capabilities) -> bool {
        match self {
            Self::Matmul { dtype, .. }
            | Self::MatmulKMajor { dtype, .. }
            | Self::ExpandRows { dtype, .. }
            | Self::GatherWeights { dtype, .. }
            | Self::RowNorms { dtype, .. }
            | Self::Uploads { dtype, .. } => capabilities.weights.contains(dtype),
            Self::Attention { kv_type, .. } | Self::SparseAttention { kv_type, .. } => {
                capabilities.kv.contains(kv_type)
            }
            _ => true,
        }
    }

    /// How far a device that rounds otherwise may be off, in parts of the largest of the case's results: nothing where values
    /// are only moved; an operation or two where they are expanded or combined one by one; where they are summed, or go through
    /// functions that a device may compute by itself, what sums of some thousand products are off by in f32.
    pub fn bound(&self) -> f32 {
        match self {
            Self::Gather { .. } | Self::CopyHeads { .. } => 0.0,
            Self::ExpandRows { .. }
            | Self::GatherWeights { .. }
            | Self::Scatter { .. }
            | Self::Rope { .. } => 5e-7,
            Self::Elementwise { .. }
            | Self::RmsNorm { .. }
            | Self::LayerNorm { .. }
            | Self::RowNorms { .. } => 4e-6,
            Self::Matmul { .. }
            | Self::MatmulScaled { .. }
            | Self::MatmulKMajor { .. }
            | Self::Uploads { .. }
            | Self::Attention { .. }
            | Self::SparseAttention { .. }
            | Self::ShortConv { .. }
            | Self::DeltaRule { .. }
            | Self::StateScan { .. } => 2e-5,
        }
    }

    /// The KV cache is allocated once in a device's life, and places are checked against it.
    pub(super) fn needs_a_fresh_device(&self) -> bool {
        matches!(
            self,
            Self::Attention { .. }
                | Self::SparseAttention { .. }
                | Self::ShortConv { .. }
                | Self::DeltaRule { .. }
                | Self::StateScan { .. }
        )
    }
}

/// The error of a case that is computed as one of another op.
pub(super) fn other_case() -> Error {
    defect!("a case is computed as one of another op")
}
