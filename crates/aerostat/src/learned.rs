//! The file that learns which experts a model uses, and how soon it uses them again.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aerostat_plan::ExpertUse;

/// Larger files are none of ours: a number for each expert is a few hundred KiB for the largest models.
const BYTES_MAX: u64 = 16 << 20;

/// Which experts are used, and the file that learns it when this drops.
pub(crate) struct Learned {
    path: Option<PathBuf>,
    uses: ExpertUse,
}

impl Learned {
    /// Without a path nothing is written.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, uses: ExpertUse::default() }
    }

    /// An expert of a block is used.
    pub(crate) fn add(&mut self, block: usize, expert: usize) {
        self.uses.add(block, expert);
    }

    /// One of `experts` of a block is used by few rows; so many others were used since its last use, if there was one.
    pub(crate) fn reused(&mut self, since: Option<usize>, experts: usize) {
        self.uses.reused(since, experts);
    }
}

impl Drop for Learned {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_deref().filter(|_| !self.uses.is_empty()) {
            // What is not learned now may be another time.
            let _ = add(path, &self.uses);
        }
    }
}

/// What the file knows; nothing if it is missing or no such file.
pub(crate) fn read(path: &Path) -> Option<ExpertUse> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Adds to what the file knows. It is replaced as a whole, so that a reader never sees a part of it.
fn add(path: &Path, uses: &ExpertUse) -> io::Result<()> {
    let mut all = read(path).unwrap_or_default();
    all.merge(uses);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, serde_json::to_vec(&all)?)?;
    fs::rename(&partial, path).inspect_err(|_| drop(fs::remove_file(&partial)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_before_are_read_and_what_is_written_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("experts.json");
        fs::write(&path, r#"{"blocks": [[1, 2]]}"#).unwrap();
        assert_eq!(read(&path).unwrap().found(1.0), None);
        let mut learned = Learned::new(Some(path.clone()));
        (0..4000).for_each(|_| learned.reused(Some(0), 2));
        learned.add(0, 1);
        drop(learned);
        let uses = read(&path).unwrap();
        assert_eq!((uses.found(0.5), uses.most_used(0, 2)), (Some(1.0), vec![1, 0]));
    }
}
