//! The files that results go to, behind a small trait, so that tests can fill the disk and fail an fsync.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// What opens the files of a job and is asked before its database is written: the system, or a test that makes it fail.
pub trait Disk: Send {
    /// Opens a file for appending; makes it if it is not there.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Asked before each commit of the job's database; an error makes the commit fail.
    ///
    /// # Errors
    /// None, but where a test wants one.
    fn commits(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that grows at its end.
pub trait DiskFile: Send {
    /// Size of the file in bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn size(&self) -> io::Result<u64>;

    /// A reader of the file's bytes from an offset to its end.
    ///
    /// # Errors
    /// Those of the system.
    fn read_from(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>>;

    /// Writes bytes at the end of the file. After an error some of the bytes may be there.
    ///
    /// # Errors
    /// Those of the system: the disk is full, it broke.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until all that was written is durable. After an error none of what was written since the last success is.
    ///
    /// # Errors
    /// Those of the system.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file off behind its first `bytes` bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;

    /// Whether the path still leads to this file; true where that cannot be known.
    ///
    /// # Errors
    /// Those of the system.
    fn is_at(&self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }

    /// Takes the file for this process alone until it is closed; false if another has it.
    ///
    /// # Errors
    /// Those of the system.
    fn lock(&mut self) -> io::Result<bool>;
}

/// The system's own files.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Disk for System {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let is_new = !path.exists();
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        if is_new {
            sync_folder_of(path)?;
        }
        Ok(Box::new(file))
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_from(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        self.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(self))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    #[cfg(unix)]
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let own = self.metadata()?;
        Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())))
    }

    fn lock(&mut self) -> io::Result<bool> {
        match self.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

/// Makes the name of a new file durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Whether some process has the file for itself now.
pub(crate) fn is_locked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}
