//! Small files that the user names. What has no size, a pipe or a device, is read no further than a file may be long.

use std::fs::File;
use std::io::{Error, Read, Result};
use std::path::Path;

/// The text of a file of at most so many bytes.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    match text.len() as u64 > bytes_max {
        true => Err(Error::other(format!("it has more than {bytes_max} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device says that it has 0 bytes, and never ends.
    #[cfg(unix)]
    #[test]
    fn what_never_ends_is_read_up_to_the_bound() {
        let error = read(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1000 bytes");
        assert_eq!(read(Path::new("/dev/null"), 0).unwrap(), "");
    }

    #[test]
    fn a_file_may_be_as_long_as_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read(&path, 3).unwrap(), "abc");
        assert!(read(&path, 2).is_err());
    }
}
