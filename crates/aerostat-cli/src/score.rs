//! `aerostat score`: log-probabilities of given tokens.

use std::fmt::Write;

use aerostat::{Engine, Score, Stats, Tokenizer, score};
use clap::Args;
use serde::Serialize;

use crate::encode::{self, Encoder};
use crate::failure::Failure;
use crate::list::{self, Told};
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::table::TableArgs;
use crate::watch::Watch;
use crate::{interrupt, model, output, score_table};

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    #[arg(help = MODEL_HELP)]
    model: String,
    #[command(flatten)]
    prompts: Prompts,
    /// Give the logits after the last token, too (with --json).
    #[arg(long, conflicts_with = "input")]
    logits: bool,
    // Behind its own flags: a group's heading stands above all that follows.
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    results: &'a [Told<Score>],
    stats: Stats,
}

pub(crate) fn execute(mut args: ScoreArgs, output: &OutputArgs) -> Result<(), Failure> {
    if let Some(input) = &args.table.input {
        return score_table::execute(&args.model, &args.engine, &args.table, input, output);
    }
    let options = args.engine.options(output)?;
    let prompts = std::mem::take(&mut args.prompts).or_stdin()?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::learning(options, &args.engine, &files);
    let texts = prompts.iter().any(|p| matches!(p, Prompt::Text(_)));
    let tokenizer = model::tokenizer(&files, texts, output)?;
    let encoder = Encoder::plain(tokenizer.as_ref());
    let mut sequences = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let ids = encoder.prompt(prompt)?;
        files.check_tokens(i as u64, &ids)?;
        encode::answer_tokens_max(ids.len(), 0, args.engine.context())?;
        sequences.push(ids);
    }
    if args.logits && !output.json {
        output::note(output, "--logits shows with --json only");
    }

    let _graceful = interrupt::graceful();
    let mut watch = Watch::new(output, false);
    let logits = args.logits && output.json;
    let mut engine = Engine::open(&files, &options, &score::need(&sequences, logits), &mut watch)?;
    output::opened(output, &engine.stats());
    let scores = engine.score(&sequences, logits, &mut watch)?;
    watch.finish()?;
    let stats = engine.stats();
    let (results, end) = list::tell(scores)?;
    if output.json {
        output::json(&Report { model: &args.model, results: &results, stats: stats.clone() })?;
    } else {
        output::text(&tables(&results, tokenizer.as_ref()))?;
    }
    output::summary(output, &stats);
    end
}

/// One table for each sequence.
fn tables(results: &[Told<Score>], tokenizer: Option<&Tokenizer>) -> String {
    let mut text = String::new();
    for score in results.iter().filter_map(Told::found) {
        if !text.is_empty() {
            text.push('\n');
        }
        for (&id, logprob) in score.token_ids.iter().zip(&score.logprobs) {
            let logprob = logprob.map_or_else(|| "-".to_owned(), |l| format!("{l:.4}"));
            let piece = tokenizer.map_or_else(String::new, |t| format!("  {:?}", t.decode(&[id], false)));
            let _ = writeln!(text, "{id:>8} {logprob:>10}{piece}");
        }
        let known: Vec<f64> = score.logprobs.iter().flatten().map(|l| f64::from(*l)).collect();
        // Of no numbers, `sum` gives -0.
        let sum = known.iter().sum::<f64>() + 0.0;
        let _ = writeln!(text, "{:>8} {sum:>10.4}", "sum");
        if !known.is_empty() {
            let _ = writeln!(text, "{:>8} {:>10.4}", "perplexity", (-sum / known.len() as f64).exp());
        }
    }
    text
}
