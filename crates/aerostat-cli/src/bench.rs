//! `aerostat bench`: the disk, sweeps beside the disk, kernels beside the processor, and what of it a user meets.

use std::path::PathBuf;
use std::time::Duration;

use aerostat::bench::{
    self, BatchPoint, BatchSettings, DiskPoint, ExpertsPoint, ExpertsReport, KernelPoint, Kernels,
    SweepPoint, SweepSettings, ThroughputPoint, ThroughputSettings,
};
use aerostat::{IoChoice, Isa, Options, Prefixes, machine, size};
use clap::{Args, Subcommand, value_parser};
use serde::Serialize;

use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::{EngineArgs, MODEL_HELP, io};
use crate::output::OutputArgs;
use crate::speculate::{self, BenchSpeculateArgs};
use crate::watch::Watch;
use crate::{interrupt, output};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// How fast the model's files can be read, by size and number of reads in flight.
    Disk(BenchDiskArgs),
    /// How long sweeps take, between spells of raw reads of the same files.
    Sweep(BenchSweepArgs),
    /// Tokens per second of a prompt and of an answer.
    Throughput(BenchThroughputArgs),
    /// What guessing tokens brings: answers with and without, in turns, by kind of prompt.
    Speculate(BenchSpeculateArgs),
    /// A job of many prompts of mixed lengths, beside the best that its plan allows.
    Batch(BenchBatchArgs),
    /// What a cache of experts would find: a trace of --expert-trace, replayed against sizes of the cache.
    Experts(BenchExpertsArgs),
    /// How fast weights of each format are multiplied, beside what the processor and its memory can do.
    Kernels(BenchKernelsArgs),
    /// A graphics card: sending weights, multiplying them, and sweeps over a model, beside what it can do at most.
    #[cfg(feature = "gpu")]
    Gpu(crate::bench_gpu::BenchGpuArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchDiskArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// How to read: auto, direct, uring or buffered.
    #[arg(long, value_name = "IO", default_value = "auto", value_parser = io)]
    io: IoChoice,
    /// Sizes of a read.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "256KiB,1MiB,4MiB", value_parser = crate::size::parse)]
    sizes: Vec<u64>,
    /// Reads in flight.
    #[arg(long, value_name = "DEPTHS", value_delimiter = ',', default_value = "1,4,8,16", value_parser = value_parser!(u16).range(1..=1024))]
    depths: Vec<u16>,
    /// How often each is measured; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u16,
    /// Duration of each measurement.
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = seconds)]
    seconds: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BenchSweepArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// Rows of a sweep.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,8,50,128,256", value_parser = value_parser!(u32).range(1..=65_536))]
    rows: Vec<u32>,
    /// Weights to keep in memory, in percent, as far as the budget allows.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0", value_parser = value_parser!(u8).range(0..=100))]
    pinned: Vec<u8>,
    /// Generations measured; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u16,
    /// Sweeps of each generation.
    #[arg(long, value_name = "N", default_value_t = 5)]
    sweeps: u16,
    /// Raw reading before and after each generation.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    raw_seconds: Duration,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchThroughputArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// Tokens of a prompt; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: u32,
    /// Tokens of an answer to a prompt of one token; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 64)]
    generate: u32,
    /// Sequences at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=65_536))]
    sequences: u32,
    /// How often each is measured; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u16,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchBatchArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// Prompts.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    requests: u32,
    /// Tokens of the shortest and the longest prompt.
    #[arg(long, value_name = "LEAST,MOST", value_delimiter = ',', num_args = 1, default_value = "16,512")]
    prompt: Vec<u32>,
    /// Tokens of the shortest and the longest answer.
    #[arg(long, value_name = "LEAST,MOST", value_delimiter = ',', num_args = 1, default_value = "1,128")]
    answer: Vec<u32>,
    /// Each prompt computes and holds what it shares with others by itself.
    #[arg(long)]
    no_sharing: bool,
    /// Folder where parts of the KV cache may wait on disk.
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,
    /// A spell of raw reading, and one of multiplying alone: before, now and then between sweeps, after.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    raw_seconds: Duration,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchKernelsArgs {
    /// Formats, such as BF16 or Q4_K; all that can be computed unless given.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    formats: Vec<String>,
    /// Rows of activations.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128", value_parser = value_parser!(u32).range(1..=4096))]
    rows: Vec<u32>,
    /// Duration of each measurement.
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = seconds)]
    seconds: Duration,
    /// Worker threads; without it, one per core.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Instruction set; without it, the widest.
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchExpertsArgs {
    /// What a run with --expert-trace wrote.
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Experts of a block; without it, one more than the largest number in the trace.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=65_536))]
    experts: Option<u32>,
    /// Shares of a block's experts in memory, in percent.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "5,10,20,30,40,50,75", value_parser = value_parser!(u8).range(0..=100))]
    resident: Vec<u8>,
}

