//! `aerostat pack`: a copy of a model that reads faster.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aerostat::size;
use aerostat_pack::{Codec, ErrorKind, Options, Packed, Progress, Summary};
use clap::{Args, value_parser};
use serde::Serialize;

use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::output::{OutputArgs, tell};
use crate::status::StatusLine;
use crate::{apart, interrupt, output};

/// The time between two drawings of the status line, and between two lines where stderr is no terminal.
const INTERVAL: Duration = Duration::from_millis(100);
const INTERVAL_LINES: Duration = Duration::from_secs(30);

/// Of an answer to a question, bytes that are read.
const ANSWER_BYTES_MAX: u64 = 100;

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    #[arg(help = "a Hugging Face folder, a Hub id (org/name[@revision])")]
    model: ModelName,
    /// The folder to make; the same command again goes on with one that is not finished.
    out: PathBuf,
    /// lossless: the same weights in two thirds of the bytes of BF16, six sevenths of F16 or FP8; q8, q4: about 0.53 and 0.29
    /// of BF16, with loss.
    #[arg(long, value_name = "CODEC", default_value = "lossless")]
    codec: Codec,
    /// Read everything back at the end and check it.
    #[arg(long)]
    verify: bool,
    /// Delete each file of the original once its weights are in the copy, read back and checked.
    #[arg(long)]
    delete_original: bool,
    /// With --delete-original and a codec that loses something: the original may go without a question.
    #[arg(long, requires = "delete_original")]
    yes: bool,
    /// Threads that code; without it, one per core.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Bytes of a tile, the unit of reading, before it is coded.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = crate::size::parse)]
    tile_bytes: u64,
    /// Bytes of the original in each file of the copy.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = crate::size::parse)]
    shard_bytes: u64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(serialize_with = "output::path")]
    path: &'a PathBuf,
    codec: &'static str,
    source_bytes: u64,
    bytes: u64,
    ratio: f64,
    verified: bool,
    #[serde(serialize_with = "output::paths")]
    deleted: &'a [PathBuf],
    tensors: &'a [Tensor],
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    dtype: String,
    source_bytes: u64,
    bytes: u64,
    /// Root mean square of the error, divided by that of the weights.
    error: f64,
}

pub(crate) fn execute(args: &PackArgs, output: &OutputArgs) -> Result<(), Failure> {
    let source = model::find(&args.model, output)?;
    apart::copy(&source, &args.out)?;
    let threads = args.threads.map_or_else(aerostat::machine::cores, |n| n as usize);
    let options = Options {
        verify: args.verify,
        delete_original: args.delete_original,
        tile_bytes: args.tile_bytes,
        shard_bytes: args.shard_bytes,
        ..Options::new(args.codec, threads)
    };
    if args.delete_original && !args.yes && args.codec != Codec::Lossless {
        confirm(&source, args.codec)?;
    }
    let mut show = Show::new(output);
    let _graceful = interrupt::graceful();
    let there = args.out.exists();
    let summary = aerostat_pack::pack(&source, &args.out, &options, &mut |progress| {
        show.progress(progress);
        interrupt::requested()
    });
    show.line.clear();
    let summary = summary.map_err(|error| {
        if !there {
            // If something is in it, the same command goes on with that.
            let _ = fs::remove_dir(&args.out);
        }
        failure(error)
    })?;
    if summary.bytes >= summary.source_bytes {
        let codec = args.codec;
        output::note(
            output,
            &format!("the copy is not smaller: {codec} finds nothing to save in these weights"),
        );
    }
    if output.json {
        return output::json(&report(args.codec, &summary, &show.tensors));
    }
    Ok(output::text(&text(args.codec, &summary))?)
}

