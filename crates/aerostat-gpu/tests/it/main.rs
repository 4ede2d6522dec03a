//! The GPU device against the reference and the CPU, on an adapter of this machine. Where there is none, tests fail.

mod counters;
mod exactness;
mod memory;
mod models;
mod ops;
mod overlap;
mod shaders;

use aerostat_backend::Backend;
use aerostat_gpu::{Choice, Gpu, GpuConfig, UploadPath};

/// Any adapter.
fn open(memory_bytes: Option<u64>, path: UploadPath) -> Gpu {
    let config = GpuConfig { adapter: Choice::Any, memory_bytes, path };
    Gpu::new(config).expect("an adapter; mesa-vulkan-drivers brings one to a machine without a card")
}

fn boxed(path: UploadPath) -> Box<dyn Backend> {
    Box::new(open(None, path))
}
