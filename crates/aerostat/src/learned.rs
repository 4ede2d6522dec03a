//! The file that learns which experts a model uses.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use aerostat_plan::ExpertUse;

/// Larger files are none of ours: a number for each expert is a few hundred KiB for the largest models.
const BYTES_MAX: u64 = 16 << 20;

/// What the file knows; nothing if it is missing or no such file.
pub(crate) fn read(path: &Path) -> Option<ExpertUse> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Adds to what the file knows. It is replaced as a whole, so that a reader never sees a part of it.
pub(crate) fn add(path: &Path, uses: &ExpertUse) -> io::Result<()> {
    let mut all = read(path).unwrap_or_default();
    all.merge(uses);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, serde_json::to_vec(&all)?)?;
    fs::rename(&partial, path).inspect_err(|_| drop(fs::remove_file(&partial)))
}
