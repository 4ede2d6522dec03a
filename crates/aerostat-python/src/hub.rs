//! From a name to a model's files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use aerostat::{Download, HubChoice};

use crate::error::{exception, raised};
use crate::wait::background;

/// Counts what a download tells.
#[derive(Default)]
struct Counting {
    total: AtomicU64,
    here: AtomicU64,
    notes: Mutex<Vec<String>>,
}

impl Download for Counting {
    fn started(&self, _files: usize, bytes_total: u64, bytes_present: u64) {
        self.total.store(bytes_total, Ordering::Relaxed);
        self.here.store(bytes_present, Ordering::Relaxed);
    }

    fn advanced(&self, bytes: u64) {
        self.here.fetch_add(bytes, Ordering::Relaxed);
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }
}

/// The folder or file of a model: a path as it is, a Hub id or `demo` from the cache, else downloaded. `progress(here, total,
/// notes)` is called now and then with bytes.
#[pyfunction]
#[pyo3(signature = (model, own_cache, token=None, cache_dir=None, revision=None, progress=None))]
pub(crate) fn find(
    py: Python<'_>,
    model: &str,
    own_cache: PathBuf,
    token: Option<String>,
    cache_dir: Option<PathBuf>,
    revision: Option<String>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<PathBuf> {
    let (cancel, counting) = (AtomicBool::new(false), Counting::default());
    let from = HubChoice { token, revision, cache_dir, offline: None };
    let work = || aerostat::resolve_from(&from, model, &own_cache, &counting, &cancel);
    let tick = || {
        let Some(progress) = &progress else { return Ok(()) };
        let notes = std::mem::take(&mut *counting.notes.lock().unwrap_or_else(PoisonError::into_inner));
        let (here, total) = (counting.here.load(Ordering::Relaxed), counting.total.load(Ordering::Relaxed));
        if total > 0 || !notes.is_empty() {
            progress.call1((here, total, notes))?;
        }
        Ok(())
    };
    let found = background(py, || cancel.store(true, Ordering::Relaxed), work, tick)?;
    found.map_err(|e| match e.kind() {
        aerostat::ErrorKind::Interrupted => exception("Cancelled", "the download was stopped"),
        _ => raised(&e),
    })
}

/// The process's peak resident set as the system reports it, in bytes.
#[pyfunction]
pub(crate) fn peak_resident_bytes() -> u64 {
    aerostat::peak_resident_bytes()
}
