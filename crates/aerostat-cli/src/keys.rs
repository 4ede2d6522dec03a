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
    let keys = match env::var("AEROSTAT_API_KEY") {
        Ok(text) => named(&text)?,
        Err(env::VarError::NotPresent) => Keys::default(),
        Err(e) => return Err(Failure::usage(format!("AEROSTAT_API_KEY cannot be a key: {e}"))),
    };
    let Some(path) = file else { return Ok(keys) };
    let text = small_file::read(path, KEYS_BYTES_MAX)
        .map_err(|e| Failure::usage(format!("cannot read the keys in {}: {e}", path.display())))?;
    let more = Keys::parse(&text);
    if more.is_empty() {
        return Err(Failure::usage(format!("{} holds no key", path.display())));
    }
    Ok(keys.and(more))
}

/// The key in AEROSTAT_API_KEY: who sets it means to keep others out, and one that is blank would not.
fn named(text: &str) -> Result<Keys, Failure> {
    let keys = Keys::parse(text);
    match keys.is_empty() {
        true => Err(Failure::usage("AEROSTAT_API_KEY holds no key: give it one, or unset it".to_owned())),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server whose key had got lost on the way to its environment was open to all.
    #[test]
    fn a_key_that_is_blank_is_an_error() {
        assert!(named("secret").is_ok_and(|keys| !keys.is_empty()));
        for blank in ["", " ", "\n", "# none"] {
            assert!(named(blank).is_err(), "{blank:?}");
        }
    }
}
