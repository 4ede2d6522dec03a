//! One block forward for all families, and the paged KV cache's bookkeeping.
//!
//! A [`Model`] is driven tile by tile: [`Model::step`] multiplies one tile and, at the borders of a matrix, does what
//! comes between two matrices of a block (norms, rotation, attention, activation, residual). It names neither a
//! device nor a file: weights come in as [`Weight`](aerostat_backend::Weight) operands, in the plan's order.

#![forbid(unsafe_code)]

pub mod angle;
mod delta;
mod forward;
mod latent;
mod pages;
mod rope;
mod routing;
mod tile;
mod vectors;

pub use forward::{Batch, Limits, Model};
pub use pages::{Before, Pages, Rotations};
