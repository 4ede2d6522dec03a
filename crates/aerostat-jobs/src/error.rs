//! Everything that can stop a job.

use std::fmt;
use std::io;
use std::path::Path;

/// An error with its class; the message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Options that cannot be served as given.
    Usage,
    /// The input cannot be read.
    Input,
    /// Input, model or options are not those that the job was begun with.
    Changed,
    /// Another process runs this job.
    Busy,
    /// Results could not be written or made durable; what was counted before is safe.
    Disk,
    /// The job's database is broken or not ours.
    Database,
    /// The engine failed.
    Engine,
    /// The caller asked to stop; everything so far is saved.
    Interrupted,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failure of a file, with what was done to it.
    pub(crate) fn file(kind: ErrorKind, what: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(kind, format!("cannot {what} {}: {error}", path.display()))
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<aerostat::Error> for Error {
    fn from(e: aerostat::Error) -> Self {
        let kind = match e.kind() {
            aerostat::ErrorKind::Usage => ErrorKind::Usage,
            aerostat::ErrorKind::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Engine,
        };
        Self::new(kind, e.to_string())
    }
}
