//! `aerostat jobs`: what jobs there are, and how far they are.

use std::fmt::Write;
use std::path::PathBuf;

use aerostat_jobs::{JobStatus, list_jobs};
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, OutputArgs};
use crate::signs::duration;

#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    /// A folder, or the output of a job.
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    jobs: &'a [JobStatus],
}

pub(crate) fn execute(args: &JobsArgs, output: &OutputArgs) -> Result<(), Failure> {
    let jobs = list_jobs(&args.path)?;
    if output.json {
        return output::json(&Report { jobs: &jobs });
    }
    if jobs.is_empty() {
        output::note(output, &format!("no jobs in {}", args.path.display()));
    }
    Ok(output::text(&table(&jobs))?)
}

fn table(jobs: &[JobStatus]) -> String {
    let mut text = String::new();
    for job in jobs {
        let _ = write!(text, "{:<12} {:>7} of {} done", job.state, job.done, job.total);
        if job.failed > 0 {
            let _ = write!(text, ", {} failed", job.failed);
        }
        if let Some(seconds) = job.seconds_left {
            let _ = write!(text, ", {} left", duration(seconds as f64));
        }
        let _ = writeln!(text, "  {}  ({}, {})", job.output.display(), job.model, job.input);
        if let Some(reason) = &job.reason {
            let _ = writeln!(text, "             {reason}");
        }
    }
    text
}
