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

mod catalog;
mod code;
mod disk;
mod dtype;
mod error;
mod folder;
pub mod gguf;
pub mod packed;
mod pytorch;
mod safetensors;

use std::path::{Path, PathBuf};

pub use catalog::{Catalog, Extent, File, FileId, Tensor};
pub use code::{Code, Numbers, Table};
pub use dtype::DType;
pub use error::{Error, ErrorKind};

/// The longest header, index or metadata section that is read; the safetensors format sets the same limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// The most tensors in one file.
const TENSORS_MAX: usize = 1 << 20;
/// The most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 16;

/// A model on disk: where its tensors lie, its configuration, and where its tokenizer is.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder or `.gguf` file that was opened (for a split set: its first part).
    pub path: PathBuf,
    /// Every tensor of every file.
    pub catalog: Catalog,
    /// The model's configuration as stored.
    pub config: Config,
    /// Tokenizer and chat template files: located, not read.
    pub text: TextFiles,
}

/// The configuration of a model, as its format stores it.
#[derive(Clone, Debug)]
pub enum Config {
    /// `config.json` of a Hugging Face folder.
    HuggingFace(HfConfig),
    /// The key-value section of a GGUF file.
    Gguf(gguf::Metadata),
}

/// The JSON files that describe a model in a Hugging Face folder.
#[derive(Clone, Debug)]
pub struct HfConfig {
    /// The path of `config.json`.
    pub path: PathBuf,
    /// The content of `config.json`, an object.
    pub config: serde_json::Value,
    /// The content of `generation_config.json`, an object, if there is one.
    pub generation: Option<serde_json::Value>,
}

/// Where the tokenizer and the chat template are.
#[derive(Clone, Debug)]
pub enum TextFiles {
    /// Files of a Hugging Face folder, each if present.
    HuggingFace {
        /// `tokenizer.json`.
        tokenizer_json: Option<PathBuf>,
        /// `tokenizer.model` (SentencePiece or tiktoken).
        tokenizer_model: Option<PathBuf>,
        /// `tokenizer_config.json`.
        tokenizer_config: Option<PathBuf>,
        /// `chat_template.jinja`.
        chat_template: Option<PathBuf>,
        /// `special_tokens_map.json`.
        special_tokens_map: Option<PathBuf>,
    },
    /// The vocabulary is in the metadata of [`Config::Gguf`].
    Gguf,
}

impl Checkpoint {
    /// Opens a folder with `config.json` and safetensors files (PyTorch files where there are none), or a `.gguf` file.
    ///
    /// A folder without either that holds exactly one GGUF model (one file or one split set) opens as that model.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no model at `path`, [`ErrorKind::Unsupported`] for formats that are not read,
    /// [`ErrorKind::Config`] for malformed JSON, and the kinds that concern headers. Each names the file and, where there
    /// is one, the tensor.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        folder::open(path)
    }
}

/// The parsers on bytes in memory, for fuzz targets.
#[doc(hidden)]
#[allow(missing_docs, reason = "not part of the interface")]
pub mod fuzzing {
    use super::*;

    pub fn safetensors(bytes: &[u8]) -> Result<Catalog, Error> {
        safetensors::read(bytes, file(bytes))
    }

    pub fn gguf(bytes: &[u8]) -> Result<(gguf::Metadata, Catalog), Error> {
        gguf::read(bytes, file(bytes), gguf::ALIGNMENT_DEFAULT)
    }

    pub fn pytorch(bytes: &[u8]) -> Result<Catalog, Error> {
        pytorch::read(std::io::Cursor::new(bytes), file(bytes))
    }

    pub fn index(bytes: &[u8]) -> Result<usize, Error> {
        safetensors::Index::parse(bytes, Path::new("index")).map(|index| index.tensors.len())
    }

    fn file(bytes: &[u8]) -> File {
        File { path: PathBuf::from("bytes"), bytes: bytes.len() as u64 }
    }
}
