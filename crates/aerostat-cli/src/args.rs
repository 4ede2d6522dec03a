//! What can be typed, and what it means to the engine.

use std::path::PathBuf;
use std::time::Duration;

use aerostat::{Device, IoChoice, Isa, KvType, Options, Sampling};
use aerostat_pack::Codec;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::batch::BatchArgs;
use crate::classify::ClassifyArgs;
use crate::distil::DistilArgs;
use crate::embed::EmbedArgs;
use crate::failure::Failure;
use crate::jobs::JobsArgs;
use crate::output;
use crate::prompts::Prompts;
use crate::size;
use crate::table::TableArgs;

/// Tokens of an answer unless the user says how many.
pub(crate) const NEW_TOKENS_DEFAULT: usize = 256;
pub(crate) const MODEL_HELP: &str =
    "a Hugging Face folder, a .gguf file, a Hub id (org/name[@revision]), or `demo`";

/// Run language models far larger than memory.
#[derive(Debug, Parser)]
#[command(name = "aerostat", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Generate an answer to one prompt or many; one sweep serves all.
    Run(RunArgs),
    /// Talk in turns.
    Chat(ChatArgs),
    /// Work through an OpenAI Batch file, durably; given again, the same command goes on where it was stopped.
    Batch(BatchArgs),
    /// The batch jobs of a folder, and how far they are.
    Jobs(JobsArgs),
    /// Log-probabilities and perplexity of given texts.
    Score(ScoreArgs),
    /// One vector for each text: pooled hidden states.
    Embed(EmbedArgs),
    /// Choose among labels by how likely the model finds them.
    Classify(ClassifyArgs),
    /// The likeliest tokens after every token, for training smaller models.
    Distil(DistilArgs),
    /// What would stay in memory, what would stream, and how long a sweep takes.
    Plan(PlanArgs),
    /// Tensors, formats, sizes, family, and what is unsupported and why.
    Inspect(InspectArgs),
    /// Make a copy that reads faster: lossless, or in 8 or 4 bits.
    Pack(PackArgs),
    /// Download a model, or what is missing of it.
    Pull(PullArgs),
    /// Measure the disk, and sweeps beside it.
    Bench(BenchArgs),
}

