//! Chores of the workspace, run as `cargo xtask`: the checks, the tidy rules, synthetic checkpoints, the report of benchmarks,
//! the Python wheel.
#![forbid(unsafe_code)]

mod bench_report;
mod check;
mod synth;
mod tidy;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the Aerostat workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format, lints, documentation, tidy rules, tests, licences: everything a change has to pass.
    Check(check::Options),
    /// The rules on the source that no other tool checks.
    Tidy,
    /// Write a Hugging Face folder of random weights in the shape of a known model.
    Synth(synth::Options),
    /// Write docs/benchmarks.md and its plots from the measured files in docs/benchmarks.
    BenchReport(bench_report::Options),
    /// Build the Python wheel, the command inside it.
    Wheel(wheel::Options),
    /// Build the Python package without optimisation and test it, in a virtual environment of its own.
    PythonTests(wheel::TestOptions),
}

fn main() -> ExitCode {
    let root = repository_root();
    let outcome = match Arguments::parse().chore {
        Chore::Check(options) => check::run(&root, &options),
        Chore::Tidy => tidy::run(&root),
        Chore::Synth(options) => synth::run(&options),
        Chore::BenchReport(options) => bench_report::run(&root, &options),
        Chore::Wheel(options) => wheel::build(&root, &options),
        Chore::PythonTests(options) => wheel::test(&root, &options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder that holds the workspace's `Cargo.toml`.
fn repository_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_or_something_unknown_is_a_usage_error() {
        for line in [&["xtask"][..], &["xtask", "frobnicate"], &["xtask", "synth", "out", "--shape", "gpt9"]]
        {
            let error = Arguments::try_parse_from(line).map(|_| ()).expect_err("must be refused");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(repository_root().join("xtask/Cargo.toml").is_file());
    }
}