/// Asks whether the only copy in full precision may go.
fn confirm(source: &Path, codec: Codec) -> Result<(), Failure> {
    let lost = format!(
        "--delete-original would leave no copy of {} in full precision: what {codec} loses cannot be had back",
        source.display()
    );
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{lost}; add --yes if that is meant")));
    }
    output::stderr(format_args!("{lost}. Delete it? Type yes: "));
    let mut answer = String::new();
    let read = io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer);
    read.map_err(|e| Failure::failed(format!("cannot read from stdin: {e}")))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was done")),
    }
}

fn failure(error: aerostat_pack::Error) -> Failure {
    match error.kind() {
        ErrorKind::Usage => Failure::usage(error.to_string()),
        ErrorKind::Interrupted => Failure::Interrupted,
        _ => Failure::failed(error.to_string()),
    }
}

fn report<'a>(codec: Codec, summary: &'a Summary, tensors: &'a [Tensor]) -> Report<'a> {
    Report {
        path: &summary.path,
        codec: codec.name(),
        source_bytes: summary.source_bytes,
        bytes: summary.bytes,
        ratio: summary.bytes as f64 / summary.source_bytes.max(1) as f64,
        verified: summary.verified,
        deleted: &summary.deleted,
        tensors,
    }
}

fn text(codec: Codec, summary: &Summary) -> String {
    let ratio = 100.0 * summary.bytes as f64 / summary.source_bytes.max(1) as f64;
    let mut text = format!(
        "{}: {codec}, {} of {} ({ratio:.1} %) in {} tensors",
        summary.path.display(),
        size(summary.bytes),
        size(summary.source_bytes),
        summary.tensors
    );
    if let Some((name, error)) = &summary.worst {
        text += &format!("; largest error {error:.4} in {name}");
    }
    if summary.verified {
        text += "; verified";
    }
    for path in &summary.deleted {
        text += &format!("\ndeleted {}", path.display());
    }
    text + "\n"
}

/// Shows the progress of packing on stderr, and keeps what the report says about each tensor.
struct Show<'a> {
    output: &'a OutputArgs,
    line: StatusLine,
    begun: Instant,
    drawn: Option<Instant>,
    tensors: Vec<Tensor>,
}

impl<'a> Show<'a> {
    fn new(output: &'a OutputArgs) -> Self {
        let line = StatusLine::new(output);
        Self { output, line, begun: Instant::now(), drawn: None, tensors: Vec::new() }
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        if let Some(tensor) = &progress.tensor {
            self.tensor(tensor);
        }
        let interval = if self.line.enabled() { INTERVAL } else { INTERVAL_LINES };
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < interval) {
            return;
        }
        let first = self.drawn.replace(Instant::now()).is_none();
        let line = self.status(progress);
        if self.line.enabled() {
            self.line.draw(&line);
        } else if !self.output.quiet && !first {
            tell!("{line}");
        }
    }

    fn tensor(&mut self, tensor: &Packed<'_>) {
        let (before, after) = tensor.bytes;
        if self.output.verbose {
            self.line.clear();
            let ratio = after as f64 / before.max(1) as f64;
            tell!(
                "{:<56} {:<5} {ratio:.4} of its bytes, error {:.5}",
                tensor.name,
                tensor.dtype,
                tensor.error
            );
        }
        self.tensors.push(Tensor {
            name: tensor.name.to_owned(),
            dtype: tensor.dtype.to_owned(),
            source_bytes: before,
            bytes: after,
            error: tensor.error,
        });
    }

    fn status(&self, progress: &Progress<'_>) -> String {
        let Progress { done, total, written, resumed, .. } = *progress;
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = done.saturating_sub(resumed) as f64 / seconds.max(1e-3);
        let left = (total.saturating_sub(done) as f64 / rate.max(1.0)) as u64;
        let doing = if progress.verifying { "verifying" } else { "packing" };
        let ratio = 100.0 * written as f64 / done.max(1) as f64;
        format!(
            "{doing} {} of {}, now {ratio:.1} %  {:.1} MB/s  {}:{:02} left",
            size(done),
            size(total),
            rate / 1e6,
            left / 60,
            left % 60
        )
    }
}
