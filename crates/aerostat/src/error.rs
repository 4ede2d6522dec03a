//! Everything that can go wrong in a run.

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
    /// Options or a request that cannot be served as given.
    Usage,
    /// The model cannot be found, downloaded, read or understood.
    Model,
    /// A tokenizer or chat template is missing, broken, or refuses its input.
    Text,
    /// The memory budget is too small.
    Budget,
    /// Reading weights failed.
    Io,
    /// The device failed or lacks a capability.
    Device,
    /// Logits are not numbers.
    NotFinite,
    /// What feeds the engine or keeps its results failed: an input, a journal, an output.
    Job,
    /// Too much waits already: try again later.
    Busy,
    /// The caller asked to stop.
    Interrupted,
    /// Something that cannot be missing is: a mistake in this program, to be reported.
    Defect,
}

impl Error {
    /// An error of a class.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The message of an error and of all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

macro_rules! from {
    ($($error:ty => $kind:ident),* $(,)?) => {
        $(impl From<$error> for Error {
            fn from(e: $error) -> Self {
                Self::new(ErrorKind::$kind, chain(&e))
            }
        })*
    };
}

from! {
    aerostat_checkpoint::Error => Model,
    aerostat_arch::Error => Model,
    aerostat_plan::Error => Budget,
    aerostat_stream::Error => Io,
    aerostat_text::Error => Text,
}

impl From<aerostat_backend::Error> for Error {
    fn from(e: aerostat_backend::Error) -> Self {
        let kind = match e.kind() {
            aerostat_backend::ErrorKind::Defect => ErrorKind::Defect,
            _ => ErrorKind::Device,
        };
        Self::new(kind, chain(&e))
    }
}

impl From<aerostat_hub::Error> for Error {
    fn from(e: aerostat_hub::Error) -> Self {
        let kind = match e.kind() {
            aerostat_hub::ErrorKind::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Model,
        };
        Self::new(kind, chain(&e))
    }
}
