//! What an adapter adds to a matrix.

use super::matrix::Role;
use super::vector::Vector;

/// A low-rank change of a matrix (LoRA, Hu et al. 2021, arXiv:2106.09685): `factor * (x downᵀ) upᵀ` is added to the
/// matrix's outputs for the inputs `x`, before its bias.
#[derive(Clone, Debug)]
pub struct Update {
    /// The matrix's block.
    pub block: usize,
    /// What the matrix does there.
    pub role: Role,
    /// Columns between the two factors.
    pub rank: usize,
    /// `[rank, inputs]`.
    pub down: Vector,
    /// `[outputs, rank]`.
    pub up: Vector,
    /// Alpha over rank, mostly.
    pub factor: f32,
}
