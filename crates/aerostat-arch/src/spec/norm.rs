//! Norms.

use super::vector::Vector;

/// How values are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root-mean-square norm: values are divided by their root mean square.
    Rms,
    /// Layer norm: values less their mean are divided by their standard deviation.
    Layer,
}

/// A norm over each group of `size` columns of a row, times weights, plus a bias.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Root mean square or layer norm.
    pub kind: NormKind,
    /// Columns that are normalised together: the width of the row, or the size of a head.
    pub size: usize,
    /// Factors, `[size]` for all groups alike, or `[columns of the row]`, one group's after the other's. `None`: there are none.
    pub weight: Option<Vector>,
    /// Factors of the second group, the third and so on, `[size]` each, where each group has a tensor of its own; `weight`
    /// then holds those of the first. Else empty.
    pub further: Vec<Vector>,
    /// Added to normalised values in the end, as many elements as factors; `None`: nothing is.
    pub bias: Option<Vector>,
    /// Added to the mean of squares before its root is taken.
    pub eps: f32,
}

impl Norm {
    /// Its weights and bias.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.weight.iter().chain(&self.further).chain(&self.bias)
    }
}
