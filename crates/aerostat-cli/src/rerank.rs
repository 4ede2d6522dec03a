//! `aerostat rerank`: how well documents answer a query.

use std::path::Path;

use aerostat::{Engine, Reranker, Tokenizer, rerank};
use clap::{ArgMatches, Args, Command, FromArgMatches, value_parser};
use serde_json::{Value, json};

use crate::cell::{Cell, number};
use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::{self, OutputArgs, tell};
use crate::prompts::{Prompt, Prompts};
use crate::results::Lines;
use crate::table::{Making, Row, Rows, TableArgs};
use crate::tasks;
use crate::watch::Watch;
use crate::{apart, interrupt, list};

/// Rows that hold no document of which so many are told.
const TOLD_MAX: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct RerankArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// What documents are to answer.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    query: String,
    #[command(flatten)]
    documents: Documents,
    /// Only the best N.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// What a document is to do, for causal models that are told it; without it, to answer a web search.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    instruction: Option<String>,
    // Behind its own flags: a group's heading stands above all that follows.
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// The documents of the command line, in the order given.
#[derive(Debug)]
struct Documents(Prompts);

impl Args for Documents {
    fn augment_args(command: Command) -> Command {
        Prompts::augment_args(command)
            .mut_arg("prompt_text", |arg| {
                arg.value_name("DOCUMENT").num_args(0..).help("The documents; `-`, or none: stdin is one")
            })
            .mut_arg("prompt", |arg| arg.help("A further document; may be given several times"))
            // A model writes documents beside the query, as texts.
            .mut_arg("token_ids", |arg| arg.hide(true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Documents {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Prompts::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// A document, and the row of the table that it is of.
struct Document {
    text: String,
    row: Option<Row>,
}

pub(crate) fn execute(mut args: RerankArgs, output: &OutputArgs) -> Result<(), Failure> {
    check(&args, output)?;
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::of_model(options, &args.engine, &files);
    if let Some(input) = &args.table.input {
        let read = apart::read(files.path(), &args.engine);
        apart::results(input, args.table.file(), &read, args.table.restart)?;
    }
    let (documents, bad) = documents(&mut args, options.memory_bytes)?;
    model::nothing_is_answered(&args.engine, output);
    let Some(tokenizer) = model::tokenizer(&files, true, output)? else {
        return Err(Failure::failed("the model has no tokenizer"));
    };
    let reranker = files.reranker(&tokenizer)?;
    let pairs = pairs(&args, &reranker, &tokenizer, &documents, output)?;
    let need = reranker.need(&pairs);
    let _graceful = interrupt::graceful();
    let mut watch = Watch::new(output, false);
    let mut engine = Engine::open(&files, &options, &need, &mut watch)?;
    output::opened(output, &engine.stats());
    let found = reranker.scores(&mut engine, &pairs, &mut watch)?;
    watch.finish()?;
    let stats = engine.stats();
    let (told, end) = list::tell(found)?;
    let scores: Vec<Option<f32>> = told.into_iter().map(list::Told::into_found).collect();
    let order = best_first(&scores, args.top);
    match &args.table.input {
        Some(input) => write(&args.table, input, &documents, &scores, &order)?,
        None if output.json => {
            let result = |&i: &usize| json!({"index": i, "score": number(scores[i].unwrap_or(f32::NAN)), "document": documents[i].text});
            let results: Vec<Value> = order.iter().map(result).collect();
            output::json(&json!({"model": &*args.model, "results": results, "stats": stats}))?;
        }
        None => {
            for &i in &order {
                let line = documents[i].text.replace(['\n', '\r'], " ");
                output::text(&format!("{:.6}\t{line}\n", scores[i].unwrap_or(f32::NAN)))?;
            }
        }
    }
    output::summary(output, &stats);
    match bad {
        0 => end,
        bad => Err(Failure::Partly(format!("{bad} of {} rows failed", bad + documents.len()))),
    }
}

/// Refuses what a command that sorts cannot do.
fn check(args: &RerankArgs, output: &OutputArgs) -> Result<(), Failure> {
    tasks::check(&args.table, &["score"], output)?;
    let table = &args.table;
    for (is_given, flag) in [
        (table.errors.is_some(), "--errors"),
        (table.retry_errors, "--retry-errors"),
        (table.dry_run, "--dry-run"),
        (table.truncate.is_some(), "--truncate"),
    ] {
        if is_given {
            let why = "rerank sorts its results, so it writes them in one piece in the end";
            return Err(Failure::usage(format!("{flag}: {why}")));
        }
    }
    match &table.input {
        Some(input) => Lines::check(table.file(), table.result_format(input)?),
        None if args.documents.0.are_missing() => Err(Failure::usage(
            "no documents: give them behind the model, a table of them with -i FILE, or pipe one into stdin",
        )),
        None => Ok(()),
    }
}

/// The documents of the command line, or of the table; and how many of its rows hold none, which are told of.
fn documents(args: &mut RerankArgs, memory_bytes: Option<u64>) -> Result<(Vec<Document>, usize), Failure> {
    let mut bad = 0;
    let text = |prompt: Prompt| match prompt {
        Prompt::Text(text) => Ok(text),
        Prompt::TokenIds(_) => {
            Err(Failure::usage("documents are texts: a model writes them beside the query"))
        }
    };
    let prompts = tasks::prompts(&mut args.documents.0, &args.table, &args.engine)?;
    let given = prompts.into_iter().map(|prompt| Ok(Document { text: text(prompt)?, row: None }));
    let mut documents = given.collect::<Result<Vec<_>, Failure>>()?;
    if let Some(input) = &args.table.input {
        let mut rows = Rows::open(input, &args.table, Making::default(), memory_bytes)?;
        while let Some(mut row) = rows.next()? {
            let prompt = std::mem::replace(&mut row.prompt, Ok(Prompt::Text(String::new())));
            let found = prompt.and_then(|prompt| text(prompt).map_err(|failure| failure.message()));
            match found {
                Ok(text) => documents.push(Document { text, row: Some(row) }),
                Err(why) => {
                    bad += 1;
                    if bad <= TOLD_MAX {
                        tell!("error: {}:{}: {why}", input.display(), row.line);
                    }
                }
            }
        }
        if documents.is_empty() && bad > 0 {
            return Err(Failure::failed(format!("{}: no row holds a document", input.display())));
        }
    }
    Ok((documents, bad))
}

/// The query with each document.
fn pairs(
    args: &RerankArgs,
    reranker: &Reranker,
    tokenizer: &Tokenizer,
    documents: &[Document],
    output: &OutputArgs,
) -> Result<Vec<rerank::Pair>, Failure> {
    let pair = |document: &Document| {
        let instruction = args.instruction.as_deref();
        Ok(reranker.pair(tokenizer, &args.query, &document.text, instruction)?)
    };
    let pairs = documents.iter().map(pair).collect::<Result<Vec<_>, Failure>>()?;
    let cut = pairs.iter().filter(|pair| pair.cut > 0).count();
    if cut > 0 {
        let of = documents.len();
        output::note(
            output,
            &format!("{cut} of {of} documents are longer than the model takes, and were cut"),
        );
    }
    Ok(pairs)
}

/// The numbers of the documents that have scores, best first; of equals the first.
fn best_first(scores: &[Option<f32>], top: Option<u32>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|i| scores[*i].is_some()).collect();
    let score = |i: usize| scores[i].unwrap_or(f32::NEG_INFINITY);
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    order.truncate(top.map_or(usize::MAX, |top| top as usize));
    order
}

/// The rows of a table with their scores.
fn write(
    table: &TableArgs,
    input: &Path,
    documents: &[Document],
    scores: &[Option<f32>],
    order: &[usize],
) -> Result<(), Failure> {
    let columns = tasks::columns(table, &["score"]);
    let mut lines = Lines::create(table.file(), table.result_format(input)?, &columns)?;
    for &i in order {
        let Some(row) = &documents[i].row else { continue };
        let mut cells = tasks::first_cells(row, table);
        cells.push(("score", Cell::Value(number(scores[i].unwrap_or(f32::NAN)))));
        lines.write(cells)?;
    }
    lines.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_failures_nowhere() {
        let scores = [Some(0.1), None, Some(0.9), Some(0.1), Some(f32::NAN)];
        assert_eq!(best_first(&scores[..4], None), [2, 0, 3]);
        assert_eq!(best_first(&scores[..4], Some(1)), [2]);
    }
}
