//! Batch jobs that survive anything: OpenAI Batch files in, durable results out.
//!
//! A [`Job`] reads its input twice: once to validate every line and to learn its lengths, and once, lazily, while it
//! runs. It is the engine's source of work: a line becomes one request or several, and when all of them are answered
//! the result is appended to the output. What is durable is counted, what is under way is journalled:
//!
//! 1. result lines are appended to the output (or the error file) and fsynced;
//! 2. one transaction of the job's database counts them and saves the tokens that unfinished answers gained.
//!
//! A stop between the two leaves lines that are not counted: the next start finds them behind the counted size, and
//! adopts those that are whole. A stop anywhere else costs at most the work since the last commit.

#![forbid(unsafe_code)]

mod database;
pub mod disk;
mod error;
mod fields;
mod forecast;
mod grammar;
mod identity;
mod input;
mod job;
mod journal;
mod list;
mod output;
mod request;
mod respond;
mod runner;
mod survey;
mod validate;

use std::time::Duration;

pub use error::{Error, ErrorKind};
pub use grammar::{Grammar, Grammars, Shape};
pub use identity::model_digest;
pub use job::{Counts, Job, JobOptions, JobPaths, Lengths};
pub use list::{JobStatus, list_jobs};
pub use request::Setting;
pub use survey::{Survey, is_pipe, keep_input, keep_pipe, survey};

/// Where a job stands.
#[derive(Clone, Copy, Debug)]
pub struct JobProgress {
    /// Lines.
    pub counts: Counts,
    /// Lines under way.
    pub under_way: u64,
    /// Tokens generated in this run.
    pub tokens: u64,
    /// Of this run.
    pub tokens_per_second: f64,
    /// Weights read in this run.
    pub read_bytes_per_second: f64,
    /// Mean of this run.
    pub rows_per_sweep: f64,
    /// Sweeps of this run.
    pub sweeps: u64,
    /// Sweeps that are left, as far as lengths tell.
    pub sweeps_left: f64,
    /// Seconds that are left; `None` before the first forecast.
    pub seconds_left: Option<f64>,
    /// Since the job was begun or taken up.
    pub elapsed: Duration,
}

/// Receives signs of life, and may ask the job to stop. Its methods must be quick.
pub trait Watcher {
    /// Lines validated so far.
    fn validating(&self, _lines: u64) {}

    /// Called after every sweep.
    fn progress(&self, _progress: &JobProgress) {}

    /// Called after every tile of a sweep.
    fn sweeping(&self, _progress: &aerostat::Progress) {}

    /// True asks the job to save and stop after this sweep.
    fn stops(&self) -> bool {
        false
    }
}

/// A watcher that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {}
