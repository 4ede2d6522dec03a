//! Ordinary buffered reads of headers and small files.

use std::fs;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::{Error, ErrorKind, File};

const READ_BYTES: usize = 64 << 10;
/// What is said of folders, pipes and devices in the place of a file.
pub(crate) const NOT_REGULAR: &str = "this is not a regular file, and only those are read";

/// Opens a regular file for reading from its start, and measures it.
pub(crate) fn open(path: &Path) -> Result<(BufReader<fs::File>, File), Error> {
    let fail = |error| Error::io(path, "open it", error);
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::new(ErrorKind::Unsupported, path, NOT_REGULAR));
    }
    let file = fs::File::open(path).map_err(fail)?;
    let bytes = file.metadata().map_err(fail)?.len();
    Ok((BufReader::with_capacity(READ_BYTES, file), File { path: path.to_owned(), bytes }))
}

/// The content of a file of at most `bytes_max` bytes.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let (source, file) = open(path)?;
    if file.bytes > bytes_max {
        let message = format!("the file has {} bytes, more than the {bytes_max} that are read", file.bytes);
        return Err(Error::new(ErrorKind::Header, path, message));
    }
    read_bytes(source, file.bytes, path)
}

/// The next `bytes` bytes of `source`; the caller has checked that there can be as many.
pub(crate) fn read_bytes(mut source: impl Read, bytes: u64, path: &Path) -> Result<Vec<u8>, Error> {
    let mut content = vec![0; bytes as usize];
    source.read_exact(&mut content).map_err(|error| Error::io(path, "read it", error))?;
    Ok(content)
}
