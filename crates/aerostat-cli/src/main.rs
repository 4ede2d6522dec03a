//! The `aerostat` command.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 done but for some requests, 130 interrupted.

#![forbid(unsafe_code)]
// These panic where nobody reads: see `output`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod apart;
mod args;
mod batch;
mod bench;
mod chat;
mod classify;
#[cfg_attr(not(feature = "parquet"), path = "columns_absent.rs")]
mod columns;
mod distil;
mod download;
mod embed;
mod encode;
mod failure;
mod fit;
#[cfg(test)]
mod flags;
mod inspect;
mod interrupt;
mod jobs;
mod keys;
mod list;
mod merge;
mod model;
mod options;
mod output;
mod pack;
mod packing;
mod plan;
mod prompt;
mod prompts;
mod pull;
mod rerank;
mod results;
mod run;
mod score;
mod score_table;
mod serve;
mod shard;
mod signs;
mod size;
mod speculate;
mod status;
mod table;
mod table_job;
mod tasks;
mod template;
mod tokenize;
mod watch;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = &cli.output;
    let result = interrupt::install().and_then(|()| match cli.command {
        Command::Run(args) => run::execute(args, output),
        Command::Chat(args) => chat::execute(&args, output),
        Command::Batch(args) => batch::execute(&args, output),
        Command::Merge(args) => merge::execute(&args, output),
        Command::Jobs(args) => jobs::execute(&args, output),
        Command::Score(args) => score::execute(args, output),
        Command::Embed(args) => embed::execute(args, output),
        Command::Rerank(args) => rerank::execute(args, output),
        Command::Classify(args) => classify::execute(args, output),
        Command::Distil(args) => distil::execute(args, output),
        Command::Plan(args) => plan::execute(&args, output),
        Command::Inspect(args) => inspect::execute(&args, output),
        Command::Prompt(args) => prompt::execute(&args, output),
        Command::Tokenize(args) => tokenize::execute(args, output),
        Command::Pack(args) => pack::execute(&args, output),
        Command::Serve(args) => serve::execute(&args, output),
        Command::Pull(args) => pull::execute(&args, output),
        Command::Bench(args) => bench::execute(&args, output),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if output.json
                && !output::printed()
                && let Some(report) = failure.json()
            {
                // Where nobody reads it the exit code tells.
                let _ = output::json(&report);
            }
            failure.report();
            failure.exit_code()
        }
    }
}
