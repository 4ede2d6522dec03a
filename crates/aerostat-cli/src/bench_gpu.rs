//! `aerostat bench gpu`: a card beside what it can do at most, and models on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aerostat::bench::{
    self, GpuKernels, KernelPoint, SweepPoint, SweepSettings, ThroughputPoint, ThroughputSettings,
};
use aerostat::{Device, Draft, ModelFiles, Options, size};
use clap::{Args, value_parser};
use serde::Serialize;
use serde_json::Value;

use crate::bench::{report, seconds};
use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::MODEL_HELP;
use crate::output::OutputArgs;
use crate::watch::Watch;
use crate::{interrupt, output};

/// In the first of them kernels are compiled.
const SWEEP_ROUNDS: usize = 3;
/// What weights that stay on a card may take beside their bytes: rows, cache, allocations that are not full.
const BESIDE_BYTES: u64 = 512 << 20;

#[derive(Debug, Args)]
pub(crate) struct BenchGpuArgs {
    #[arg(help = MODEL_HELP)]
    model: Option<ModelName>,
    /// The adapter: gpu, the first, or gpu:N, as `aerostat devices` numbers them.
    #[arg(long, value_name = "DEVICE", default_value = "gpu", value_parser = adapter)]
    device: Device,
    /// Bound of its memory, for sweeps through it, and for what kernels are measured with.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = crate::size::parse)]
    vram: u64,
    /// Bound of the process's memory; without it, what the machine can spare.
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse)]
    memory: Option<u64>,
    /// Formats of weights.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "BF16,F16,Q8_0,Q4_0,Q4_K,Q6_K")]
    formats: Vec<String>,
    /// Rows of activations that they are multiplied with.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,8,32,128,512", value_parser = value_parser!(u32).range(1..=4096))]
    rows: Vec<u32>,
    /// Duration of each measurement.
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = seconds)]
    seconds: Duration,
    /// Rows of sweeps over the model.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16,64", value_parser = value_parser!(u32).range(1..=65_536))]
    sweep_rows: Vec<u32>,
    /// Sweeps of each of three measurements; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u16).range(1..))]
    sweeps: u16,
    /// Tokens of a prompt.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: u32,
    /// Tokens of an answer to a prompt of one token.
    #[arg(long, value_name = "N", default_value_t = 32)]
    generate: u32,
    /// The llama-bench of a llama.cpp that was built for this card: run on the same file, in turns.
    #[arg(long, value_name = "FILE", requires = "model")]
    llama_bench: Option<PathBuf>,
}

fn adapter(text: &str) -> Result<Device, String> {
    match crate::options::device(text) {
        Ok(device @ Device::Gpu(_)) => Ok(device),
        _ => Err("expected gpu or gpu:N".to_owned()),
    }
}

/// Everything that was measured.
#[derive(Serialize)]
struct Found {
    kernels: GpuKernels,
    sweeps: Vec<Sweeps>,
    throughput: Vec<Tokens>,
    /// What llama-bench printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    llama_bench: Option<Value>,
}

