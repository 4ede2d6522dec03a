//! What lies beside matrices of codes: scales, zero points, the groups of inputs. Plain data.

use aerostat_checkpoint::{Code, DType, Extent, Numbers};
use serde_json::Value;

use crate::spec::Vector;

/// The scales of a matrix of codes: one for each block of rows and columns, counted as they are stored.
#[derive(Clone, Debug)]
pub struct Scales {
    /// How elements are coded.
    pub code: Code,
    /// `[blocks of rows, blocks of columns]` of the whole tensor that the matrix is in, kept in memory; `None`: they are among
    /// the companions.
    pub kept: Option<Vector>,
    /// What is read before the codes in every sweep, in order.
    pub companions: Vec<Companion>,
    /// What scales are made of that are codes themselves.
    pub nested: Option<Nested>,
    /// Rows of a block.
    pub block_rows: usize,
    /// Columns of a block.
    pub block_cols: usize,
    /// Row of what is scaled at which the matrix begins.
    pub first_row: usize,
    /// The type to which the reference rounds scaled elements.
    pub rounding: DType,
    /// JSON of bitsandbytes that says more, to be read when the model is opened ([`Scales::state`]).
    pub state: Option<Vector>,
}

/// What bitsandbytes says of a matrix in a tensor beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// The type that its weights had, to which they are rounded.
    pub rounding: DType,
    /// What is added to scales that are codes themselves.
    pub offset: f32,
}

impl Scales {
    /// Reads [`Scales::state`].
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

    /// What is kept in memory.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.kept.iter().chain(self.nested.iter().flat_map(|nested| [&nested.values, &nested.scales]))
    }
}

/// What lies beside codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Beside {
    /// One for each block.
    Scales,
    /// Zero points, as many as scales.
    Zeros,
    /// The group of each input, in place of blocks.
    Groups,
}

/// Numbers beside a matrix of codes that are read in every sweep, just before it.
#[derive(Clone, Debug)]
pub struct Companion {
    /// The tensor's name.
    pub name: String,
    /// What they are.
    pub what: Beside,
    /// Stored type.
    pub dtype: DType,
    /// How they are stored in it.
    pub stored: Numbers,
    /// Rows and columns of numbers.
    pub shape: (usize, usize),
    /// Rows as they are stored.
    pub rows: usize,
    /// Where those lie, one after the other.
    pub extent: Extent,
}

impl Companion {
    /// How many numbers they are.
    pub fn numbers(&self) -> usize {
        self.shape.0 * self.shape.1
    }

    /// Bytes of one stored row.
    pub fn row_bytes(&self) -> u64 {
        self.extent.bytes / self.rows.max(1) as u64
    }

    /// Elements of its type in one stored row.
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

/// Scales that stand for values of a table, times scales of their own.
#[derive(Clone, Debug)]
pub struct Nested {
    /// 256 of them.
    pub values: Vector,
    /// One for each run of `len` scales of the tensor.
    pub scales: Vector,
    /// Scales that share one of those.
    pub len: usize,
    /// The number of the matrix's first scale in the tensor.
    pub first: usize,
}
