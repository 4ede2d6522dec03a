//! The CPU device: SIMD kernels for the weight formats and instruction sets, and the worker pool.
//!
//! Every algorithm is written once over a vector of sixteen f32 and a weight format, and compiled for each instruction
//! set; [`Isa`] is chosen at open. The bits of all results are those of
//! [`aerostat_backend::reference::Reference`], whatever the instruction set and the number of threads: work is split
//! over outputs, never over a sum.
//!
//! ```
//! use aerostat_backend::{Backend, Mat};
//! use aerostat_cpu::{Cpu, CpuConfig};
//!
//! let mut cpu = Cpu::new(CpuConfig { threads: 2, isa: None })?;
//! let x = Mat::new(cpu.allocate(3)?, 1, 3);
//! cpu.write(x, &[1.0, 2.0, 3.0])?;
//! cpu.scale(x, 2.0)?;
//! assert_eq!(cpu.read(x)?, [2.0, 4.0, 6.0]);
//! # Ok::<(), aerostat_backend::Error>(())
//! ```

#![allow(clippy::needless_range_loop, reason = "kernels index register tiles in step")]

mod attention;
mod checksum;
mod delta;
mod device;
mod elementwise;
mod format;
mod heads;
mod isa;
mod k_major;
mod layer_norm;
mod matmul;
mod memory;
mod packed_matmul;
pub mod peaks;
mod row_norms;
mod rows;
mod scaled;
mod scan;
mod scratch;
mod sparse;
mod vector;
mod workers;

pub use device::{Cpu, CpuConfig, CpuKernels};
pub use isa::Isa;
