//! The keys that clients of the server may show.

use std::env;
use std::path::Path;

use aerostat_serve::Keys;

use crate::failure::Failure;
use crate::small_file;

/// The size of a file of keys beyond which it is not read.
const KEYS_BYTES_MAX: u64 = 1 << 20;

/// Those of a file and the one of the environment.
pub(crate) fn keys(file: Option<&Path>) -> Result<Keys, Failure> {
    let keys = env::var("AEROSTAT_API_KEY").map_or_else(|_| Keys::default(), |key| Keys::parse(&key));
    let Some(path) = file else { return Ok(keys) };
    let text = small_file::read(path, KEYS_BYTES_MAX)
        .map_err(|e| Failure::usage(format!("cannot read the keys in {}: {e}", path.display())))?;
    let more = Keys::parse(&text);
    if more.is_empty() {
        return Err(Failure::usage(format!("{} holds no key", path.display())));
    }
    Ok(keys.and(more))
}
