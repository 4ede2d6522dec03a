//! `aerostat score`: log-probabilities of given tokens.

use std::fmt::Write;

use aerostat::{
    Engine, Error, ErrorKind, Outcome, Request, RunEnd, Score, Stats, Tokenizer, Want, Work, score,
};
use clap::Args;
use serde::Serialize;

use crate::encode::{Encoder, Room};
use crate::failure::Failure;
use crate::list::{self, Told};
use crate::model::{self, ModelName};
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::table::TableArgs;
use crate::template::TemplateArgs;
use crate::watch::Watch;
use crate::{interrupt, output, score_table};

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    #[command(flatten)]
    prompts: Prompts,
    /// Give the logits after the last token, too (with --json).
    #[arg(long, conflicts_with = "input")]
    logits: bool,
    #[command(flatten)]
    template: TemplateArgs,
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
        return score_table::execute(&args.model, &args.engine, (&args.table, &args.template), input, output);
    }
    let options = args.engine.options(output)?;
    let prompts = std::mem::take(&mut args.prompts).or_stdin(args.engine.memory())?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::of_model(options, &args.engine, &files);
    model::nothing_is_answered(&args.engine, output);
    let texts = prompts.iter().any(|p| matches!(p, Prompt::Text(_)));
    let tokenizer = model::tokenizer(&files, texts, output)?;
    let room = Room::new(args.engine.context(), files.spec().context_max);
    let (template, chat) = (args.template.template()?, args.template.chat(&files, tokenizer.as_ref())?);
    let encoder = Encoder::plain(tokenizer.as_ref()).within(room.tokens()).through(chat);
    let mut sequences = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let made = template.as_ref().map(|template| template.of_text(prompt)).transpose()?;
        let ids = encoder.prompt(made.as_ref().unwrap_or(prompt))?;
        // Among several a bad one is refused alone, by the engine.
        if prompts.len() == 1 {
            files.check_tokens(i as u64, &ids)?;
        }
        room.check(ids.len())?;
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
    let mut scores = Scores::new(sequences, logits);
    let ended = engine.run(&mut scores, None, &mut watch)?;
    watch.finish()?;
    let stats = engine.stats();
    let (results, end) = list::tell(scores.results)?;
    if output.json {
        output::json(&Report { model: &args.model, results: &results, stats: stats.clone() })?;
    } else {
        output::text(&tables(&results, tokenizer.as_ref()))?;
    }
    output::summary(output, &stats);
    if ended == RunEnd::Interrupted { Err(Failure::Interrupted) } else { end }
}

/// Sequences to score, and what came of them: of those that an interrupted run did not come to, that it was interrupted.
struct Scores {
    sequences: std::vec::IntoIter<Vec<u32>>,
    next: u64,
    want: Want,
    results: Vec<Result<Score, Error>>,
}

impl Scores {
    fn new(sequences: Vec<Vec<u32>>, logits: bool) -> Self {
        let interrupted = || Err(Error::new(ErrorKind::Interrupted, "interrupted"));
        let results = sequences.iter().map(|_| interrupted()).collect();
        let want = Want::Score { from: 1, logits_last: logits };
        Self { sequences: sequences.into_iter(), next: 0, want, results }
    }
}

impl Work for Scores {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        let Some(token_ids) = self.sequences.next() else { return Ok(None) };
        let id = self.next;
        self.next += 1;
        Ok(Some(Request { id, token_ids, want: self.want, ..Request::default() }))
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        if let Some(place) = self.results.get_mut(id as usize) {
            *place = match outcome {
                Outcome::Score(score) => Ok(score),
                Outcome::Failed(error) => Err(error),
                _ => Err(Error::new(ErrorKind::Defect, "a sequence has no score")),
            };
        }
        Ok(())
    }

    fn tokens_left(&self) -> u64 {
        self.sequences.as_slice().iter().map(|sequence| sequence.len() as u64).sum()
    }
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
