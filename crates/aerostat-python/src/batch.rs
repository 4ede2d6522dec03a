//! Batch jobs: the same that the command runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::json;

use aerostat::{Engine, Observer, Options, Progress};
use aerostat_jobs::disk::System;
use aerostat_jobs::{
    Counts, Error, ErrorKind, Job, JobOptions, JobPaths, JobProgress, Setting, Watcher, model_digest,
};

use crate::error::{exception, raised};
use crate::model::Model;
use crate::request::engine_options;
use crate::wait::background;

/// What a job is begun with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    input: PathBuf,
    output: PathBuf,
    errors: Option<PathBuf>,
    name: String,
    context: Option<usize>,
    max_new_tokens: usize,
    seed: u64,
    lenient: bool,
    restart: bool,
    retry_errors: bool,
}

/// Carries signs of life from the job's thread to the caller's.
struct Signs<'a> {
    cancel: &'a AtomicBool,
    told: Mutex<(u64, u64, u64)>,
}

impl Watcher for Signs<'_> {
    fn progress(&self, progress: &JobProgress) {
        let Counts { total, done, failed } = progress.counts;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = (done, failed, total);
    }

    fn stops(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// Lets loading be left.
struct Loading<'a>(&'a AtomicBool);

impl Observer for Loading<'_> {
    fn progress(&mut self, _progress: &Progress) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

enum Failed {
    Job(Error),
    Engine(aerostat::Error),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Job(e)
    }
}

impl From<aerostat::Error> for Failed {
    fn from(e: aerostat::Error) -> Self {
        Self::Engine(e)
    }
}

/// Works through a batch file, or goes on with it, and gives the counts as JSON. `given` says which files, and how;
/// `options` are the engine's. `progress(done, failed, total)` is called now and then.
#[pyfunction]
#[pyo3(signature = (model, given, options, progress=None))]
pub(crate) fn run_batch(
    py: Python<'_>,
    model: &Model,
    given: &str,
    options: &str,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let given: Given = serde_json::from_str(given).map_err(crate::error::usage)?;
    let options = engine_options(options)?;
    let cancel = AtomicBool::new(false);
    let signs = Signs { cancel: &cancel, told: Mutex::new((0, 0, 0)) };
    let work = || run(model, &given, &options, &signs);
    let tick = || {
        let (done, failed, total) = *signs.told.lock().unwrap_or_else(PoisonError::into_inner);
        match &progress {
            Some(progress) if total > 0 => progress.call1((done, failed, total)).map(drop),
            _ => Ok(()),
        }
    };
    let Counts { total, done, failed } = background(py, &cancel, work, tick)?.map_err(|e| match e {
        Failed::Engine(e) => raised(&e),
        Failed::Job(e) => {
            let class = match e.kind() {
                ErrorKind::Usage => "UsageError",
                ErrorKind::Interrupted => "Cancelled",
                _ => "JobError",
            };
            exception(class, e)
        }
    })?;
    Ok(json!({ "total": total, "done": done, "failed": failed }).to_string())
}

fn run(model: &Model, given: &Given, options: &Options, signs: &Signs<'_>) -> Result<Counts, Failed> {
    let mut paths = JobPaths::beside(&given.input, &given.output);
    if let Some(errors) = &given.errors {
        paths.errors.clone_from(errors);
    }
    let job_options = JobOptions {
        context: given.context,
        max_new_tokens: given.max_new_tokens,
        seed: given.seed,
        lenient: given.lenient,
        engine: aerostat::result_identity(options),
        restart: given.restart,
        retry_errors: given.retry_errors,
        ..JobOptions::default()
    };
    let setting = Setting::new(&model.files, &given.name, &job_options)?;
    let digest = model_digest(Path::new(model.files.path()))?;
    let job = Job::open(Box::new(System), paths, setting, &digest, &job_options, signs)?;
    if job.counts().left() == 0 {
        return Ok(job.counts());
    }
    let mut engine = Engine::open(&model.files, options, &job.need(), &mut Loading(signs.cancel))?;
    Ok(job.run(&mut engine, signs)?)
}
