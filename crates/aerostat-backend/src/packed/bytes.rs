//! Numbers in packed tiles, and the error of tiles that are damaged.

use crate::{Error, ErrorKind};

/// Writes a little-endian number at `at`, where there must be room.
pub(super) fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The little-endian number at `at`, which must lie within.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    let b = &bytes[at..at + 4];
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

/// The error of a tile whose bytes cannot be as they are.
pub(super) fn corrupt(what: &str) -> Error {
    let message = format!("a packed weight tile is damaged: {what}; pack the model again from its original");
    Error::new(ErrorKind::Corrupt, message)
}
