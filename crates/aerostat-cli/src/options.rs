//! Flags that several commands share: how a model is run, and how answers are made.

use std::path::{Path, PathBuf};

use aerostat::{Device, Draft, IoChoice, Isa, KvType, Options, Sampling};
use clap::{Args, value_parser};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::output::{self, OutputArgs};
use crate::size;

/// Tokens of a request's answer in batches and on the server, unless somebody says how many.
pub(crate) const NEW_TOKENS_DEFAULT: usize = 256;
/// Tokens of an answer to a prompt of the command line at most, unless the user or the model's makers say how many.
pub(crate) const ANSWER_TOKENS_DEFAULT: usize = 2048;
pub(crate) const MODEL_HELP: &str =
    "a Hugging Face folder, a .gguf file, a Hub id (org/name[@revision][:Q4_K_M]), or `demo`";

/// Variables of a chat template.
pub(crate) type Variables = Map<String, Value>;

/// How answers are made.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerationArgs {
    /// Tokens of an answer at most; without it, what the model's makers name, else 2048, as far as the context has room.
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
    /// The chat template of that name, of a model that has several; without it, the default.
    #[arg(long, value_name = "NAME", conflicts_with = "raw")]
    pub(crate) template_name: Option<String>,
    /// Let the model think before it answers, where its chat template has a switch for that.
    #[arg(long, conflicts_with = "raw")]
    think: bool,
    /// Let it answer without thinking, where its chat template has a switch for that.
    #[arg(long, conflicts_with_all = ["raw", "think"])]
    no_think: bool,
    /// Variables of the chat template, a JSON object, such as '{"reasoning_effort": "low"}'.
    #[arg(long, value_name = "JSON", conflicts_with = "raw", value_parser = object)]
    chat_template_kwargs: Option<Variables>,
    /// Give the log-probability of each token (with --json).
    #[arg(long)]
    pub(crate) logprobs: bool,
}

/// What can be set while a conversation goes on.
pub(crate) const SETTINGS: [&str; 7] =
    ["temperature", "top-p", "top-k", "min-p", "repetition-penalty", "seed", "max-new-tokens"];

/// How a model is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Bound of the whole process's memory, such as 4GiB; without it, what the machine can spare.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// Where to compute: cpu, gpu, or gpu:N, the adapter of that number in `aerostat devices`; auto is the CPU.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    device: Device,
    /// Bound of what is allocated in the GPU's memory; without it, 2 GiB. `plan` takes it for a card that need not be here.
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
    /// How the KV cache is stored: f16, bf16 or f32; q8: keys in f16, values in 8 bits, lossy, three quarters of f16; q8-all:
    /// both in 8 bits, half of f16, which some models do not bear [default: f16; f32 for models that make vectors or scores of
    /// texts].
    #[arg(long, value_name = "TYPE", value_parser = kv)]
    kv: Option<KvType>,
    /// A LoRA adapter to apply, the folder that PEFT saved: its updates are computed beside the model's matrices, exactly,
    /// and nothing is merged.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// What guesses the next tokens, so that a sweep brings several: texts, the text at hand, earlier answers and what the model
    /// expected before; MODEL, a small model with the same tokens too, held in memory within --memory; auto, the best of those
    /// that `aerostat models` lists, if one is worth its memory; none, every token takes a sweep. Results never depend on it.
    #[arg(long, value_name = "MODEL|auto|texts|none", default_value = "texts")]
    draft: String,
    /// Keep the KV cache of prompts in this folder, up to 4 GiB, and read it the next time instead of computing them; chat and
    /// serve do so in the user's cache folder unless told otherwise. Results never depend on it.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Keep no KV cache of prompts.
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
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
    /// Write which experts each sweep uses to this file, a JSON object a line, for `bench experts`. Results never depend on it.
    #[arg(long, value_name = "FILE")]
    expert_trace: Option<PathBuf>,
}

impl EngineArgs {
    /// The engine's options; notes what has no effect.
    pub(crate) fn options(&self, output: &OutputArgs) -> Result<Options, Failure> {
        if self.vram.is_some() && !self.computes_on_gpu() {
            output::note(output, "--vram has no effect without --device gpu");
        }
        self.options_for(false, output)
    }

    fn computes_on_gpu(&self) -> bool {
        matches!(self.device, Device::Gpu(_))
    }

    /// Memory of a graphics card to plan for that need not be here: the one that is, is named by `--device`.
    pub(crate) fn card_bytes(&self) -> Option<u64> {
        self.vram.filter(|_| !self.computes_on_gpu())
    }

    /// The same for another machine, `elsewhere`, whose memory nobody knows.
    pub(crate) fn options_for(&self, elsewhere: bool, output: &OutputArgs) -> Result<Options, Failure> {
        let machine = aerostat::machine::describe().memory_bytes;
        if let Some(memory) = self.memory.filter(|memory| !elsewhere && machine > 0 && *memory > machine) {
            let (memory, machine) = (aerostat::size(memory), aerostat::size(machine));
            output::note(output, &format!("--memory {memory}: this machine has {machine} in all"));
        }
        Ok(Options {
            memory_bytes: self.memory,
            vram_bytes: self.vram,
            device: self.device,
            threads: self.threads.map(|n| n as usize),
            isa: self.isa,
            io: self.io,
            rows_max: self.rows_max.map(|n| n as usize),
            kv: self.kv.unwrap_or_default(),
            draft: if self.draft == "none" { Draft::None } else { Draft::Texts },
            tile_bytes: self.tile_bytes,
            prefill_chunk: self.prefill_chunk.map(|n| n as usize),
            expert_trace: self.expert_trace.clone(),
            ..Options::default()
        })
    }

