//! The one error type of this crate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::{MESSAGE_CHARS_MAX, NAME_CHARS_MAX, name_shown, shortened};

/// What went wrong while a checkpoint was opened; names the file and, where there is one, the tensor.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    path: PathBuf,
    tensor: Option<String>,
    message: String,
    source: Option<io::Error>,
}

/// The most characters of a path that a message repeats: what people have, whole.
const PATH_CHARS_MAX: usize = 400;

/// The kinds of [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no model at the path.
    NotFound,
    /// The operating system refused a read.
    Io,
    /// A file ends before its header does.
    Truncated,
    /// A header breaks the rules of its format, or exceeds a cap.
    Header,
    /// Two tensors claim the same bytes.
    Overlap,
    /// A tensor lies outside its file.
    OutOfRange,
    /// A tensor's shape and type do not give its length.
    ShapeMismatch,
    /// A tensor has a type that is not known.
    UnknownDType,
    /// A file of a sharded or split model is absent.
    MissingShard,
    /// A tensor that must be there is absent.
    MissingTensor,
    /// `config.json` or `generation_config.json` is malformed.
    Config,
    /// The format is recognised but not read.
    Unsupported,
}

impl Error {
    /// The kind, to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file or folder concerned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor concerned, if one is.
    pub fn tensor(&self) -> Option<&str> {
        self.tensor.as_deref()
    }

    pub(crate) fn new(kind: ErrorKind, path: &Path, message: impl Into<String>) -> Error {
        let message = shortened(&message.into(), MESSAGE_CHARS_MAX).into_owned();
        Error { kind, path: path.to_owned(), tensor: None, message, source: None }
    }

    pub(crate) fn io(path: &Path, doing: &str, source: io::Error) -> Error {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
            _ => ErrorKind::Io,
        };
        let message = format!("cannot {doing}: {source}");
        Error { source: Some(source), ..Error::new(kind, path, message) }
    }

    /// Puts what was being read before the message.
    pub(crate) fn within(mut self, what: &str) -> Error {
        self.message = format!("{}: {}", shortened(what, 2 * NAME_CHARS_MAX), self.message);
        self
    }

    pub(crate) fn with_tensor(mut self, name: &str) -> Error {
        self.tensor = Some(name.to_owned());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", shortened(&self.path.to_string_lossy(), PATH_CHARS_MAX))?;
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {}: ", name_shown(&format!("{tensor:?}")))?;
        }
        f.write_str(&self.message)
    }
}
