//! What can go wrong while packing.

use std::io;
use std::path::Path;

/// An error with its class; the message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for makes no sense.
    Usage,
    /// The original cannot be read or understood.
    Source,
    /// The disk is full, or would be.
    Space,
    /// Reading or writing failed.
    Io,
    /// What was read back is not what was written.
    Corrupt,
    /// The caller asked to stop.
    Interrupted,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Of a file; a full disk is told as such.
    pub(crate) fn io(path: &Path, doing: &str, error: &io::Error) -> Self {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(
                ErrorKind::Space,
                format!(
                    "{path}: the disk is full; nothing of the original is lost, and what is packed is kept: free some \
                     space, then the same command goes on from there"
                ),
            ),
            _ => Self::new(ErrorKind::Io, format!("{path}: cannot {doing}: {error}")),
        }
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

macro_rules! from {
    ($($error:ty => $kind:ident),* $(,)?) => {
        $(impl From<$error> for Error {
            fn from(e: $error) -> Self {
                Self::new(ErrorKind::$kind, e.to_string())
            }
        })*
    };
}

from! {
    aerostat_checkpoint::Error => Source,
    aerostat_arch::Error => Source,
    aerostat_stream::Error => Io,
}

impl From<aerostat_backend::Error> for Error {
    fn from(e: aerostat_backend::Error) -> Self {
        let kind = match e.kind() {
            aerostat_backend::ErrorKind::Corrupt => ErrorKind::Corrupt,
            _ => ErrorKind::Source,
        };
        Self::new(kind, e.to_string())
    }
}
