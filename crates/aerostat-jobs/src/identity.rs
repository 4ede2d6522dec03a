//! What a job was begun with, so that a change is noticed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use aerostat::ModelFiles;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};
use crate::input::hexadecimal;

/// Files up to this size are read whole.
const WHOLE_BYTES_MAX: u64 = 32 << 20;
/// Of larger files, this much at both ends, which holds the headers.
const END_BYTES: u64 = 1 << 20;

/// The digest of a model that is open, and of the adapter that is applied to it; see [`model_digest`].
///
/// # Errors
/// As [`model_digest`].
pub fn files_digest(files: &ModelFiles) -> Result<String, Error> {
    let digest = model_digest(files.path())?;
    match files.adapter() {
        None => Ok(digest),
        Some(adapter) => Ok(format!("{digest} {}", model_digest(adapter)?)),
    }
}

/// A digest of a model: names and sizes of its files, small files whole, of weights both ends. Where it lies does not
/// matter.
///
/// # Errors
/// [`ErrorKind::Input`] if a file cannot be read.
pub fn model_digest(path: &Path) -> Result<String, Error> {
    let failed = |path: &Path, e: io::Error| Error::file(ErrorKind::Input, "read", path, &e);
    let mut files = if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| failed(path, e))?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>();
        paths.map_err(|e| failed(path, e))?.into_iter().filter(|p| p.is_file() && matters(p)).collect()
    } else {
        vec![path.to_owned()]
    };
    files.sort();
    let mut sha = Sha256::new();
    for file in files {
        let name = file.file_name().ok_or_else(|| {
            Error::new(ErrorKind::Input, format!("the model {} names no file", file.display()))
        })?;
        sha.update(name.as_encoded_bytes());
        add(&mut sha, &file).map_err(|e| failed(&file, e))?;
    }
    Ok(hexadecimal(&sha.finalize()))
}

/// Whether a file of a model's folder says anything about its results.
fn matters(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("json" | "safetensors" | "gguf" | "jinja" | "model" | "bin"))
}

fn add(sha: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    sha.update(bytes.to_le_bytes());
    let mut part = Vec::new();
    if bytes <= WHOLE_BYTES_MAX {
        file.read_to_end(&mut part)?;
    } else {
        (&mut file).take(END_BYTES).read_to_end(&mut part)?;
        file.seek(SeekFrom::Start(bytes - END_BYTES))?;
        file.read_to_end(&mut part)?;
    }
    sha.update(&part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_contents_wherever_it_lies() {
        let make = |weights: &[u8], note: &str| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("config.json"), "{}").unwrap();
            fs::write(folder.path().join("model.safetensors"), weights).unwrap();
            fs::write(folder.path().join("README.md"), note).unwrap();
            model_digest(folder.path()).unwrap()
        };
        assert_eq!(make(b"one", "a"), make(b"one", "b"));
        assert_ne!(make(b"one", "a"), make(b"two", "a"));
        assert!(model_digest(Path::new("/nonexistent/model")).is_err());
    }
}
