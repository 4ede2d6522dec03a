//! The op set every device implements, the naive reference backend and the conformance suite.
//!
//! A [`Backend`] owns activations, resident weights and the KV cache, and hands out handles to them. Ops name their
//! inputs by handle, so that one device may run an op at once (`reference`, `cpu`) and another may record it
//! (`gpu`). The bytes of a streamed weight tile pass through an op call exactly once. Nothing is read back but what
//! [`Backend::read`] is asked for: logits and router decisions.
//!
//! What each op computes, down to the order of its additions, is written in [`numerics`]; on CPUs every
//! implementation gives the same bits as [`reference::Reference`].

#![forbid(unsafe_code)]

mod check;
pub mod coded;
pub mod conformance;
pub mod delta;
mod error;
pub mod formats;
mod host;
mod memory;
mod numbers;
pub mod numerics;
mod ops;
pub mod packed;
pub mod reference;
mod sparse;

pub use check::first_visible;
pub use error::{Error, ErrorKind};
pub use host::{Checks, HostDevice, Kernels, ScalingView};
pub use memory::{HostMemory, KvView, View};
pub use ops::{
    Activation, Alibi, Attention, Backend, BufferId, Capabilities, DeltaRule, Index, KvLayout, KvType, Mat,
    Nested, Placement, Rope, RopeStyle, RowPlace, Scaling, StateRow, Tile, Weight, WeightId, Window,
};
