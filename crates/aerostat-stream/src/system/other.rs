//! Systems without direct reads of our own: buffered only, uncached where that is one call.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::overlap::{Call, Event, Kernel};

pub(crate) const DEPTH_MAX: usize = 1;

pub(crate) fn open_direct(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn direct_alignment(_: &File) -> Option<usize> {
    None
}

pub(crate) fn open_buffered(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    #[cfg(target_vendor = "apple")]
    rustix::fs::fcntl_nocache(&file, true)?;
    Ok(file)
}

pub(crate) fn allow_files(_: usize) {}

pub(crate) fn forget(_: &File) {}

/// There is no io_uring here.
pub(crate) enum Uring {}

impl Uring {
    pub(crate) fn new(_: &[File], _: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Kernel for Uring {
    fn start(&mut self, _: Call) {
        match *self {}
    }

    fn finish(&mut self) -> Event {
        match *self {}
    }
}
