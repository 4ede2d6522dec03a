//! The op set on graphics cards, through wgpu: Vulkan, Metal and DirectX 12.
//!
//! A [`Gpu`] records ops as they are asked for; a thread of its own hands them to the device in batches, and nothing waits but
//! whoever reads results or needs memory that the device still uses. Kernels are WGSL, a file for each op (`src/wgsl`),
//! weights are expanded in them from the formats that they are stored in (`src/wgsl/formats`).
//!
//! On one device the bits of a result do not depend on how many rows are computed together, on tiles, or on where weights
//! were: every sum has one order. Against the reference results differ by rounding; `tests/it.rs` holds each op to a bound.

#![forbid(unsafe_code)]

mod adapters;
mod attend;
mod backend;
mod budget;
mod cache;
mod context;
mod gpu;
mod measure;
mod memory;
mod pipelines;
mod products;
mod stream;
mod weights;

pub use adapters::{AdapterKind, AdapterReport, Choice, UploadPath, adapters};
pub use gpu::{Gpu, GpuConfig};
pub use pipelines::{AttentionShape, Kernel, Weights};
