//! The op set every device implements, the naive reference backend and the conformance suite.
//!
//! A [`Backend`] owns activations, resident weights and the KV cache, and hands out handles to them. Ops name their
//! inputs by handle, so that one device may run an op at once (`reference`, `cpu`) and another may record it
//! (`gpu`). Weight tiles that pass through are handed over with their bytes ([`Backend::upload`]) and given back after
//! their last use ([`Backend::release`]). Nothing is read back but what [`Backend::read`] is asked for: logits and router
//! decisions.
//!
//! What each op computes, down to the order of its additions, is written in [`numerics`]; on CPUs every
//! implementation gives the same bits as [`reference::Reference`].

#![forbid(unsafe_code)]

mod aligned;
mod backend;
mod check;
pub mod conformance;
pub mod delta;
mod error;
pub mod formats;
mod host;
mod kernels;
mod memory;
mod numbers;
pub mod numerics;
mod ops;
pub mod packed;
pub mod quantised;
pub mod reference;
mod rows;
pub mod rules;
pub mod scan;
mod sparse;
mod weights;

pub use backend::Backend;
pub use check::{first_visible, visible};
pub use error::{Error, ErrorKind};
pub use kernels::{Checks, HostDevice, Kernels, ScalingView};
pub use memory::{HostMemory, KvView, View};
pub use ops::{
    Activation, Alibi, Allocated, Attention, Branch, BufferId, Capabilities, DeltaRule, DeviceCounters,
    DeviceMemory, Extras, Footprint, HeadCopy, Home, HostBytes, Index, KvElement, KvLayout, KvType, Mat,
    Nested, Placement, Rope, RopeStyle, RowPlace, Scaling, ScratchNeed, StateRow, StateScan, SweepRows, Tile,
    TileShape, UploadId, Weight, WeightId, Window,
};
