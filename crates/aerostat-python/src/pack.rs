//! Packed copies.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use serde_json::json;

use aerostat_pack::{ErrorKind, Options};

use crate::error::{exception, usage};
use crate::wait::background;

/// Packs a model, or goes on with it, and gives a summary as JSON. `progress(done, total)` is called now and then with
/// bytes of the original.
#[pyfunction]
#[pyo3(signature = (source, out, codec, threads=None, delete_original=false, progress=None))]
pub(crate) fn pack(
    py: Python<'_>,
    source: PathBuf,
    out: PathBuf,
    codec: &str,
    threads: Option<usize>,
    delete_original: bool,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let codec = codec.parse().map_err(usage)?;
    let threads = threads.unwrap_or_else(aerostat::machine::cores);
    let options = Options { verify: delete_original, delete_original, ..Options::new(codec, threads) };
    let (cancel, told) = (AtomicBool::new(false), Mutex::new((0, 0)));
    let lock = || told.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        aerostat_pack::pack(&source, &out, &options, &mut |at| {
            *lock() = (at.done, at.total);
            cancel.load(Ordering::Relaxed)
        })
    };
    let tick = || {
        let (done, total) = *lock();
        match &progress {
            Some(progress) if total > 0 => progress.call1((done, total)).map(drop),
            _ => Ok(()),
        }
    };
    let summary = background(py, || cancel.store(true, Ordering::Relaxed), work, tick)?.map_err(|e| {
        let class = match e.kind() {
            ErrorKind::Usage => "UsageError",
            ErrorKind::Interrupted => "Cancelled",
            _ => "ModelError",
        };
        exception(class, e)
    })?;
    let text = json!({
        "path": summary.path,
        "source_bytes": summary.source_bytes,
        "bytes": summary.bytes,
        "deleted": summary.deleted,
    });
    Ok(text.to_string())
}
