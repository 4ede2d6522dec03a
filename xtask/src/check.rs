//! `cargo xtask check`: every check of the project, in order, each with its duration.
//!
//! The order is from quick to slow. Everything builds with one profile and the workspace's features, so that no
//! crate is compiled twice for the same purpose. Nothing here needs a network beyond what cargo itself fetches.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How to run the checks.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run the remaining checks after a failure, and list all failures at the end.
    #[arg(long)]
    keep_going: bool,
    /// Fail where a check cannot run on this machine, since a tool or the network is missing, instead of skipping it.
    #[arg(long)]
    all: bool,
}

/// Runs all checks.
///
/// # Errors
/// The first check that failed, or all that failed with `--keep-going`.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let begin = Instant::now();
    let (mut failed, mut skipped) = (Vec::new(), Vec::new());
    for step in steps() {
        match perform(root, &step) {
            Outcome::Passed => {}
            Outcome::Skipped(why) if options.all => {
                eprintln!("    {} was to run: {why}", step.name);
                failed.push(step.name);
            }
            Outcome::Skipped(why) => skipped.push(format!("{} ({why})", step.name)),
            Outcome::Failed => failed.push(step.name),
        }
        if !failed.is_empty() && !options.keep_going {
            break;
        }
    }
    let elapsed = seconds(begin.elapsed());
    for step in &skipped {
        eprintln!("check: SKIPPED: {step}");
    }
    if failed.is_empty() {
        eprintln!("check: all passed in {elapsed}");
        return Ok(());
    }
    bail!("check failed after {elapsed}: {}", failed.join(", "))
}

/// One named check.
struct Step {
    name: &'static str,
    action: Action,
}

enum Action {
    /// A cargo command with additional environment variables.
    Cargo { arguments: &'static [&'static str], environment: &'static [(&'static str, &'static str)] },
    /// A cargo command that needs a component of the toolchain.
    Component { arguments: &'static [&'static str], component: &'static str },
    /// The rules of this crate.
    Tidy,
    /// nextest and the documentation's tests, or all by `cargo test`.
    Tests,
    /// cargo-deny, where it is installed.
    Deny,
    /// The fuzz targets, where the folder exists.
    Fuzz,
    /// The wheel, and the tests of what was installed from it.
    Python,
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// It cannot run here, and why.
    Skipped(String),
    Failed,
}

fn steps() -> Vec<Step> {
    let component =
        |name, arguments, component| Step { name, action: Action::Component { arguments, component } };
    let documentation = Action::Cargo {
        arguments: &["doc", "--workspace", "--no-deps"],
        environment: &[("RUSTDOCFLAGS", "-Dwarnings")],
    };
    vec![
        component("format", &["fmt", "--all", "--check"], "rustfmt"),
        component("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], "clippy"),
        Step { name: "documentation", action: documentation },
        Step { name: "tidy", action: Action::Tidy },
        Step { name: "tests", action: Action::Tests },
        Step { name: "licences", action: Action::Deny },
        Step { name: "fuzz targets", action: Action::Fuzz },
        Step { name: "python package", action: Action::Python },
    ]
}

/// Announces and runs one step.
fn perform(root: &Path, step: &Step) -> Outcome {
    eprintln!("==> {}", step.name);
    let begin = Instant::now();
    let outcome = match &step.action {
        Action::Cargo { arguments, environment } => cargo(root, arguments, environment).map(|()| None),
        Action::Component { arguments, component } => {
            with_component(root, arguments, component).map(|()| None)
        }
        Action::Tidy => crate::tidy::run(root).map(|()| None),
        Action::Tests => tests(root).map(|()| None),
        Action::Deny => deny(root),
        Action::Fuzz => fuzz(root),
        Action::Python => crate::wheel::check(root, None),
    };
    let elapsed = seconds(begin.elapsed());
    match outcome {
        Ok(None) => {
            eprintln!("<== {}: passed in {elapsed}", step.name);
            Outcome::Passed
        }
        Ok(Some(why)) => {
            eprintln!("<== {}: SKIPPED: {why}", step.name);
            Outcome::Skipped(why)
        }
        Err(error) => {
            eprintln!("<== {}: FAILED after {elapsed}: {error:#}", step.name);
            Outcome::Failed
        }
    }
}

fn with_component(root: &Path, arguments: &[&str], component: &str) -> Result<()> {
    let [subcommand, ..] = arguments else { bail!("no subcommand") };
    if !is_installed(root, subcommand) {
        bail!("cargo {subcommand} is missing; install it with `rustup component add {component}`");
    }
    cargo(root, arguments, &[])
}

/// The feature that the command has as people install it; lints look at it without.
pub(crate) const PARQUET: &str = "aerostat-cli/parquet";

fn tests(root: &Path) -> Result<()> {
    software_driver();
    if !is_installed(root, "nextest") {
        eprintln!("    cargo-nextest is not installed: cargo test runs everything");
        return cargo(root, &["test", "--workspace", "--features", PARQUET], &[]);
    }
    cargo(root, &["nextest", "run", "--workspace", "--features", PARQUET, "--no-fail-fast"], &[])?;
    cargo(root, &["test", "--workspace", "--features", PARQUET, "--doc"], &[])
}

/// Installs a software driver for the tests on GPUs, where no driver is there and the system can; without an adapter they fail.
fn software_driver() {
    let has_driver = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"]
        .iter()
        .any(|folder| std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()));
    if has_driver || !cfg!(target_os = "linux") {
        return;
    }
    let steps = [&["update", "-qq"][..], &["install", "-qq", "-y", "mesa-vulkan-drivers", "libvulkan1"]];
    for arguments in steps {
        eprintln!("    apt-get {}", arguments.join(" "));
        let run = Command::new("apt-get").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
        if !run.is_ok_and(|status| status.success()) {
            eprintln!(
                "    that failed: without a Vulkan driver, such as mesa-vulkan-drivers, tests of the GPU fail"
            );
            return;
        }
    }
}

