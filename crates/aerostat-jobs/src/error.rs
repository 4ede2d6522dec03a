//! Everything that can stop a job.

use std::fmt;
use std::io;
use std::path::Path;

use aerostat_openai::{Refusal, RefusalKind};

/// An error with its class; the message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    engine: Option<aerostat::ErrorKind>,
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Options that cannot be served as given.
    Usage,
    /// The input cannot be read.
    Input,
    /// Input, model, options or output are not those that the job was begun with, or that it left.
    Changed,
    /// Another process runs this job.
    Busy,
    /// Results could not be written or made durable; what was counted before is safe.
    Disk,
    /// The job's database is broken, or it is not one of a job.
    Database,
    /// The engine failed.
    Engine,
    /// Something that this program made itself is missing or of the wrong kind; what was counted before is safe.
    Defect,
    /// The caller asked to stop; everything so far is saved.
    Interrupted,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), engine: None }
    }

    /// A failure of a file, with what was done to it.
    pub(crate) fn file(kind: ErrorKind, what: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(kind, format!("cannot {what} {}: {error}", path.display()))
    }

    /// Something internal is not as it must be.
    pub(crate) fn defect(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Defect, format!("a defect of aerostat: {what}; what was counted before is safe"))
    }

    /// An input that cannot be read: of those who implement [`Rows`](crate::Rows).
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the engine said of its kind, if it was the engine that failed.
    pub fn engine_kind(&self) -> Option<aerostat::ErrorKind> {
        self.engine
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A refusal that is no line's fault.
impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.kind() {
            RefusalKind::Defect => ErrorKind::Defect,
            _ => ErrorKind::Engine,
        };
        Self::new(kind, refusal.message())
    }
}

impl From<aerostat::Error> for Error {
    fn from(e: aerostat::Error) -> Self {
        let kind = match e.kind() {
            aerostat::ErrorKind::Usage => ErrorKind::Usage,
            aerostat::ErrorKind::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Engine,
        };
        Self { engine: Some(e.kind()), ..Self::new(kind, e.to_string()) }
    }
}
