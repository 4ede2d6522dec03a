//! Batch jobs: the same that the command runs, as riders of the model's session.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::json;

use aerostat::{Options, SessionHandle};
use aerostat_jobs::disk::System;
use aerostat_jobs::{
    Counts, Error, ErrorKind, Job, JobOptions, JobPaths, JobProgress, Setting, Watcher, model_digest,
};

use crate::error::{self, exception};
use crate::model::Model;
use crate::wait::{Interrupts, background};

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
    interrupts: &'a Interrupts,
    /// How many of those there were when the job began.
    before: u64,
    told: Mutex<(u64, u64, u64)>,
}

impl Watcher for Signs<'_> {
    fn progress(&self, progress: &JobProgress) {
        let Counts { total, done, failed } = progress.counts;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = (done, failed, total);
    }

    fn stops(&self) -> bool {
        self.interrupts.made() != self.before
    }
}

/// What Python calls what stopped a job.
fn class(e: &Error) -> &'static str {
    match (e.engine_kind(), e.kind()) {
        (Some(kind), _) => error::class(kind),
        (None, ErrorKind::Usage) => "UsageError",
        (None, ErrorKind::Interrupted) => "Cancelled",
        (None, ErrorKind::Defect) => "DefectError",
        (None, _) => "JobError",
    }
}

/// A job as it is opened, and the model that it runs with.
pub(crate) struct Batch<'a> {
    pub(crate) model: &'a Model,
    pub(crate) options: &'a Options,
    given: Given,
    signs: Signs<'a>,
}

impl<'a> Batch<'a> {
    /// `given` says in JSON which files, and how; an interrupt that is made from now on ends the job at the next tile.
    pub(crate) fn new(
        model: &'a Model,
        options: &'a Options,
        given: &str,
        interrupts: &'a Interrupts,
    ) -> PyResult<Self> {
        let given = serde_json::from_str(given).map_err(error::usage)?;
        let signs = Signs { interrupts, before: interrupts.made(), told: Mutex::default() };
        Ok(Self { model, options, given, signs })
    }

    /// Does long work on a thread of its own, and tells `progress` now and then.
    pub(crate) fn tell<T: Send>(
        &self,
        py: Python<'_>,
        progress: Option<&Bound<'_, PyAny>>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let tick = || {
            let (done, failed, total) = *self.told();
            match progress {
                Some(progress) if total > 0 => progress.call1((done, failed, total)).map(drop),
                _ => Ok(()),
            }
        };
        background(py, || self.signs.interrupts.make(), || work(self), tick)?
            .map_err(|e| exception(class(&e), e))
    }

    /// Reads the input and the journal: what is left to do.
    pub(crate) fn open(&self) -> Result<Job, Error> {
        let given = &self.given;
        let mut paths = JobPaths::beside(&given.input, &given.output);
        if let Some(errors) = &given.errors {
            paths.errors.clone_from(errors);
        }
        let plain = JobOptions { seed: given.seed, ..JobOptions::default() };
        let options = JobOptions {
            context: given.context,
            max_new_tokens: given.max_new_tokens,
            lenient: given.lenient,
            engine: aerostat::result_identity(self.options),
            restart: given.restart,
            retry_errors: given.retry_errors,
            ..plain
        };
        let setting = Setting::new(&self.model.files, &given.name, &options)?;
        let setting = match self.options.memory_bytes {
            Some(bytes) => setting.within(bytes),
            None => setting,
        };
        let digest = model_digest(Path::new(self.model.files.path()))?;
        Job::open(Box::new(System), paths, setting, &digest, &options, &self.signs)
    }

    /// Lets a job ride along in a session to its end.
    pub(crate) fn ride(&self, job: Job, session: &SessionHandle) -> Result<Counts, Error> {
        const LOOK: Duration = Duration::from_millis(100);
        let attached = job.attach(session, 0)?;
        let handle = attached.handle();
        let (done, wait) = channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                while wait.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    self.signs.progress(&handle.progress());
                }
            });
            let ended = attached.wait();
            drop(done);
            ended
        })
    }

    /// Lines that are done, that failed, and all.
    fn told(&self) -> MutexGuard<'_, (u64, u64, u64)> {
        self.signs.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts as JSON.
pub(crate) fn counted(counts: Counts) -> String {
    let Counts { total, done, failed } = counts;
    json!({ "total": total, "done": done, "failed": failed }).to_string()
}
