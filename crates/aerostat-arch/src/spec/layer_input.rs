//! A second embedding of each token, of which every block reads a part.

use aerostat_types::Activation;

use super::matrix::{Linear, Matrix, Role};
use super::norm::Norm;
use super::vector::Vector;

/// Inputs of blocks beside the residual stream: for each row `blocks * width` elements, `width` for each block. They are
/// `sum_factor * (norm(project_factor * project(x)) + table_factor * row of the token)`, where `project` is a matrix of the first
/// block, `x` are the embeddings as they enter the residual stream, and the norm is over each block's part.
#[derive(Clone, Debug)]
pub struct LayerInputs {
    /// `[tokens, blocks * width]`; rows are gathered, as those of the embedding are. A token that has no row uses the first.
    pub table: Matrix,
    /// Elements of a block's part.
    pub width: usize,
    /// Factor on rows of the table.
    pub table_factor: f32,
    /// Factor on what the first block's [`layer_inputs`](super::Block::layer_inputs) gives.
    pub project_factor: f32,
    /// Norm of each block's part of that, `[width]`.
    pub norm: Norm,
    /// Factor on the sum.
    pub sum_factor: f32,
}

/// What a block makes of its part of [`LayerInputs`], and adds to the residual stream in the end:
/// `norm(up(activation(gate(x)) * part))`.
#[derive(Clone, Debug)]
pub struct LayerInput {
    /// Makes the gate of the residual stream, `[width, hidden]`.
    pub gate: Linear,
    /// The gate's non-linearity.
    pub activation: Activation,
    /// Makes what is normalised, `[hidden, width]`.
    pub up: Linear,
    /// Norm of that, `[hidden]`.
    pub norm: Norm,
}

impl LayerInput {
    /// Its linear maps in the order of use.
    pub(super) fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        [(Role::LayerGate, &self.gate), (Role::LayerOutput, &self.up)].into_iter()
    }

    /// The same, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.gate, &mut self.up].into_iter()
    }

    /// Its small tensors.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.norm.vectors()
    }
}
