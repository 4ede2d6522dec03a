//! Why a checkpoint cannot be described as a model.

use std::path::PathBuf;

use aerostat_checkpoint::{MESSAGE_CHARS_MAX, shortened};

/// A configuration or catalogue that is not a model we know.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct Error {
    kind: ErrorKind,
    path: PathBuf,
    message: String,
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The family is not one of [`FAMILIES`](crate::FAMILIES).
    UnknownFamily,
    /// A configuration value is missing, of the wrong type, or contradicts another.
    Config,
    /// The configuration asks for mathematics that is not implemented; the message names it.
    Unsupported,
    /// A tensor that the configuration calls for is not in the checkpoint.
    MissingTensor,
    /// A tensor's shape or format is not what the configuration calls for.
    Tensor,
    /// Something within this crate is missing or contradicts itself, whatever the checkpoint says; to be reported.
    Defect,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        let message = shortened(&message.into(), MESSAGE_CHARS_MAX).into_owned();
        Self { kind, path: path.into(), message }
    }

    /// What no checkpoint can cause: a part of this crate that does not keep what another leans on.
    pub(crate) fn defect(path: impl Into<PathBuf>, what: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Defect, path, format!("this is a defect of aerostat, please report it: {what}"))
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