/// What is printed.
#[derive(Debug, Args)]
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

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) prompts: Prompts,
    /// Answers to each prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) n: u32,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) prompts: Prompts,
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// Give the logits after the last token, too (with --json).
    #[arg(long, conflicts_with = "input")]
    pub(crate) logits: bool,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    /// Print what `aerostat pack` would make of it, too.
    #[arg(long)]
    pub(crate) compare: bool,
    /// Bytes that reading yields in a second, such as 3GB; without it, what a look at the disk says.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) read_rate: Option<u64>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// How fast the model's files can be read, by size and number of reads in flight.
    Disk(BenchDiskArgs),
    /// How long sweeps take, between spells of raw reads of the same files.
    Sweep(BenchSweepArgs),
    /// Tokens per second of a prompt and of an answer.
    Throughput(BenchThroughputArgs),
    /// A job of many prompts of mixed lengths, beside the best that its plan allows.
    Batch(BenchBatchArgs),
    /// How fast weights of each format are multiplied, beside what the processor and its memory can do.
    Kernels(BenchKernelsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchDiskArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    /// How to read: auto, direct, uring or buffered.
    #[arg(long, value_name = "IO", default_value = "auto", value_parser = io)]
    pub(crate) io: IoChoice,
    /// Sizes of a read.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "256KiB,1MiB,4MiB", value_parser = size::parse)]
    pub(crate) sizes: Vec<u64>,
    /// Reads in flight.
    #[arg(long, value_name = "DEPTHS", value_delimiter = ',', default_value = "1,4,8,16", value_parser = value_parser!(u16).range(1..=1024))]
    pub(crate) depths: Vec<u16>,
    /// How often each is measured; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) rounds: u16,
    /// Duration of each measurement.
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = seconds)]
    pub(crate) seconds: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BenchSweepArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    /// Rows of a sweep.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,8,50,128,256", value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) rows: Vec<u32>,
    /// Weights to keep in memory, in percent, as far as the budget allows.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0", value_parser = value_parser!(u8).range(0..=100))]
    pub(crate) pinned: Vec<u8>,
    /// Generations measured; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) rounds: u16,
    /// Sweeps of each generation.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) sweeps: u16,
    /// Raw reading before and after each generation.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub(crate) raw_seconds: Duration,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchThroughputArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    /// Tokens of a prompt; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) prompt: u32,
    /// Tokens of an answer to a prompt of one token; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) generate: u32,
    /// Sequences at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) sequences: u32,
    /// How often each is measured; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) rounds: u16,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchBatchArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
    /// Prompts.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) requests: u32,
    /// Tokens of the shortest and the longest prompt.
    #[arg(long, value_name = "LEAST,MOST", value_delimiter = ',', num_args = 1, default_value = "16,512")]
    pub(crate) prompt: Vec<u32>,
    /// Tokens of the shortest and the longest answer.
    #[arg(long, value_name = "LEAST,MOST", value_delimiter = ',', num_args = 1, default_value = "1,128")]
    pub(crate) answer: Vec<u32>,
    /// Each prompt computes and holds what it shares with others by itself.
    #[arg(long)]
    pub(crate) no_sharing: bool,
    /// Folder where parts of the KV cache may wait on disk.
    #[arg(long, value_name = "DIR")]
    pub(crate) spill: Option<std::path::PathBuf>,
    /// A spell of raw reading, and one of multiplying alone: before, now and then between sweeps, after.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub(crate) raw_seconds: Duration,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchKernelsArgs {
    /// Formats, such as BF16 or Q4_K; all that can be computed unless given.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) formats: Vec<String>,
    /// Rows of activations.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128", value_parser = value_parser!(u32).range(1..=4096))]
    pub(crate) rows: Vec<u32>,
    /// Duration of each measurement.
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Worker threads; without it, one per core.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    /// Instruction set; without it, the widest.
    #[arg(long, value_name = "ISA")]
    pub(crate) isa: Option<Isa>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[arg(help = MODEL_HELP)]
    pub(crate) model: String,
}

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    #[arg(help = "a Hugging Face folder, a Hub id (org/name[@revision])")]
    pub(crate) model: String,
    /// The folder to make; the same command again goes on with one that is not finished.
    pub(crate) out: PathBuf,
    /// lossless: the same weights in two thirds of the bytes of BF16, six sevenths of F16 or FP8; q8, q4: about 0.53 and 0.29
    /// of BF16, with loss.
    #[arg(long, value_name = "CODEC", default_value = "lossless")]
    pub(crate) codec: Codec,
    /// Read everything back at the end and check it.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Delete each file of the original once its weights are in the copy, read back and checked.
    #[arg(long)]
    pub(crate) delete_original: bool,
    /// Threads that code; without it, one per core.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    /// Bytes of a tile, the unit of reading, before it is coded.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size::parse)]
    pub(crate) tile_bytes: u64,
    /// Bytes of the original in each file of the copy.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size::parse)]
    pub(crate) shard_bytes: u64,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[arg(help = "a Hub id (org/name[@revision]), or `demo`")]
    pub(crate) id: String,
}

/// How answers are made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerationArgs {
    /// Tokens of an answer at most; 256 unless given.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<u32>,
    /// 0 takes the likeliest token; the default is the model's own, else 0.
    #[arg(long, value_name = "T", value_parser = not_negative)]
    temperature: Option<f32>,
    /// Only the fewest likeliest tokens whose probabilities reach P.
    #[arg(long, value_name = "P", value_parser = probability)]
    top_p: Option<f32>,
    /// Only the K likeliest tokens; 0: all.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Only tokens at least P times as likely as the likeliest.
    #[arg(long, value_name = "P", value_parser = probability)]
    min_p: Option<f32>,
    /// Makes tokens that are there already less likely; 1: no penalty.
    #[arg(long, value_name = "R", value_parser = positive)]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same answer.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the answer before this text; may be given several times.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// The system message of the chat template.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// Go on after tokens that end an answer.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Use no chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Give the log-probability of each token (with --json).
    #[arg(long)]
    pub(crate) logprobs: bool,
}

/// How a model is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Bound of the whole process's memory, such as 4GiB; without it, what the machine can spare.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// Where to compute.
    #[arg(long, default_value = "auto")]
    device: DeviceArg,
    /// Bound of the GPU's memory.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    vram: Option<u64>,
    /// Worker threads; without it, one per core.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Instruction set: portable, avx2 or avx512; without it, the widest. All give the same bits.
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    /// How to read weights: auto, direct, uring or buffered.
    #[arg(long, value_name = "IO", default_value = "auto", value_parser = io)]
    io: IoChoice,
    /// Rows of a sweep at most.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    rows_max: Option<u32>,
    /// Element type of the KV cache: f16, bf16, f32, or q8, which halves it and is lossy.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv)]
    kv: KvType,
    /// Tokens of a sequence at most, prompt and answer.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Size of a tile, the unit of reading; without it, the plan chooses.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    tile_bytes: Option<u64>,
    /// Tokens of one prompt in one sweep at most.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    prefill_chunk: Option<u32>,
    /// Do not learn which experts a model uses, nor use what earlier runs learned. Results never depend on it.
    #[arg(long)]
    no_learn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DeviceArg {
    Auto,
    Cpu,
    Gpu,
    #[value(hide = true)]
    Reference,
}

