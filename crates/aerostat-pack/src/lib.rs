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
mod options;
mod progress;
mod quantise;
mod run;
mod shard;
mod verify;

use std::path::Path;

pub use codec::{Codec, Estimate, estimate};
pub use error::{Error, ErrorKind};
pub use layout::packed_spec;
pub use options::Options;
pub use progress::{Packed, Progress, Summary};
pub use quantise::quantise;

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
