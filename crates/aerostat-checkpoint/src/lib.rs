//! Headers of safetensors, PyTorch and GGUF checkpoints: a catalogue of tensors and their places on disk.
//!
//! [`Checkpoint::open`] takes a Hugging Face folder (`config.json` with one or many `*.safetensors`, or else
//! `pytorch_model*.bin`) or a GGUF file (any part of a split set stands for the whole set). It reads headers and
//! configuration only, never tensor bytes, and trusts nothing in them: counts, lengths and nesting are capped, arithmetic
//! is checked, and every tensor's extent is known to lie inside its file, to have the length that its shape and type
//! demand and to overlap no other; but tensors of a PyTorch file may share a storage. Pickles are interpreted, never run.
//!
//! ```no_run
//! # fn main() -> Result<(), aerostat_checkpoint::Error> {
//! let checkpoint = aerostat_checkpoint::Checkpoint::open(std::path::Path::new("models/tiny"))?;
//! for tensor in checkpoint.catalog.tensors() {
//!     println!("{} {} {:?} at {}", tensor.name, tensor.dtype, tensor.shape, tensor.extent.offset);
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod adapter;
mod catalog;
mod code;
mod disk;
mod dtype;
mod error;
mod folder;
#[doc(hidden)]
pub mod fuzzing;
pub mod gguf;
mod limits;
mod model;
pub mod packed;
mod pytorch;
mod safetensors;

pub use adapter::{ADAPTER_CONFIG, Adapter};
pub use aerostat_input::{MESSAGE_CHARS_MAX, NAME_CHARS_MAX, name_shown, shortened};
pub use catalog::{Catalog, Extent, File, FileId, Tensor};
pub use code::{Code, Numbers, Table};
pub use dtype::DType;
pub use error::{Error, ErrorKind};
pub use model::{AdapterBeside, Checkpoint, Config, HfConfig, TextFiles};
