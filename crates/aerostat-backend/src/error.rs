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
    /// Something internal is missing or contradicts itself: a fault of the program, whatever its input.
    Defect,
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

    /// A [`ErrorKind::Defect`] error; see [`defect!`](crate::defect).
    ///
    /// # Panics
    /// In debug builds, always.
    #[track_caller]
    pub fn defect(message: impl Into<String>) -> Self {
        let message = format!("a defect of the program, please report it: {}", message.into());
        debug_assert!(false, "{message}");
        Self::new(ErrorKind::Defect, message)
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The error of something that cannot be, said as [`format!`] says it. In debug builds it panics, so that tests find it;
/// in release builds it is an [`Error`] of [`ErrorKind::Defect`], so that no wrong value takes its place.
///
/// ```no_run
/// # use aerostat_backend::{Error, defect};
/// fn bias(biases: &[f32], role: usize) -> Result<f32, Error> {
///     biases.get(role).copied().ok_or_else(|| defect!("role {role} has no bias"))
/// }
/// ```
#[macro_export]
macro_rules! defect {
    ($($message:tt)+) => {
        $crate::Error::defect(::std::format!($($message)+))
    };
}
