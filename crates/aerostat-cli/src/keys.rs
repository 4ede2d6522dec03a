//! The keys that clients of the server may show.

use std::path::Path;
use std::{env, fs};

use aerostat_serve::Keys;

use crate::failure::Failure;

/// Those of a file and the one of the environment.
pub(crate) fn keys(file: Option<&Path>) -> Result<Keys, Failure> {
    let keys = env::var("AEROSTAT_API_KEY").map_or_else(|_| Keys::default(), |key| Keys::parse(&key));
    let Some(path) = file else { return Ok(keys) };
    let text = fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("cannot read the keys in {}: {e}", path.display())))?;
    let more = Keys::parse(&text);
    if more.is_empty() {
        return Err(Failure::usage(format!("{} holds no key", path.display())));
    }
    Ok(keys.and(more))
}
