//! Errors as Python's exceptions, which `aerostat.errors` defines.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use aerostat::ErrorKind;

/// The exception of a class in `aerostat.errors`.
pub(crate) fn exception(class: &str, message: impl ToString) -> PyErr {
    Python::attach(|py| {
        let error = (|| py.import("aerostat.errors")?.getattr(class)?.call1((message.to_string(),)))();
        error.map_or_else(|error| error, PyErr::from_value)
    })
}

/// What Python calls a class of errors.
pub(crate) fn class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "UsageError",
        ErrorKind::Model => "ModelError",
        ErrorKind::Text => "TextError",
        ErrorKind::Budget => "BudgetError",
        ErrorKind::Io => "ReadError",
        ErrorKind::Device => "DeviceError",
        ErrorKind::NotFinite => "NotFiniteError",
        ErrorKind::Job => "JobError",
        ErrorKind::Interrupted => "Cancelled",
        _ => "DefectError",
    }
}

/// An error of the library.
pub(crate) fn raised(error: &aerostat::Error) -> PyErr {
    exception(class(error.kind()), error)
}

/// Options or a request that cannot be served as given.
pub(crate) fn usage(message: impl ToString) -> PyErr {
    exception("UsageError", message)
}

/// A thread of ours ended without a word.
pub(crate) fn lost(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("{what} ended without a result; this is a mistake in aerostat"))
}

/// The handle belongs to the process that forked this one, and so do its threads.
pub(crate) fn same_process(pid: u32) -> PyResult<()> {
    if pid == std::process::id() {
        return Ok(());
    }
    let message = "this model was opened before the process forked, and its threads stayed behind; \
                   open it in the child, or start children by multiprocessing's `spawn`";
    Err(exception("ForkedError", message))
}