/// Gives why not, where it cannot run.
fn deny(root: &Path) -> Result<Option<String>> {
    if !is_installed(root, "deny") {
        return Ok(Some("cargo-deny is not installed: `cargo install cargo-deny`".to_owned()));
    }
    cargo(root, &["deny", "check", "bans", "licenses", "sources"], &[]).map(|()| None)
}

/// Compiles the fuzz targets, which are a workspace of their own. Nothing is linked, so the C++ half of libFuzzer
/// is not built: its build script is pointed at a library that is never opened.
fn fuzz(root: &Path) -> Result<Option<String>> {
    if !root.join("fuzz/Cargo.toml").is_file() {
        return Ok(Some("there is no folder fuzz".to_owned()));
    }
    let arguments = ["check", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"];
    cargo(root, &arguments, &[("CUSTOM_LIBFUZZER_PATH", "unused/libfuzzer.a")]).map(|()| None)
}

fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("    cargo {}", arguments.join(" "));
    let status = command(root)
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .context("cargo does not start; is it on the PATH?")?;
    if !status.success() {
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Whether `cargo NAME` exists and runs.
fn is_installed(root: &Path, name: &str) -> bool {
    let probe = command(root).args([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}

/// A cargo process that reads nothing, without the variables that `cargo run` sets for this one: build scripts
/// that watch them would run again, and what depends on them would compile again, at every check.
pub(crate) fn command(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    without_own_variables(&mut command);
    command
}

/// Takes away what `cargo run` sets for this program.
pub(crate) fn without_own_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_this_package) {
            command.env_remove(name);
        }
    }
}

fn is_of_this_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
        .iter()
        .any(|start| variable.starts_with(start))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_noticed_and_named() {
        let root = crate::repository_root();
        assert!(!is_installed(&root, "no-such-subcommand"));
        let error = with_component(&root, &["no-such-subcommand"], "rustfmt").expect_err("must be refused");
        assert!(error.to_string().contains("rustup component add rustfmt"), "{error}");
    }

    #[test]
    fn a_failing_command_fails_the_step() {
        let action = Action::Cargo { arguments: &["no-such-subcommand"], environment: &[] };
        assert_eq!(perform(&crate::repository_root(), &Step { name: "bad", action }), Outcome::Failed);
    }

    #[test]
    fn children_do_not_see_the_variables_of_this_package() {
        assert!(is_of_this_package("CARGO_PKG_NAME"));
        assert!(is_of_this_package("CARGO_MANIFEST_DIR"));
        assert!(!is_of_this_package("CARGO_TARGET_DIR"));
        assert!(!is_of_this_package("CARGO_HOME"));
    }
}