impl EngineArgs {
    /// The engine's options; notes what has no effect.
    pub(crate) fn options(&self, output: &OutputArgs) -> Result<Options, Failure> {
        let device = match self.device {
            DeviceArg::Auto => Device::Auto,
            DeviceArg::Cpu => Device::Cpu,
            DeviceArg::Reference => Device::Reference,
            DeviceArg::Gpu => {
                let message = "--device gpu is not built into this version; use --device cpu or auto";
                return Err(Failure::failed(message));
            }
        };
        if self.vram.is_some() {
            output::note(output, "--vram has no effect without a GPU device");
        }
        Ok(Options {
            memory_bytes: self.memory,
            device,
            threads: self.threads.map(|n| n as usize),
            isa: self.isa,
            io: self.io,
            rows_max: self.rows_max.map(|n| n as usize),
            kv: self.kv,
            tile_bytes: self.tile_bytes,
            prefill_chunk: self.prefill_chunk.map(|n| n as usize),
            ..Options::default()
        })
    }

    /// Whether to learn which experts a model uses.
    pub(crate) fn learns(&self) -> bool {
        !self.no_learn
    }

    /// Tokens of a sequence at most, if the user names a bound.
    pub(crate) fn context(&self) -> Option<usize> {
        self.context.map(|n| n as usize)
    }
}

impl GenerationArgs {
    /// Tokens of an answer at most.
    pub(crate) fn max_new_tokens(&self) -> usize {
        self.max_new_tokens.map_or(NEW_TOKENS_DEFAULT, |n| n as usize)
    }

    /// Tokens of an answer that the user asks for by number.
    pub(crate) fn new_tokens_asked(&self) -> usize {
        self.max_new_tokens.map_or(0, |n| n as usize)
    }

    /// What the user names, over what the model names.
    pub(crate) fn sampling(&self, model: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.map_or(model.top_k, |k| k as usize),
            top_p: self.top_p.unwrap_or(model.top_p),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            seed: self.seed.unwrap_or(model.seed),
            ..model
        }
    }
}

/// A duration in seconds, above 0 and below an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let sensible = duration.filter(|d| !d.is_zero() && *d < Duration::from_secs(3600));
    sensible.ok_or_else(|| format!("`{text}` is not a number of seconds above 0 and below 3600"))
}

fn io(text: &str) -> Result<IoChoice, String> {
    match text {
        "auto" => Ok(IoChoice::Auto),
        "direct" => Ok(IoChoice::Direct),
        "buffered" => Ok(IoChoice::Buffered),
        "uring" => Ok(IoChoice::Uring),
        _ => Err("expected auto, direct, uring or buffered".to_owned()),
    }
}

fn kv(text: &str) -> Result<KvType, String> {
    let named = KvType::ALL.iter().find(|kv| kv.name() == text);
    named.copied().ok_or_else(|| "expected f16, bf16, f32 or q8".to_owned())
}

fn number(text: &str, fits: impl Fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    text.parse().ok().filter(|n| fits(*n)).ok_or_else(|| format!("expected {expected}"))
}

pub(crate) fn not_negative(text: &str) -> Result<f32, String> {
    number(text, |n| n >= 0.0 && n.is_finite(), "a number of at least 0")
}

fn positive(text: &str) -> Result<f32, String> {
    number(text, |n| n > 0.0 && n.is_finite(), "a number greater than 0")
}

fn probability(text: &str) -> Result<f32, String> {
    number(text, |n| (0.0..=1.0).contains(&n), "a number from 0 to 1")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_user_names_goes_over_what_the_model_names() {
        let args = ["aerostat", "run", "m", "p", "--temperature", "0", "--seed", "7"];
        let Command::Run(run) = Cli::parse_from(args).command else { panic!("not a run") };
        let model = Sampling { temperature: 0.7, top_k: 40, ..Sampling::default() };
        let want = Sampling { temperature: 0.0, top_k: 40, seed: 7, ..Sampling::default() };
        assert_eq!(run.generation.sampling(model), want);
    }
}