/// What `--json` prints: what was measured, and how and where.
#[derive(Serialize)]
struct Report<'a, T> {
    command: String,
    machine: machine::Description,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(flatten)]
    results: T,
}

#[derive(Serialize)]
struct Points<'a, T> {
    points: &'a [T],
}

/// Prints what was measured, and how and where.
pub(crate) fn report<T: Serialize>(model: Option<&str>, results: T) -> Result<(), Failure> {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let command = format!("aerostat {}", arguments.join(" "));
    output::json(&Report { command, machine: machine::describe(), model, results })
}

pub(crate) fn execute(args: &BenchArgs, output: &OutputArgs) -> Result<(), Failure> {
    match &args.command {
        BenchCommand::Disk(args) => disk(args, output),
        BenchCommand::Sweep(args) => sweep(args, output),
        BenchCommand::Throughput(args) => throughput(args, output),
        BenchCommand::Speculate(args) => speculate::execute(args, output),
        BenchCommand::Batch(args) => batch(args, output),
        BenchCommand::Experts(args) => experts(args, output),
        BenchCommand::Kernels(args) => kernels(args, output),
        #[cfg(feature = "gpu")]
        BenchCommand::Gpu(args) => crate::bench_gpu::execute(args, output),
    }
}

fn disk(args: &BenchDiskArgs, output: &OutputArgs) -> Result<(), Failure> {
    let files = model::open(&args.model, None, output)?;
    let depths: Vec<usize> = args.depths.iter().map(|d| usize::from(*d)).collect();
    let points = bench::disk(&files, args.io, &args.sizes, &depths, args.rounds.into(), args.seconds)?;
    if output.json {
        return report(Some(&args.model), Points { points: &points });
    }
    let row = |p: &DiskPoint| {
        format!(
            "{:<9} {:>10} {:>6} {:>8.3} {:>8.3} {:>8.3}\n",
            p.io,
            size(p.read_bytes),
            p.depth,
            p.bytes_per_second / 1e9,
            p.spread.0 / 1e9,
            p.spread.1 / 1e9
        )
    };
    let head =
        format!("{:<9} {:>10} {:>6} {:>8} {:>8} {:>8}\n", "io", "read", "depth", "GB/s", "least", "most");
    Ok(output::text(&(head + &points.iter().map(row).collect::<String>()))?)
}

fn sweep(args: &BenchSweepArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let settings =
        SweepSettings { rounds: args.rounds.into(), sweeps: args.sweeps.into(), raw_time: args.raw_seconds };
    let _graceful = interrupt::graceful();
    let mut points = Vec::new();
    if !output.json {
        output::text(&head())?;
    }
    for &pinned in &args.pinned {
        for &rows in &args.rows {
            let mut watch = Watch::new(output, false);
            let point = bench::sweep(
                &files,
                &options,
                rows as usize,
                f64::from(pinned) / 100.0,
                settings,
                &mut watch,
            )?;
            watch.finish()?;
            if !output.json {
                output::text(&row(&point))?;
            }
            points.push(point);
        }
    }
    if output.json {
        report(Some(&args.model), Points { points: &points })?;
    }
    Ok(())
}

fn head() -> String {
    format!(
        "{:>5} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>8} {:>8} {:>15} {:>5} {:>9}\n",
        "rows",
        "pinned",
        "sweep s",
        "predicted",
        "compute s",
        "stall s",
        "GB",
        "expected",
        "tokens/s",
        "GB/s",
        "of raw",
        "least to most",
        "knee",
        "peak"
    )
}

