//! Small tensors, and how the elements of one lie among those of others.

use aerostat_checkpoint::{DType, Extent};

/// A small tensor, or a part of one, kept in memory as f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// Stored type of its elements.
    pub dtype: DType,
    /// Number of elements, whatever the tensor's shape.
    pub len: usize,
    /// Where its bytes lie; with `runs`, those between its runs are included.
    pub extent: Extent,
    /// How its elements lie among those of a tensor that holds other vectors too; `None`: one after the other.
    pub runs: Option<Runs>,
    /// Added to each element when it is read (1 where norm weights are stored as `w - 1`, mostly 0).
    pub offset: f32,
}

/// Runs of rows of a matrix (or elements of a vector) at equal distances: the part of one matrix in a tensor where the heads of
/// queries, keys and values alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Rows in a run; at least 1.
    pub rows: usize,
    /// Distance from the start of a run to that of the next, in rows.
    pub stride: usize,
}

impl Runs {
    /// The row of the tensor, counted from the first row of the first run, that row `index` of the part is.
    pub fn place(&self, index: usize) -> usize {
        index / self.rows * self.stride + index % self.rows
    }
}
