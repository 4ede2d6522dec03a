//! Matrices of codes: what makes weights of them, and what of it lies beside them (scales, zero points, groups of inputs).

use aerostat_checkpoint::{Code, DType, Extent, Numbers};
use serde_json::Value;

use super::vector::Vector;

/// How a matrix of codes becomes weights: one scale for each block of rows and columns, counted as they are stored.
#[derive(Clone, Debug)]
pub struct Scales {
    /// How elements are coded.
    pub code: Code,
    /// Scales kept in memory, `[blocks of rows, blocks of columns]` of the whole tensor that the matrix is in; `None`: scales
    /// are among the companions.
    pub kept: Option<Vector>,
    /// Numbers that are read from disk just before the codes in every sweep, in order.
    pub companions: Vec<Companion>,
    /// Where scales are codes themselves: their values and their own scales.
    pub nested: Option<Nested>,
    /// Stored rows of a block; at least 1.
    pub block_rows: usize,
    /// Stored columns of a block; at least 1.
    pub block_cols: usize,
    /// The row at which the matrix begins, counted from the first that scales (`kept`, or the companion) cover.
    pub first_row: usize,
    /// The type to which the reference implementation rounds scaled elements.
    pub rounding: DType,
    /// JSON that bitsandbytes stores beside a matrix, to be read by [`Scales::read_state`] when the model is opened.
    pub state: Option<Vector>,
}

/// What bitsandbytes says of a matrix in a tensor beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// The type that the weights had before they were quantised, to which they are rounded.
    pub rounding: DType,
    /// Added to scales that are codes themselves; 0 where they are not.
    pub offset: f32,
}

impl Scales {
    /// Reads the JSON of [`Scales::state`], and checks it against the shapes of tensors.
    ///
    /// # Errors
    /// It is not JSON, lacks a key, or differs from what the shapes of tensors say.
    pub fn read_state(&self, bytes: &[u8]) -> Result<State, String> {
        let state: Value = serde_json::from_slice(bytes).map_err(|e| format!("it is not JSON: {e}"))?;
        let is = |key: &str, wanted: usize| match state.get(key) {
            Some(found) if found.as_u64() == Some(wanted as u64) => Ok(()),
            found => Err(format!("`{key}` is {found:?}, but the shapes of tensors say {wanted}")),
        };
        is("blocksize", self.block_rows * self.block_cols)?;
        let rounding = match state.get("dtype").and_then(Value::as_str) {
            Some("float32") => DType::F32,
            Some("float16") => DType::F16,
            Some("bfloat16") => DType::BF16,
            other => return Err(format!("`dtype` {other:?} is not supported")),
        };
        let offset = match &self.nested {
            None => 0.0,
            Some(nested) => {
                is("nested_blocksize", nested.len)?;
                let offset = state.get("nested_offset").and_then(Value::as_f64);
                offset.ok_or("`nested_offset` is missing")? as f32
            }
        };
        Ok(State { rounding, offset })
    }

    /// The scales that are kept in memory.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.kept.iter().chain(self.nested.iter().flat_map(|nested| [&nested.values, &nested.scales]))
    }
}

/// The kind of numbers that lie beside codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Beside {
    /// Scales, one for each block.
    Scales,
    /// Zero points, one for each scale.
    Zeros,
    /// The group of each input, `[1, inputs]`, in place of blocks.
    Groups,
}

/// Numbers beside a matrix of codes that are read from disk in every sweep, just before it.
#[derive(Clone, Debug)]
pub struct Companion {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// Scales, zero points or groups.
    pub what: Beside,
    /// Stored type of the elements that hold the numbers.
    pub dtype: DType,
    /// How the numbers are stored in those elements.
    pub stored: Numbers,
    /// Rows and columns of numbers, once they are expanded.
    pub shape: (usize, usize),
    /// Rows as they are stored, of which one may hold several rows of numbers.
    pub rows: usize,
    /// Where the stored rows lie, one after the other.
    pub extent: Extent,
}

impl Companion {
    /// How many numbers there are, once they are expanded.
    pub fn numbers(&self) -> usize {
        self.shape.0 * self.shape.1
    }

    /// Bytes of one stored row.
    pub fn row_bytes(&self) -> u64 {
        self.extent.bytes / self.rows.max(1) as u64
    }

    /// Elements of [`Companion::dtype`] in one stored row.
    pub fn stored_cols(&self) -> usize {
        self.row_bytes() as usize / self.dtype.block_bytes().max(1)
    }

    /// The rows of numbers that the stored rows `start .. start + rows` hold: the first, and how many.
    pub fn rows_of(&self, start: usize, rows: usize) -> (usize, usize) {
        let (of, run) = if let Numbers::Points { code, .. } = self.stored { code.run() } else { (1, 1) };
        let first = (start / of * run).min(self.shape.0);
        (first, (rows / of * run).min(self.shape.0 - first))
    }
}

/// Scales that are codes themselves: each stands for a value of a table, times a scale that a run of them shares.
#[derive(Clone, Debug)]
pub struct Nested {
    /// What each byte stands for, `[256]`.
    pub values: Vector,
    /// The scales of scales, one for each run of `len` scales of the tensor.
    pub scales: Vector,
    /// Scales in a run.
    pub len: usize,
    /// Which of the tensor's scales is the first of the matrix.
    pub first: usize,
}