fn row(p: &SweepPoint) -> String {
    format!(
        "{:>5} {:>6.1}% {:>9.4} {:>9.4} {:>9.4} {:>9.4} {:>9.4} {:>9.4} {:>10.2} {:>8.3} {:>8.3} {:>6.3} to {:<5.3} {:>5} {:>9}\n",
        p.rows,
        p.pinned_fraction * 100.0,
        p.sweep_seconds,
        p.predicted_seconds,
        p.compute_seconds,
        p.stall_seconds,
        p.streamed_bytes as f64 / 1e9,
        p.predicted_bytes as f64 / 1e9,
        p.tokens_per_second,
        p.read_bytes_per_second / 1e9,
        p.fraction_of_raw,
        p.fraction_spread.0,
        p.fraction_spread.1,
        p.rows_at_knee,
        size(p.memory_peak_bytes)
    )
}

/// The options of a benchmark of random prompts, whose answers repeat themselves: nothing is guessed.
fn without_guesses(engine: &EngineArgs, output: &OutputArgs) -> Result<Options, Failure> {
    if engine.draft_model().is_some() {
        output::note(
            output,
            "--draft has no effect on random prompts; bench speculate measures it with yours",
        );
    }
    engine.options(output)
}

fn throughput(args: &BenchThroughputArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = without_guesses(&args.engine, output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let settings = ThroughputSettings {
        prompt: args.prompt as usize,
        generate: args.generate as usize,
        sequences: args.sequences as usize,
        rounds: args.rounds.into(),
    };
    let _graceful = interrupt::graceful();
    let mut watch = Watch::new(output, false);
    let points = bench::throughput(&files, &options, settings, &mut watch)?;
    watch.finish()?;
    if output.json {
        return report(Some(&args.model), Points { points: &points });
    }
    let row = |p: &ThroughputPoint| {
        let (least, most) = p.tokens_per_second_spread;
        let rates = format!("{:>10.2} {least:>10.2} {most:>10.2}", p.tokens_per_second);
        format!("{:<8} {:>6} {:>9} {rates} {:>9}\n", p.test, p.tokens, p.sequences, size(p.memory_peak_bytes))
    };
    let names = ["test", "tokens", "sequences", "tokens/s", "least", "most", "peak"];
    let [test, tokens, sequences, rate, least, most, peak] = names;
    let head = format!("{test:<8} {tokens:>6} {sequences:>9} {rate:>10} {least:>10} {most:>10} {peak:>9}\n");
    Ok(output::text(&(head + &points.iter().map(row).collect::<String>()))?)
}

fn batch(args: &BenchBatchArgs, output: &OutputArgs) -> Result<(), Failure> {
    let prefixes = if args.no_sharing { Prefixes::Apart } else { Prefixes::Shared };
    let options = Options { prefixes, spill: args.spill.clone(), ..without_guesses(&args.engine, output)? };
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let range = |lengths: &[u32]| match *lengths {
        [least, most] => Ok((least as usize, most as usize)),
        [only] => Ok((only as usize, only as usize)),
        _ => Err(Failure::usage("lengths are given as LEAST,MOST".to_owned())),
    };
    let settings = BatchSettings {
        requests: args.requests as usize,
        prompt: range(&args.prompt)?,
        answer: range(&args.answer)?,
        raw_time: args.raw_seconds,
    };
    let _graceful = interrupt::graceful();
    let mut watch = Watch::new(output, false);
    let point = bench::batch(&files, &options, &settings, &mut watch)?;
    watch.finish()?;
    if output.json {
        return report(Some(&args.model), Points { points: &[point] });
    }
    Ok(output::text(&batch_table(&point))?)
}

fn batch_table(p: &BatchPoint) -> String {
    let BatchPoint { requests, prompt_tokens, answer_tokens, sweeps, sweeps_min, .. } = *p;
    format!(
        "{requests} prompts of {prompt_tokens} tokens, answers of {answer_tokens}\n\
         wall           {:>10.1} s   {:.3} of the ideal, {:.1} tokens/s; {:.1} s computing, {:.1} s waiting for weights\n\
         ideal          {:>10.1} s   the larger of computing, {:.1} s at {:.0} GFLOP/s ({:.0}-{:.0}), and reading, {:.1} s at {:.2} GB/s ({:.2}-{:.2})\n\
         one by one     {:>10.1} s   {:.1} times the wall; the ideal allows {:.1} times\n\
         sweeps         {sweeps:>10}     {sweeps_min} at least; {:.1} rows each, {} at most, knee {}\n\
         KV cache       {:>10}     tokens; {} written to disk\n\
         memory         {:>10}     of {}\n",
        p.wall_seconds,
        p.of_ideal,
        p.tokens_per_second,
        p.compute_seconds,
        p.stall_seconds,
        p.ideal_seconds,
        p.ideal_compute_seconds,
        p.flops_per_second / 1e9,
        p.flops_spread[0] / 1e9,
        p.flops_spread[1] / 1e9,
        p.ideal_read_seconds,
        p.raw_bytes_per_second / 1e9,
        p.raw_spread[0] / 1e9,
        p.raw_spread[1] / 1e9,
        p.one_by_one_seconds,
        p.times_one_by_one,
        p.times_one_by_one_max,
        p.rows_per_sweep,
        p.rows_max,
        p.rows_at_knee,
        p.kv_tokens,
        size(p.spilled_bytes),
        size(p.memory_peak_bytes),
        size(p.memory_budget_bytes)
    )
}

fn experts(args: &BenchExpertsArgs, output: &OutputArgs) -> Result<(), Failure> {
    let shares: Vec<f64> = args.resident.iter().map(|percent| f64::from(*percent) / 100.0).collect();
    let found = bench::experts(&args.trace, args.experts.map(|n| n as usize), &shares)?;
    if output.json {
        return report(None, found);
    }
    let ExpertsReport { sweeps, layers, experts, uses, first_uses, points } = found;
    let head = format!(
        "{sweeps} sweeps, {layers} layers of {experts} experts: {uses} uses, {first_uses} of them the first of an expert\n\
         Of 100 uses, found in memory if these stay:\n\
         {:>8} {:>8} {:>10} {:>10} {:>10}\n",
        "resident", "experts", "used last", "most used", "at best"
    );
    let row = |p: &ExpertsPoint| {
        let [share, recency, fixed, best] = [p.resident_share, p.recency, p.fixed, p.best].map(|x| x * 100.0);
        format!("{share:>7.0}% {:>8} {recency:>10.1} {fixed:>10.1} {best:>10.1}\n", p.slots)
    };
    Ok(output::text(&(head + &points.iter().map(row).collect::<String>()))?)
}

fn kernels(args: &BenchKernelsArgs, output: &OutputArgs) -> Result<(), Failure> {
    let formats = bench::kernel_formats(&args.formats)?;
    let rows: Vec<usize> = args.rows.iter().map(|r| *r as usize).collect();
    let threads = args.threads.map_or_else(machine::cores, |n| n as usize);
    let _graceful = interrupt::graceful();
    let kernels = bench::kernels(&formats, &rows, threads, args.isa, args.seconds, &interrupt::requested)?;
    if output.json {
        return report(None, kernels);
    }
    let Kernels { fma_flops_per_second: fma, memory_bytes_per_second: memory, ref isa, .. } = kernels;
    let (fma, memory) = (fma / 1e9, memory / 1e9);
    let head = format!(
        "{threads} threads, {isa}: {fma:.1} GFLOP/s of f32, {memory:.1} GB/s of reads\n\
         format  rows   GFLOP/s  of peak      GB/s  of reads     least to most ms\n"
    );
    let row = |p: &KernelPoint| {
        format!(
            "{:<6} {:>5} {:>9.2} {:>6.1} % {:>9.2} {:>7.1} %  {:>8.3} to {:<8.3}\n",
            p.format,
            p.rows,
            p.flops_per_second / 1e9,
            p.fraction_of_fma * 100.0,
            p.bytes_per_second / 1e9,
            p.fraction_of_memory * 100.0,
            p.seconds_spread.0 * 1e3,
            p.seconds_spread.1 * 1e3
        )
    };
    Ok(output::text(&(head + &kernels.points.iter().map(row).collect::<String>()))?)
}

/// A duration in seconds, above 0 and below an hour.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let sensible = duration.filter(|d| !d.is_zero() && *d < Duration::from_secs(3600));
    sensible.ok_or_else(|| format!("`{text}` is not a number of seconds above 0 and below 3600"))
}