/// Sweeps with weights in one place.
#[derive(Serialize)]
struct Sweeps {
    /// `streamed`: nothing stays, `bounded`: what fits `--vram` and `--memory` stays, `resident`: all is on the card.
    weights: &'static str,
    vram_bytes: u64,
    points: Vec<SweepPoint>,
    /// Why there are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Prompts and answers with weights in one place.
#[derive(Serialize)]
struct Tokens {
    weights: &'static str,
    points: Vec<ThroughputPoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) fn execute(args: &BenchGpuArgs, output: &OutputArgs) -> Result<(), Failure> {
    let formats = bench::kernel_formats(&args.formats)?;
    let rows: Vec<usize> = args.rows.iter().map(|rows| *rows as usize).collect();
    let Device::Gpu(number) = args.device else { return Err(Failure::usage("--device takes gpu or gpu:N")) };
    let files = args.model.as_ref().map(|model| model::open(model, None, output)).transpose()?;
    let _graceful = interrupt::graceful();
    let kernels =
        bench::gpu_kernels(number, Some(args.vram), &formats, &rows, args.seconds, &interrupt::requested)?;
    if !output.json {
        output::text(&kernel_table(&kernels))?;
    }
    let mut found = Found { kernels, sweeps: Vec::new(), throughput: Vec::new(), llama_bench: None };
    if let (Some(files), Some(model)) = (&files, &args.model) {
        measure_model(args, files, model, &mut found, output)?;
    }
    match output.json {
        true => report(args.model.as_deref(), found),
        false => Ok(()),
    }
}

fn measure_model(
    args: &BenchGpuArgs,
    files: &ModelFiles,
    model: &ModelName,
    found: &mut Found,
    output: &OutputArgs,
) -> Result<(), Failure> {
    let resident_bytes = files.spec().matrix_bytes() / 7 * 8 + BESIDE_BYTES;
    let ways = [("streamed", args.vram, 0.0), ("bounded", args.vram, 1.0), ("resident", resident_bytes, 1.0)];
    if !output.json {
        output::text(&sweep_head())?;
    }
    for (weights, vram_bytes, pinned) in ways {
        let mut sweeps = Sweeps { weights, vram_bytes, points: Vec::new(), error: None };
        for &rows in &args.sweep_rows {
            let settings =
                SweepSettings { rounds: SWEEP_ROUNDS, sweeps: args.sweeps.into(), raw_time: args.seconds };
            let mut watch = Watch::new(output, false);
            let options = options(args, vram_bytes);
            match bench::sweep(files, &options, rows as usize, pinned, settings, &mut watch) {
                Ok(point) => sweeps.points.push(point),
                Err(error) => sweeps.error = Some(stopped(error)?),
            }
            watch.finish()?;
        }
        if !output.json {
            output::text(&sweep_rows(&sweeps))?;
        }
        found.sweeps.push(sweeps);
    }
    if let Some(program) = &args.llama_bench {
        found.llama_bench = Some(llama_bench(program, model, args)?);
    }
    for (weights, vram_bytes, _) in [ways[2], ways[1]] {
        let (prompt, generate) = (args.prompt as usize, args.generate as usize);
        let settings = ThroughputSettings { prompt, generate, sequences: 1, rounds: 2 };
        let mut watch = Watch::new(output, false);
        let (points, error) = match bench::throughput(files, &options(args, vram_bytes), settings, &mut watch)
        {
            Ok(points) => (points, None),
            Err(error) => (Vec::new(), Some(stopped(error)?)),
        };
        watch.finish()?;
        found.throughput.push(Tokens { weights, points, error });
    }
    if !output.json {
        output::text(&token_table(found))?;
    }
    Ok(())
}

fn options(args: &BenchGpuArgs, vram_bytes: u64) -> Options {
    let (memory_bytes, vram_bytes) = (args.memory, Some(vram_bytes));
    Options { device: args.device, vram_bytes, memory_bytes, draft: Draft::None, ..Options::default() }
}

/// The message of what could not be measured, as where a card has too little memory; an interrupt ends everything.
fn stopped(error: aerostat::Error) -> Result<String, Failure> {
    match error.kind() {
        aerostat::ErrorKind::Interrupted => Err(error.into()),
        _ => Ok(error.to_string()),
    }
}

/// What llama-bench says of the same file, all of it on the card.
fn llama_bench(program: &Path, model: &str, args: &BenchGpuArgs) -> Result<Value, Failure> {
    let failed = |why: String| Failure::failed(format!("{}: {why}", program.display()));
    let mut command = Command::new(program);
    command.args(["-m", model, "-p", &args.prompt.to_string(), "-n", &args.generate.to_string()]);
    command.args(["-ngl", "999", "-o", "json"]).stdin(Stdio::null()).stderr(Stdio::null());
    let done = command.output().map_err(|error| failed(error.to_string()))?;
    if !done.status.success() {
        return Err(failed(format!("it ended with {}; it takes a GGUF file", done.status)));
    }
    serde_json::from_slice(&done.stdout).map_err(|error| failed(format!("it printed no JSON: {error}")))
}

fn kernel_table(kernels: &GpuKernels) -> String {
    let GpuKernels { adapter, upload_bytes_per_second: upload, .. } = kernels;
    let (fma, memory) = (kernels.fma_flops_per_second / 1e9, kernels.memory_bytes_per_second / 1e9);
    let head = format!(
        "{adapter}\n{:.2} GB/s to the device, {fma:.1} GFLOP/s of f32, {memory:.1} GB/s of its memory\n\
         format  rows    GFLOP/s  of peak      GB/s  of memory\n",
        upload / 1e9
    );
    let row = |p: &KernelPoint| {
        format!(
            "{:<7} {:>4} {:>10.2} {:>6.1} % {:>9.2} {:>8.1} %\n",
            p.format,
            p.rows,
            p.flops_per_second / 1e9,
            p.fraction_of_fma * 100.0,
            p.bytes_per_second / 1e9,
            p.fraction_of_memory * 100.0
        )
    };
    head + &kernels.points.iter().map(row).collect::<String>()
}

fn sweep_head() -> String {
    format!(
        "\n{:<9} {:>9} {:>5} {:>9} {:>9} {:>10} {:>8} {:>8} {:>9}\n",
        "weights", "vram", "rows", "sweep s", "predicted", "tokens/s", "GB", "GB/s", "of raw"
    )
}

fn sweep_rows(sweeps: &Sweeps) -> String {
    let Sweeps { weights, vram_bytes, points, error } = sweeps;
    let row = |p: &SweepPoint| {
        format!(
            "{weights:<9} {:>9} {:>5} {:>9.4} {:>9.4} {:>10.2} {:>8.3} {:>8.3} {:>9.3}\n",
            size(*vram_bytes),
            p.rows,
            p.sweep_seconds,
            p.predicted_seconds,
            p.tokens_per_second,
            p.streamed_bytes as f64 / 1e9,
            p.read_bytes_per_second / 1e9,
            p.fraction_of_raw
        )
    };
    let why = error.iter().map(|error| format!("{weights:<9} {:>9}  {error}\n", size(*vram_bytes)));
    points.iter().map(row).chain(why).collect()
}

/// Tokens per second of prompts and answers, and llama.cpp's beside them.
fn token_table(found: &Found) -> String {
    let mut text = format!("\n{:<10} {:<8} {:>6} {:>10}\n", "weights", "test", "tokens", "tokens/s");
    for Tokens { weights, points, error } in &found.throughput {
        let row = |p: &ThroughputPoint| {
            format!("{weights:<10} {:<8} {:>6} {:>10.2}\n", p.test, p.tokens, p.tokens_per_second)
        };
        text.extend(points.iter().map(row));
        text.extend(error.iter().map(|error| format!("{weights:<10} {error}\n")));
    }
    for test in found.llama_bench.iter().filter_map(Value::as_array).flatten() {
        let number = |name: &str| test[name].as_u64().unwrap_or(0);
        let (name, tokens) = match number("n_gen") {
            0 => ("prompt", number("n_prompt")),
            tokens => ("generate", tokens),
        };
        let rate = test["avg_ts"].as_f64().unwrap_or(f64::NAN);
        text += &format!("{:<10} {name:<8} {tokens:>6} {rate:>10.2}\n", "llama.cpp");
    }
    text
}
