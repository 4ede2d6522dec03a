//! The native half of the Python package `aerostat`: handles to what the library has, and nothing else.
//!
//! The engine runs on the session's own thread, which knows no Python. Callers hand requests over and wait on a channel
//! without holding the interpreter, a moment at a time, so that Ctrl-C is noticed. How requests are read, what their
//! defaults are and what results look like is the Python half's to say, in `python/aerostat`.

#![forbid(unsafe_code)]

mod batch;
mod call;
mod engine;
mod error;
mod feed;
mod hook;
mod hub;
mod model;
mod pack;
mod request;
mod values;
mod wait;

use pyo3::prelude::*;

/// `aerostat._aerostat`.
#[pymodule]
mod _aerostat {
    #[pymodule_export]
    use super::call::Call;
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::hub::{find, peak_resident_bytes};
    #[pymodule_export]
    use super::model::Model;
    #[pymodule_export]
    use super::pack::pack;
    #[pymodule_export]
    use super::wait::leave;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
