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
#[cfg(feature = "gpu")]
mod bench_gpu;
mod cell;
mod chat;
mod classify;
#[cfg_attr(not(feature = "parquet"), path = "columns_absent.rs")]
mod columns;
mod defaults;
mod devices;
mod distil;
mod download;
mod dry;
mod embed;
mod encode;
mod failure;
mod fit;
#[cfg(test)]
mod flags;
mod folders;
mod inspect;
mod interrupt;
mod jobs;
mod keys;
mod list;
mod merge;
mod model;
mod models;
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
mod scratch;
mod serve;
mod shard;
mod shell;
mod signs;
mod size;
mod small_file;
mod speculate;
mod status;
mod table;
mod table_job;
mod tasks;
mod template;
mod terminal;
mod tokenize;
mod verdict;
mod watch;

use std::borrow::Cow;
use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use failure::{Failure, shortened};
use output::{OutputArgs, tell};

fn main() -> ExitCode {
    let json = std::env::args_os().any(|arg| arg == "--json");
    let command = match defaults::apply(Cli::command()) {
        Ok(command) => command,
        Err(failure) => {
            // Who asks for help need not mend the defaults first.
            if let Err(help) = Cli::command().try_get_matches()
                && !help.use_stderr()
            {
                help.exit()
            }
            return ended(Err(failure), &OutputArgs { json, verbose: false, quiet: false });
        }
    };
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = parsed.unwrap_or_else(|e| mistyped(&e, json));
    let output = &cli.output;
    defaults::tell_unknown(&Cli::command(), output);
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
        Command::Completions(args) => shell::completions(&args, Cli::command()),
        Command::Man(args) => shell::man(&args, Cli::command(), output),
        Command::Models(args) => models::models(&args, output),
        Command::Rm(args) => models::rm(&args, output),
        Command::Devices => devices::execute(output),
        Command::Bench(args) => bench::execute(&args, output),
    });
    ended(result, output)
}

/// Ends the process where the command line was typed wrongly, or asks for help.
fn mistyped(error: &clap::Error, json: bool) -> ! {
    if json && error.use_stderr() {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).split("\n\n").next().unwrap_or_default();
        let report = Failure::usage(message.trim()).json();
        // Where nobody reads it the exit code tells.
        let _ = report.map(|report| output::json(&report));
    }
    let shown = error.to_string();
    match error.use_stderr().then(|| shortened(&shown)) {
        // What was typed is repeated, however long it is.
        Some(Cow::Owned(short)) => {
            tell!("{}", short.trim_end());
            std::process::exit(error.exit_code())
        }
        _ => error.exit(),
    }
}

/// Tells how a command ended, and gives its exit code.
fn ended(result: Result<(), Failure>, output: &OutputArgs) -> ExitCode {
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
