//! Packed copies of checkpoints that read faster: lossless, 8-bit, 4-bit.
//!
//! [`pack`] streams a Hugging Face folder, tensor by tensor in the order in which a sweep reads them, through coders on
//! all cores to a folder that is a model by itself (`docs/format.md`). Memory is bounded by a few tiles for each thread, and
//! one expert where those are stored by inputs. What is done is written down in the folder as it goes, so that the same
//! call goes on where an earlier one was stopped, however it was stopped; the result is the same to the byte. Nothing of
//! the original is touched unless the caller asks for it, and then a file goes only when all of its tensors have been
//! read back from disk and checked.

#![forbid(unsafe_code)]

mod codec;
mod error;
mod journal;
mod layout;
mod quantise;
mod run;
mod shard;
mod verify;

use std::path::{Path, PathBuf};

pub use codec::{Codec, Estimate, estimate};
pub use error::{Error, ErrorKind};
pub use layout::packed_spec;
pub use quantise::quantise;

/// How to pack.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to make of the weights.
    pub codec: Codec,
    /// Read everything back at the end, check it, and compare what is lossless with what it was made of.
    pub verify: bool,
    /// Delete each file of the original when all its tensors have been read back and checked.
    pub delete_original: bool,
    /// Threads that code.
    pub threads: usize,
    /// Bytes of a tile before it is packed, about.
    pub tile_bytes: u64,
    /// Bytes of the original in one file of the copy, about.
    pub shard_bytes: u64,
    /// As if the disk were full after so many bytes; for tests.
    #[doc(hidden)]
    pub space: Option<u64>,
}

impl Options {
    /// The usual sizes.
    pub fn new(codec: Codec, threads: usize) -> Self {
        Self {
            codec,
            verify: false,
            delete_original: false,
            threads: threads.max(1),
            tile_bytes: 1 << 20,
            shard_bytes: 4 << 30,
            space: None,
        }
    }
}

/// How far packing is.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// The tensor that was finished, and what became of it.
    pub tensor: Option<Packed<'a>>,
    /// Bytes of the original that are done, those of earlier calls included.
    pub done: u64,
    /// Of these.
    pub total: u64,
    /// Bytes written for them.
    pub written: u64,
    /// Bytes that an earlier call had done.
    pub resumed: u64,
    /// What is done is being read back.
    pub verifying: bool,
}

/// A tensor that was packed.
#[derive(Clone, Debug)]
pub struct Packed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its format in the copy.
    pub dtype: &'a str,
    /// Bytes before and after.
    pub bytes: (u64, u64),
    /// Root of the mean square of the error over that of the weights; 0: nothing was lost.
    pub error: f64,
}

/// What packing made.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The folder.
    pub path: PathBuf,
    /// Bytes of all tensors before.
    pub source_bytes: u64,
    /// Bytes of the shards.
    pub bytes: u64,
    /// Tensors.
    pub tensors: usize,
    /// The tensor with the largest error, and that.
    pub worst: Option<(String, f64)>,
    /// Everything was read back and checked.
    pub verified: bool,
    /// Files of the original that were deleted.
    pub deleted: Vec<PathBuf>,
}

/// Packs the model in the folder `source` to the folder `out`, or goes on with it. `observe` is told how it goes, and
/// stops it by saying `true`.
///
/// # Errors
/// [`ErrorKind`] says which kinds there are. After any of them the same call goes on.
pub fn pack(
    source: &Path,
    out: &Path,
    options: &Options,
    observe: &mut dyn FnMut(&Progress<'_>) -> bool,
) -> Result<Summary, Error> {
    run::run(source, out, options, observe)
}
