//! Caps on what headers may ask for.

/// The longest JSON file with a configuration.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The most commas in it, about the values: each takes up to a hundred times its byte.
pub(crate) const CONFIG_COMMAS_MAX: usize = 1 << 17;
/// The longest header, index or metadata section that is read; the safetensors format sets the same limit.
pub(crate) const HEADER_BYTES_MAX: u64 = 100_000_000;
/// The most tensors in one file.
pub(crate) const TENSORS_MAX: usize = 1 << 20;
/// The most dimensions of a tensor.
pub(crate) const DIMENSIONS_MAX: usize = 16;
