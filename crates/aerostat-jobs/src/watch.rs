//! Signs of life of a job, and the wish to stop it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aerostat::Progress;

use crate::counts::Counts;

/// Where a job stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct JobProgress {
    /// Lines of the input: all, done, failed.
    pub counts: Counts,
    /// Lines that are neither done nor failed and of which some sequence is in the engine.
    pub under_way: u64,
    /// Tokens generated in this run.
    pub tokens: u64,
    /// Tokens generated in a second, mean of this run.
    pub tokens_per_second: f64,
    /// Bytes of weights read in a second, mean of this run; 0 in a session, whose sweeps others share.
    pub read_bytes_per_second: f64,
    /// Rows that a sweep carries, mean of this run; 0 in a session.
    pub rows_per_sweep: f64,
    /// Sweeps of this run.
    pub sweeps: u64,
    /// Sweeps that are left, as far as lengths tell; 0 in a session.
    pub sweeps_left: f64,
    /// Seconds that are left; `None` before the first forecast, and in a session.
    pub seconds_left: Option<f64>,
    /// Time since the job was begun or taken up in this run.
    pub elapsed: Duration,
}

/// Receives signs of life, and may ask the job to stop. Its methods must be quick.
pub trait Watcher {
    /// Called now and then while the input is checked, with the number of lines checked so far.
    fn validating(&self, _lines: u64) {}

    /// Called after every sweep.
    fn progress(&self, _progress: &JobProgress) {}

    /// Called after every tile of a sweep.
    fn sweeping(&self, _progress: &Progress) {}

    /// Called when an entry of the input fails, with what it is called there and the reason.
    fn failed(&self, _name: Option<&str>, _message: &str) {}

    /// True asks the job to save and stop after this sweep.
    fn stops(&self) -> bool {
        false
    }
}

/// A watcher that looks away: it takes no notice and never asks to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {}

/// What a job that runs shares with those who look at it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    progress: Mutex<JobProgress>,
    /// The engine's last word, where the job has it for itself.
    seen: Mutex<Option<Progress>>,
    /// Entries that failed since the watcher was told last, where it is told: what they are called, and why.
    failed: Mutex<Vec<(Option<String>, String)>>,
    stop: AtomicBool,
}

impl Shared {
    pub(crate) fn progress(&self) -> JobProgress {
        *lock(&self.progress)
    }

    pub(crate) fn tell(&self, progress: JobProgress) {
        *lock(&self.progress) = progress;
    }

    pub(crate) fn seen(&self) -> Option<Progress> {
        *lock(&self.seen)
    }

    pub(crate) fn see(&self, progress: Progress) {
        *lock(&self.seen) = Some(progress);
    }

    pub(crate) fn fail(&self, name: Option<&str>, message: &str) {
        lock(&self.failed).push((name.map(str::to_owned), message.to_owned()));
    }

    /// What failed since this was asked last.
    pub(crate) fn failed(&self) -> Vec<(Option<String>, String)> {
        std::mem::take(&mut lock(&self.failed))
    }

    /// Asks the job to stop.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The job was asked to stop.
    pub(crate) fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
