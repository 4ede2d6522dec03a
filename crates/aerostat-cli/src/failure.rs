//! How a command ends when it does not end well.

use std::io;
use std::process::ExitCode;

use aerostat::ErrorKind;

/// The exit code of a run that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called wrongly.
    Usage(String),
    /// It went wrong.
    Failed(String),
    /// The user stopped it; what was finished has been printed.
    Interrupted,
    /// It is done, but some requests failed; the message says where they are.
    Partly(String),
    /// Nobody reads stdout any more, which is no error.
    Unread,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Tells the user, on stderr.
    pub(crate) fn report(&self) {
        match self {
            Self::Usage(message) | Self::Failed(message) => eprintln!("error: {message}"),
            Self::Interrupted => eprintln!("interrupted"),
            Self::Partly(message) => eprintln!("{message}"),
            Self::Unread => {}
        }
    }

    /// What went wrong, for a row of a table.
    pub(crate) fn message(self) -> String {
        match self {
            Self::Usage(message) | Self::Failed(message) | Self::Partly(message) => message,
            Self::Interrupted => "interrupted".to_owned(),
            Self::Unread => String::new(),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
            Self::Interrupted => ExitCode::from(INTERRUPTED),
            Self::Partly(_) => ExitCode::from(3),
            Self::Unread => ExitCode::SUCCESS,
        }
    }
}

impl From<aerostat::Error> for Failure {
    fn from(e: aerostat::Error) -> Self {
        match e.kind() {
            ErrorKind::Usage => Self::Usage(e.to_string()),
            ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Failed(e.to_string()),
        }
    }
}

/// From writing to stdout.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(format!("cannot write to stdout: {e}")),
        }
    }
}

/// From writing JSON to stdout.
impl From<serde_json::Error> for Failure {
    fn from(e: serde_json::Error) -> Self {
        io::Error::from(e).into()
    }
}
