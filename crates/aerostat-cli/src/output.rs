//! What is printed where.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aerostat::{Plan, Stats, size};
use clap::Args;
use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::size::token_rate;

/// The flags that every command takes: what is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Print one JSON object on stdout and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on stderr: the plan, a summary, all tensors.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Say nothing on stderr but errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// Prints a line on stderr, as `eprintln!` does. Where nobody can read it (a closed pipe or terminal, a full disk under a
/// log) that is no reason to stop.
macro_rules! tell {
    ($($arg:tt)*) => { $crate::output::stderr(format_args!("{}\n", format_args!($($arg)*))) };
}
pub(crate) use tell;

/// Prints on stderr, if anybody can read it.
pub(crate) fn stderr(text: std::fmt::Arguments<'_>) {
    let mut err = io::stderr().lock();
    let _ = err.write_fmt(text).and_then(|()| err.flush());
}

/// A path in JSON, which is text: what is none is shown as far as it is.
pub(crate) fn path<S: Serializer>(path: &impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.as_ref().to_string_lossy())
}

/// Paths in JSON, the same way.
pub(crate) fn paths<S: Serializer>(paths: &&[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

/// Whether [`json`] was called.
static PRINTED: AtomicBool = AtomicBool::new(false);

/// Whether a JSON object has gone to stdout, which holds one only.
pub(crate) fn printed() -> bool {
    PRINTED.load(Ordering::Relaxed)
}

/// Prints one JSON object on stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    PRINTED.store(true, Ordering::Relaxed);
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints text on stdout, at once.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a note of one sentence to stderr, unless the user wants quiet.
pub(crate) fn note(output: &OutputArgs, text: &str) {
    if !output.quiet {
        tell!("note: {text}");
    }
}

/// Prints the plan to stderr, if the user asked for more output.
pub(crate) fn plan(output: &OutputArgs, plan: &Plan) {
    if output.verbose {
        stderr(format_args!("plan\n{plan}"));
    }
}

/// Prints how long opening took to stderr, if the user asked for more output.
pub(crate) fn opened(output: &OutputArgs, stats: &Stats) {
    if output.verbose {
        if io::stderr().is_terminal() {
            // The status line may stand there.
            stderr(format_args!("\r\x1b[K"));
        }
        tell!("opened in {:.1} s", stats.load_seconds);
    }
}

/// Prints what a run did, in a line or two on stderr: if that is a terminal, or if the user asked for more output.
pub(crate) fn summary(output: &OutputArgs, stats: &Stats) {
    if output.quiet || !(output.verbose || io::stderr().is_terminal()) {
        return;
    }
    tell!(
        "{} tokens ({}), {} sweeps in {:.1} s ({:.1} s predicted), {} read at {:.2} GB/s, peak memory {} of {}",
        stats.tokens,
        token_rate(stats.tokens_per_second),
        stats.sweeps,
        stats.sweep_seconds,
        stats.predicted_seconds,
        size(stats.read_bytes),
        stats.read_bytes_per_second / 1e9,
        size(stats.memory_peak_bytes),
        size(stats.memory_budget_bytes),
    );
    if stats.experts > 0 {
        tell!(
            "{} experts used, {} of them in memory already, {} read: {} a token",
            stats.experts,
            stats.experts - stats.experts_read,
            size(stats.expert_bytes),
            size(stats.read_bytes / stats.tokens.max(1)),
        );
    }
}
