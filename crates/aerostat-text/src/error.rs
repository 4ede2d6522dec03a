//! The one error type of this crate.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

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

pub(crate) use crate::template::limits::clip;

/// What the tokenizers library says is wrong with a file or a text.
pub(crate) fn library(error: tokenizers::Error) -> Error {
    Error::malformed(clip(&error.to_string()))
}

thread_local! {
    /// How many calls of [`guarded`] this thread is in.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
}

/// Runs `work` of a library on hostile input: where it panics, which they do in some corners, it is an error. Nothing of
/// the panic is printed.
pub(crate) fn guarded<T>(
    kind: ErrorKind,
    what: &str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    static QUIET: Once = Once::new();
    // The first call puts itself before whatever tells of panics, for panics inside such calls alone.
    QUIET.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if GUARDED.get() == 0 {
                told(panic);
            }
        }));
    });
    GUARDED.set(GUARDED.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(GUARDED.get() - 1);
    result.unwrap_or_else(|_| Err(Error::new(kind, what)))
}
