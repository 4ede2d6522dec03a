//! What the caller decides about a packing.

use crate::Codec;

/// The largest tile: systems read less than 2 GiB at once, and a tile may grow a little as it is packed.
pub(crate) const TILE_BYTES_MAX: u64 = 1 << 30;

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
    /// Bytes of a tile before it is packed, about; at most 1 GiB.
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
