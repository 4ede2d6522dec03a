//! How a command ends when it does not end well.

use std::borrow::Cow;
use std::io;
use std::process::ExitCode;

use crate::output::tell;

use aerostat::ErrorKind;
use aerostat_jobs::Job;

/// The exit code of a run that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// Characters of a message at most.
const MESSAGE_CHARS_MAX: usize = 2000;

/// A message, of which a longer one loses its middle: what was typed may be in it, and names of files.
pub(crate) fn shortened(message: &str) -> Cow<'_, str> {
    let chars = message.chars().count();
    if chars <= MESSAGE_CHARS_MAX {
        return message.into();
    }
    let tail = MESSAGE_CHARS_MAX / 2;
    let head: String = message.chars().take(MESSAGE_CHARS_MAX - tail).collect();
    let tail: String = message.chars().skip(chars - tail).collect();
    format!("{head}… ({chars} characters) …{tail}").into()
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command was called wrongly; exit code 2.
    Usage(String),
    /// Something went wrong; exit code 1.
    Failed(String),
    /// The user stopped the command; what was finished has been printed or saved. Exit code 130.
    Interrupted,
    /// All is done, but some requests failed; the message says where they are. Exit code 3.
    Partly(String),
    /// The reader of stdout went away, as `head` does; no error. Exit code 0.
    Unread,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// The same for a job that had not run yet, which leaves nothing behind. One that was interrupted does: its input has
    /// been read.
    pub(crate) fn before(self, job: Job) -> Self {
        if !matches!(self, Self::Interrupted) {
            job.forget();
        }
        self
    }

    /// Prints what happened to stderr.
    pub(crate) fn report(&self) {
        match self {
            Self::Usage(message) | Self::Failed(message) => tell!("error: {}", shortened(message)),
            Self::Interrupted => tell!("interrupted"),
            Self::Partly(message) => tell!("{message}"),
            Self::Unread => {}
        }
    }

    /// What `--json` prints where nothing else was printed.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        let (kind, message) = match self {
            Self::Usage(message) => ("usage", message),
            Self::Failed(message) => ("failed", message),
            Self::Interrupted | Self::Partly(_) | Self::Unread => return None,
        };
        Some(serde_json::json!({"error": {"kind": kind, "message": shortened(message)}}))
    }

    /// The message alone, to be told beside a row of a table.
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

/// An error of writing to stdout.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(format!("cannot write to stdout: {e}")),
        }
    }
}

/// An error of writing JSON to stdout.
impl From<serde_json::Error> for Failure {
    fn from(e: serde_json::Error) -> Self {
        io::Error::from(e).into()
    }
}

impl From<aerostat_jobs::Error> for Failure {
    fn from(e: aerostat_jobs::Error) -> Self {
        (&e).into()
    }
}

impl From<&aerostat_jobs::Error> for Failure {
    fn from(e: &aerostat_jobs::Error) -> Self {
        match e.kind() {
            aerostat_jobs::ErrorKind::Usage => Self::Usage(e.to_string()),
            aerostat_jobs::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Failed(e.to_string()),
        }
    }
}
