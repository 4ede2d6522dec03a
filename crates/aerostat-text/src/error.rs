//! The one error type of this crate.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What went wrong, for callers that react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be opened or read.
    Io,
    /// A tokenizer, vocabulary or configuration is not what its format says.
    Malformed,
    /// The input is sound, but names something this crate does not do; the message names it.
    Unsupported,
    /// Text could not be turned into token ids.
    Encode,
    /// A chat template has a syntax error.
    TemplateSyntax,
    /// A chat template failed while rendering, ran out of fuel, or called `raise_exception`.
    TemplateRender,
}

/// An error of a tokenizer or a chat template: a [kind](Error::kind) and a message that says what is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Malformed, message)
    }

    pub(crate) fn encode(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Encode, message)
    }

    /// The same error, saying where it happened.
    pub(crate) fn within(self, place: &str) -> Self {
        Error { message: format!("{place}: {}", self.message), ..self }
    }

    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        Error::new(ErrorKind::Io, format!("cannot read {}: {error}", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

/// Runs `work` of a library on hostile input: where it panics, which they do in some corners, it is an error.
pub(crate) fn guarded<T>(
    kind: ErrorKind,
    what: &str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::new(kind, what)))
}
