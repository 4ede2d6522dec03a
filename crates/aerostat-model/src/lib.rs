//! What a model computes, as a program, and its execution on a device; the paged KV cache's bookkeeping.
//!
//! [`Program::compile`] turns a model's description into a list of ops over named buffers. A [`Model`] is that program on a
//! device: [`Model::run`] runs an op, [`Model::multiply`] one tile of a product. It names neither a device nor a file:
//! weights come in as [`Weight`](aerostat_backend::Weight) handles, in the plan's order.

#![forbid(unsafe_code)]

pub mod angle;
mod codes;
mod constants;
mod model;
mod pages;
pub mod program;
mod rope;
mod routing;

pub use model::{Batch, Limits, Model, footprint, scratch_need};
pub use pages::{Before, Pages, Rotations};
pub use program::Program;
