//! `aerostat merge`: the outputs of shards, put together.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, OutputArgs};

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Where all results go, in the order of the input; packed if it ends in .gz or .zst. Failed requests go beside it.
    output: PathBuf,
    /// The outputs of `aerostat batch --shard I/N`, one for each I.
    #[arg(required = true)]
    parts: Vec<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(serialize_with = "output::path")]
    output: &'a Path,
    #[serde(serialize_with = "output::path")]
    errors: &'a Path,
    done: u64,
    failed: u64,
}

pub(crate) fn execute(args: &MergeArgs, output: &OutputArgs) -> Result<(), Failure> {
    let merged = aerostat_jobs::merge(&args.output, &args.parts)?;
    let (done, failed, errors) = (merged.done, merged.failed, &*merged.errors);
    if output.json {
        output::json(&Report { output: &args.output, errors, done, failed })?;
    }
    output::note(output, &format!("{done} results in {}", args.output.display()));
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Partly(format!("{failed} requests failed; they are in {}", errors.display()))),
    }
}
