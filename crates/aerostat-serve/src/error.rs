//! Why a server cannot start or go on.

use std::fmt;

/// An error with its class; the message says what, where and what to do.
#[derive(Debug)]
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
    /// The address cannot be listened at.
    Network,
    /// The folder for files and batches cannot be used.
    Data,
    /// The model cannot be opened.
    Model,
    /// The caller asked to stop.
    Interrupted,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
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

impl std::error::Error for Error {}

impl From<aerostat::Error> for Error {
    fn from(e: aerostat::Error) -> Self {
        let kind = match e.kind() {
            aerostat::ErrorKind::Usage => ErrorKind::Usage,
            aerostat::ErrorKind::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Model,
        };
        Self::new(kind, e.to_string())
    }
}

impl From<aerostat_jobs::Error> for Error {
    fn from(e: aerostat_jobs::Error) -> Self {
        Self::new(ErrorKind::Data, e.to_string())
    }
}
