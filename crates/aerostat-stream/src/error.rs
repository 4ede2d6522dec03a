//! The one error of this crate: what kind, where, and what to do.

use std::io;

/// What went wrong, for callers that act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system refused an open or a read.
    Io,
    /// A file ended before the extent did: it is shorter than when it was opened.
    Shrunk,
    /// A file's length is not the one its headers were read with.
    Changed,
    /// Direct I/O was asked for by name where the file system has none.
    Unsupported,
    /// An extent is larger than what it is to be read into.
    TooLarge,
    /// An extent names a file that is not open, or bytes beyond a file's end.
    Bounds,
    /// Every slot of the ring is held by a tile, so nothing can be read.
    Full,
    /// A tile was asked for, but no extent is pending.
    Empty,
    /// The read was cancelled before it began.
    Cancelled,
    /// Memory or threads could not be had.
    Resources,
}

/// An error with its kind and its context (file, offset, length).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    cause: Option<io::Error>,
}

impl Error {
    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the system answered, if it was asked.
    pub(crate) fn cause(&self) -> Option<&io::Error> {
        self.cause.as_ref()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), cause: None }
    }

    pub(crate) fn caused(kind: ErrorKind, message: impl Into<String>, cause: io::Error) -> Self {
        Error { kind, message: message.into(), cause: Some(cause) }
    }
}