    /// The type of keys and values that the user names.
    pub(crate) fn kv(&self) -> Option<KvType> {
        self.kv
    }

    /// The folder that keeps the KV cache of prompts: the one that is named, else `usual`.
    pub(crate) fn prompt_cache(&self, usual: Option<PathBuf>) -> Option<PathBuf> {
        self.cache.clone().or(usual.filter(|_| !self.no_cache))
    }

    /// Whether the best model on this machine is to guess.
    pub(crate) fn finds_draft(&self) -> bool {
        self.draft == "auto"
    }

    /// The small model that guesses, by name.
    pub(crate) fn draft_model(&self) -> Option<&str> {
        Some(&*self.draft).filter(|name| !["auto", "texts", "none"].contains(name))
    }

    /// The adapter to apply.
    pub(crate) fn adapter(&self) -> Option<&Path> {
        self.adapter.as_deref()
    }

    /// Where to write which experts are used.
    pub(crate) fn expert_trace(&self) -> Option<&Path> {
        self.expert_trace.as_deref()
    }

    /// Whether to learn which experts a model uses.
    pub(crate) fn learns(&self) -> bool {
        !self.no_learn
    }

    /// The bound of the process's memory, in bytes, if the user names one.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// Tokens of a sequence at most, if the user names a bound.
    pub(crate) fn context(&self) -> Option<usize> {
        self.context.map(|n| n as usize)
    }
}

impl GenerationArgs {
    /// Whether the model is to think; `None`: as its template has it.
    pub(crate) fn think(&self) -> Option<bool> {
        (self.think || self.no_think).then_some(self.think)
    }

    /// Sets whether the model is to think.
    pub(crate) fn set_think(&mut self, think: Option<bool>) {
        (self.think, self.no_think) = (think == Some(true), think == Some(false));
    }

    /// What the chat template is told beside the messages. Templates have two names for the switch for thoughts.
    pub(crate) fn variables(&self) -> Variables {
        let think = self.think().map(|think| [("enable_thinking", think), ("thinking", think)]);
        let think = think.into_iter().flatten().map(|(name, value)| (name.to_owned(), value.into()));
        think.chain(self.chat_template_kwargs.clone().unwrap_or_default()).collect()
    }

    /// The settings in words, with what the model's makers recommend where nothing was set.
    pub(crate) fn settings(&self, model: Sampling, answer_tokens: usize) -> String {
        let sampling = self.sampling(model);
        let think = self.think().map_or("auto", |think| if think { "on" } else { "off" });
        format!(
            "temperature {}  top-p {}  top-k {}  min-p {}  repetition-penalty {}  seed {}  max-new-tokens {answer_tokens}  think {think}",
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.min_p,
            sampling.repetition_penalty,
            sampling.seed
        )
    }

    /// Sets what a flag of this name would; `auto` is the default.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let auto = value == "auto";
        let float = |read: fn(&str) -> Result<f32, String>| (!auto).then(|| read(value)).transpose();
        let count =
            || (!auto).then(|| value.parse()).transpose().map_err(|_| "expected a whole number".to_owned());
        match name {
            "temperature" => self.temperature = float(not_negative)?,
            "top-p" => self.top_p = float(probability)?,
            "min-p" => self.min_p = float(probability)?,
            "repetition-penalty" => self.repetition_penalty = float(positive)?,
            "top-k" => self.top_k = count()?,
            "max-new-tokens" => self.max_new_tokens = count()?,
            "seed" => {
                self.seed =
                    if auto { None } else { Some(value.parse().map_err(|_| "expected a whole number")?) }
            }
            _ => return Err(format!("there is no setting {name}; there are {}", SETTINGS.join(", "))),
        }
        Ok(())
    }

    /// Tokens of an answer at most that the user asks for by number.
    pub(crate) fn max_new_tokens(&self) -> Option<usize> {
        self.max_new_tokens.map(|n| n as usize)
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

pub(crate) fn device(text: &str) -> Result<Device, String> {
    match (text, text.strip_prefix("gpu:").map(str::parse::<usize>)) {
        ("auto", _) => Ok(Device::Auto),
        ("cpu", _) => Ok(Device::Cpu),
        ("gpu", _) => Ok(Device::Gpu(None)),
        ("reference", _) => Ok(Device::Reference),
        (_, Some(Ok(number))) => Ok(Device::Gpu(Some(number))),
        _ => Err("expected auto, cpu, gpu or gpu:N".to_owned()),
    }
}

pub(crate) fn io(text: &str) -> Result<IoChoice, String> {
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
    named.copied().ok_or_else(|| "expected f16, bf16, f32, q8 or q8-all".to_owned())
}

fn object(text: &str) -> Result<Variables, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        generation: GenerationArgs,
    }

    #[test]
    fn what_the_user_names_goes_over_what_the_model_names() {
        let line = Line::parse_from(["aerostat", "--temperature", "0", "--seed", "7"]);
        let model = Sampling { temperature: 0.7, top_k: 40, ..Sampling::default() };
        let want = Sampling { temperature: 0.0, top_k: 40, seed: 7, ..Sampling::default() };
        assert_eq!(line.generation.sampling(model), want);
    }
}
