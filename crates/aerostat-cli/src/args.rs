//! The command line: one command, its subcommands, and the flags that all of them take.
//!
//! Each subcommand's flags are in its own file; those that several share are in `options.rs`. Nothing imports this file
//! but `main.rs`, so that imports go one way.

use aerostat::Isa;
use clap::{Parser, Subcommand};

use crate::batch::BatchArgs;
use crate::bench::BenchArgs;
use crate::chat::ChatArgs;
use crate::classify::ClassifyArgs;
use crate::distil::DistilArgs;
use crate::embed::EmbedArgs;
use crate::inspect::InspectArgs;
use crate::jobs::JobsArgs;
use crate::merge::MergeArgs;
use crate::models::{ModelsArgs, RmArgs};
use crate::output::OutputArgs;
use crate::pack::PackArgs;
use crate::plan::PlanArgs;
use crate::prompt::PromptArgs;
use crate::pull::PullArgs;
use crate::rerank::RerankArgs;
use crate::run::RunArgs;
use crate::score::ScoreArgs;
use crate::serve::ServeArgs;
use crate::shell::{CompletionsArgs, ManArgs};
use crate::tokenize::TokenizeArgs;

/// Run language models far larger than memory.
#[derive(Debug, Parser)]
#[command(name = "aerostat", version, long_version = long_version(), propagate_version = true)]
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
    /// Answer OpenAI's API over HTTP: many clients share every sweep.
    Serve(ServeArgs),
    /// Put the outputs of the shards of a batch together.
    Merge(MergeArgs),
    /// The jobs of a folder, and how far they are.
    Jobs(JobsArgs),
    /// Log-probabilities and perplexity of given texts.
    Score(ScoreArgs),
    /// One vector for each text: pooled hidden states.
    Embed(EmbedArgs),
    /// How well documents answer a query, best first.
    Rerank(RerankArgs),
    /// Choose among labels by how likely the model finds them.
    Classify(ClassifyArgs),
    /// The likeliest tokens after every token, for training smaller models.
    Distil(DistilArgs),
    /// What would stay in memory, what would stream, and how long a sweep takes.
    Plan(PlanArgs),
    /// Tensors, formats, sizes, family, and what is unsupported and why.
    Inspect(InspectArgs),
    /// What a model sees of a conversation: its chat template, rendered.
    Prompt(PromptArgs),
    /// The token ids of a text.
    Tokenize(TokenizeArgs),
    /// Make a copy that reads faster: lossless, or in 8 or 4 bits.
    Pack(PackArgs),
    /// Download a model, or what is missing of it.
    Pull(PullArgs),
    /// The models that are on this machine: from the Hub, and in the stores of Ollama, LM Studio and llama.cpp.
    Models(ModelsArgs),
    /// Remove models from the Hub's cache, or the demo model.
    Rm(RmArgs),
    /// Print a script that completes commands and flags in a shell.
    Completions(CompletionsArgs),
    /// Write manual pages.
    Man(ManArgs),
    /// What can compute here: the processor, and GPUs with their drivers.
    Devices,
    /// Measure the disk, and sweeps beside it.
    Bench(BenchArgs),
}

/// The version, with what tells one build from another: the commit, the features, and the instructions of this machine.
fn long_version() -> &'static str {
    let commit = env!("AEROSTAT_COMMIT");
    let commit = if commit.is_empty() { "unknown" } else { commit };
    let features = [("gpu", cfg!(feature = "gpu")), ("parquet", cfg!(feature = "parquet"))];
    let features: Vec<&str> =
        features.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("{version}\ncommit: {commit}\nfeatures: {features}\ninstructions: {}", Isa::detect());
    // As clap wants it, and once.
    text.leak()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
