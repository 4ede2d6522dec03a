//! What can go wrong inside a device.

/// A failed op, with what was asked of which device.
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
    /// Operands whose shapes do not fit each other or their buffers: a defect of the caller.
    Shape,
    /// The device lacks a capability; the message names it.
    Unsupported,
    /// Memory for a buffer, a pinned weight or the KV cache could not be had.
    OutOfMemory,
    /// The device itself failed.
    Device,
    /// Packed weights whose checksums do not fit: a damaged file.
    Corrupt,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A [`ErrorKind::Shape`] error.
    pub fn shape(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, message)
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
