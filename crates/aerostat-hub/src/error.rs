//! The one error of this crate.

use std::fmt;
use std::io;
use std::path::Path;

use aerostat_checkpoint::{MESSAGE_CHARS_MAX, name_shown, shortened};

/// What went wrong, for callers that act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not a model id.
    InvalidId,
    /// The Hub wants a token, or did not accept the one sent (401).
    Unauthorised,
    /// The account behind the token may not read the repository (403), as with gated models.
    Forbidden,
    /// No such repository, revision or file (404), or one that is not in the cache while offline.
    NotFound,
    /// The server kept failing or answered with nonsense, after the retries.
    Server,
    /// The Hub could not be reached, or the connection kept breaking, after the retries.
    Network,
    /// The disk is full or would be; what was fetched is kept for the next pull.
    DiskFull,
    /// Contents do not hash to what was promised; they were removed and can be fetched again.
    Corrupt,
    /// The caller set the cancel flag; what was fetched is kept for the next pull.
    Interrupted,
    /// The repository holds nothing this crate can choose by itself.
    Unsupported,
    /// The cache could not be read or written.
    Io,
    /// A helper program (pip) failed or is missing.
    Program,
}

/// A failure with the repository and the file it concerns.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    repository: String,
    file: String,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// What went wrong, in one word.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = shortened(&message.into(), MESSAGE_CHARS_MAX).into_owned();
        Self { kind, repository: String::new(), file: String::new(), message, source: None }
    }

    /// An error of the file system; a full disk has a kind of its own.
    pub(crate) fn io(action: &str, path: &Path, error: io::Error) -> Self {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(
                ErrorKind::DiskFull,
                format!("cannot {action} {path}: no space left. Free some and pull again: it resumes"),
            ),
            _ => Self::new(ErrorKind::Io, format!("cannot {action} {path}")),
        }
        .caused_by(error)
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted; what was fetched is kept, pull again to resume")
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Names the repository, unless one is named already.
    pub(crate) fn in_repository(mut self, repository: &str) -> Self {
        if self.repository.is_empty() {
            self.repository = repository.to_owned();
        }
        self
    }

    /// Names the file, unless one is named already.
    pub(crate) fn in_file(mut self, file: &str) -> Self {
        if self.file.is_empty() {
            self.file = file.to_owned();
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.repository, &self.file] {
            if !part.is_empty() {
                write!(f, "{}: ", name_shown(part))?;
            }
        }
        f.write_str(&self.message)
    }
}
