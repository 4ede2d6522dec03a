//! Tasks beside generation: one text or a table of any length through one engine, in chunks.

use std::path::Path;

use aerostat::{Engine, Error, ErrorKind, ModelFiles, Need, Options, Stats, Tokenizer};
use serde::Serialize;
use serde_json::Value;

use crate::encode::Encoder;
use crate::failure::Failure;
use crate::list::{self, Told};
use crate::options::EngineArgs;
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::table::{Format, Row, Rows, TableArgs};
use crate::watch::Watch;
use crate::{interrupt, model, output};

/// A chunk of a table ends when it has so many rows, tokens, or bytes of results: enough for many sweeps, and little memory.
const CHUNK_ROWS_MAX: usize = 1024;
const CHUNK_TOKENS_MAX: usize = 1 << 16;
const CHUNK_RESULT_BYTES_MAX: usize = 16 << 20;

/// What a command does with each text: from prompts to sequences of tokens, and from these to results.
pub(crate) trait Task {
    /// A prompt in the form that the engine takes.
    type Item;
    /// The result of one item.
    type Found;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Self::Item, Failure>;

    /// The sequences of tokens that are computed for an item.
    fn sequences(&self, item: &Self::Item) -> Vec<Vec<u32>>;

    /// The most tokens that are generated after each sequence.
    fn new_tokens(&self) -> usize {
        0
    }

    /// Adds to `need` what a sequence of so many tokens needs.
    fn need(&self, tokens: usize, need: &mut Need);

    /// Size of the results of so many tokens, in bytes.
    fn result_bytes(&self, tokens: usize) -> usize;

    /// A result for each item: one that fails costs the others nothing.
    fn run(
        &self,
        engine: &mut Engine,
        items: &[Self::Item],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Result<Self::Found, Error>>, Error>;
}

/// Where the results of a table are written.
pub(crate) trait Sink<T> {
    /// Takes the result of the next row; `None` if it failed.
    fn give(&mut self, row: &Row, found: Option<T>) -> Result<(), Failure>;

    /// Completes the output: there are no more rows.
    fn finish(self) -> Result<(), Failure>;
}

/// A model whose files are found and read, but whose engine is not opened yet.
pub(crate) struct Setup<'a> {
    pub(crate) name: &'a str,
    pub(crate) files: ModelFiles,
    pub(crate) tokenizer: Option<Tokenizer>,
    options: Options,
    /// The longest sequence, in tokens.
    context: usize,
    output: &'a OutputArgs,
}

/// What `--json` prints about prompts.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    results: Vec<Value>,
    stats: Stats,
}

/// What `--json` prints about a table.
#[derive(Serialize)]
struct TableReport<'a> {
    model: &'a str,
    input: &'a Path,
    output: Option<&'a Path>,
    rows: u64,
    failed: u64,
    stats: Option<Stats>,
}

/// Rows of a table, each with its result or the reason why it failed.
type Done<T> = Vec<(Row, Result<T, String>)>;

/// Rows of a table that are computed together, each with its item or with what is wrong with it.
struct Chunk<T> {
    rows: Vec<(Row, Result<T, String>)>,
    tokens: usize,
}

impl<'a> Setup<'a> {
    /// Finds the model and reads its headers; `texts` says that a tokenizer is required.
    pub(crate) fn find(
        name: &'a str,
        engine: &EngineArgs,
        texts: bool,
        output: &'a OutputArgs,
    ) -> Result<Self, Failure> {
        let options = engine.options(output)?;
        let files = model::open(name, engine.adapter(), output)?;
        let options = model::learning(options, engine, &files);
        let tokenizer = model::tokenizer(&files, texts, output)?;
        let context = engine.context().unwrap_or(files.spec().context_max);
        Ok(Self { name, files, tokenizer, options, context, output })
    }

    /// Runs the task on prompts and prints each result, made by `json` with `--json` and by `text` without.
    pub(crate) fn prompts<T: Task>(
        &self,
        task: &T,
        prompts: &[Prompt],
        json: impl Fn(&T::Item, T::Found) -> Value,
        text: impl Fn(&T::Item, T::Found) -> String,
    ) -> Result<(), Failure> {
        let encoder = Encoder::plain(self.tokenizer.as_ref());
        let (mut items, mut need) = (Vec::new(), Need::none());
        for (i, prompt) in prompts.iter().enumerate() {
            let item = task.item(&encoder, prompt)?;
            for sequence in task.sequences(&item) {
                self.check(i as u64, &sequence, task.new_tokens())?;
                task.need(sequence.len(), &mut need);
            }
            items.push(item);
        }
        let _graceful = interrupt::graceful();
        let mut watch = Watch::new(self.output, false);
        let mut engine = Engine::open(&self.files, &self.options, &need, &mut watch)?;
        output::opened(self.output, &engine.stats());
        let found = task.run(&mut engine, &items, &mut watch)?;
        watch.finish()?;
        let stats = engine.stats();
        let (told, end) = list::tell(found)?;
        let pairs = items.iter().zip(told);
        if self.output.json {
            let result = |(item, told)| match told {
                Told::Found(found) => json(item, found),
                Told::Failed { error } => serde_json::json!({ "error": error }),
            };
            let results = pairs.map(result).collect();
            output::json(&Report { model: self.name, results, stats: stats.clone() })?;
        } else {
            let found = pairs.filter_map(|(item, told)| Some((item, told.into_found()?)));
            output::text(&found.map(|(item, found)| text(item, found)).collect::<String>())?;
        }
        output::summary(self.output, &stats);
        end
    }

    /// Runs the task on a table, which is read twice: once to plan, once to compute.
    pub(crate) fn table<T: Task, S: Sink<T::Found>>(
        &self,
        task: &T,
        input: &Path,
        args: &TableArgs,
        sink: impl FnOnce() -> Result<S, Failure>,
    ) -> Result<(), Failure> {
        let _graceful = interrupt::graceful();
        let mut sink = sink()?;
        let need = self.need(task, &mut Rows::open(input, args)?)?;
        let mut watch = Watch::new(self.output, false);
        let mut open = |need| Engine::open(&self.files, &self.options, &need, &mut watch);
        let mut engine = need.map(&mut open).transpose()?;
        if let Some(engine) = &engine {
            output::opened(self.output, &engine.stats());
        }
        let mut rows = Rows::open(input, args)?;
        let (mut count, mut failed) = (0, 0);
        while let Some(chunk) = self.chunk(task, &mut rows)? {
            for (row, found) in self.work(task, chunk, engine.as_mut(), &mut watch)? {
                count += 1;
                if let Err(why) = &found {
                    failed += 1;
                    eprintln!("error: {}: {why}", row.place);
                }
                sink.give(&row, found.ok())?;
            }
        }
        sink.finish()?;
        let stats = engine.map(|engine| engine.stats());
        if self.output.json {
            output::json(&TableReport {
                model: self.name,
                input,
                output: args.output.as_deref(),
                rows: count,
                failed,
                stats: stats.clone(),
            })?;
        }
        if let Some(stats) = stats {
            output::summary(self.output, &stats);
        }
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Partly(format!("{failed} of {count} rows failed"))),
        }
    }

    /// What the largest chunk and the longest sequence need; `None` if there is nothing to compute.
    fn need<T: Task>(&self, task: &T, rows: &mut Rows<'_>) -> Result<Option<Need>, Failure> {
        let (mut largest, mut longest) = ((0, Need::none()), 0);
        while let Some(chunk) = self.chunk(task, rows)? {
            let mut need = Need::none();
            for item in chunk.rows.iter().filter_map(|(_, item)| item.as_ref().ok()) {
                for sequence in task.sequences(item) {
                    longest = longest.max(sequence.len());
                    task.need(sequence.len(), &mut need);
                }
            }
            if chunk.tokens > largest.0 {
                largest = (chunk.tokens, need);
            }
        }
        let mut need = largest.1;
        task.need(longest, &mut need);
        Ok((longest > 0).then_some(need))
    }

    /// The next chunk of rows; `None` if there are no more.
    fn chunk<T: Task>(&self, task: &T, rows: &mut Rows<'_>) -> Result<Option<Chunk<T::Item>>, Failure> {
        let encoder = Encoder::plain(self.tokenizer.as_ref());
        let mut chunk = Chunk { rows: Vec::new(), tokens: 0 };
        let mut result_bytes = 0;
        while chunk.rows.len() < CHUNK_ROWS_MAX
            && chunk.tokens < CHUNK_TOKENS_MAX
            && result_bytes < CHUNK_RESULT_BYTES_MAX
        {
            interrupt::check()?;
            let Some(mut row) = rows.next()? else { break };
            let prompt = std::mem::replace(&mut row.prompt, Err(String::new()));
            let item = prompt.and_then(|prompt| self.item(task, &encoder, row.number, &prompt));
            if let Ok(item) = &item {
                let sequences = task.sequences(item);
                let tokens: usize = sequences.iter().map(|s| s.len() + task.new_tokens()).sum();
                chunk.tokens += tokens;
                result_bytes += task.result_bytes(tokens);
            }
            chunk.rows.push((row, item));
        }
        Ok((!chunk.rows.is_empty()).then_some(chunk))
    }

    fn item<T: Task>(
        &self,
        task: &T,
        encoder: &Encoder<'_>,
        number: u64,
        prompt: &Prompt,
    ) -> Result<T::Item, String> {
        let item = task.item(encoder, prompt).map_err(Failure::message)?;
        for sequence in task.sequences(&item) {
            self.check(number, &sequence, task.new_tokens()).map_err(Failure::message)?;
        }
        Ok(item)
    }

    fn check(&self, number: u64, sequence: &[u32], new_tokens: usize) -> Result<(), Failure> {
        self.files.check_tokens(number, sequence)?;
        let answer = aerostat_openai::AnswerTokens::Exactly(new_tokens);
        aerostat_openai::answer_tokens(self.context, sequence.len(), answer).map(drop).map_err(|e| {
            let message = format!("{} tokens do not fit a context of {}; see --context", e.needed, e.context);
            Failure::usage(message)
        })
    }

    /// Computes a chunk and gives its rows with their results, in order.
    fn work<T: Task>(
        &self,
        task: &T,
        chunk: Chunk<T::Item>,
        engine: Option<&mut Engine>,
        watch: &mut Watch<'_>,
    ) -> Result<Done<T::Found>, Failure> {
        let mut items = Vec::new();
        let mut rows = Vec::new();
        for (row, item) in chunk.rows {
            rows.push((row, item.map(|item| items.push(item))));
        }
        let found = match engine {
            Some(engine) if !items.is_empty() => run(task, engine, &items, watch)?,
            _ => Vec::new(),
        };
        watch.finish()?;
        let mut found = found.into_iter();
        let mut take = || found.next().unwrap_or_else(|| Err("the table has changed".to_owned()));
        Ok(rows.into_iter().map(|(row, item)| (row, item.and_then(|()| take()))).collect())
    }
}

/// The prompts of a command; none if it works through a table.
pub(crate) fn prompts(prompts: &mut Prompts, table: &TableArgs) -> Result<Vec<Prompt>, Failure> {
    match table.input {
        Some(_) => Ok(Vec::new()),
        None if table.output.is_some() || table.key.is_some() => {
            Err(Failure::usage("--output and --key belong to a table: name it with --input FILE"))
        }
        None => std::mem::take(prompts).or_stdin(),
    }
}

/// Whether nothing can be done without a tokenizer: CSV has only texts.
pub(crate) fn texts(prompts: &[Prompt], table: &TableArgs) -> Result<bool, Failure> {
    match &table.input {
        Some(input) => Ok(matches!(Format::of(input)?, Format::Csv(_))),
        None => Ok(prompts.iter().any(|p| matches!(p, Prompt::Text(_)))),
    }
}

/// Refuses results on stdout beside `--json`, and a key that the results have a column of.
pub(crate) fn check(table: &TableArgs, columns: &[&str], output: &OutputArgs) -> Result<(), Failure> {
    if table.input.is_some() && table.output.is_none() && output.json {
        return Err(Failure::usage("--json reports about a table; its results need a file: -o FILE"));
    }
    match table.key.as_deref().filter(|key| columns.contains(key)) {
        Some(key) => Err(Failure::usage(format!(
            "--key {key}: the results have a column of this name; rename that of the input"
        ))),
        None => Ok(()),
    }
}

/// The name and value of a result's first cell: the row's key, or its number.
pub(crate) fn key<'a>(row: &Row, table: &'a TableArgs) -> (&'a str, Value) {
    (table.key.as_deref().unwrap_or("row"), row.key.clone())
}

/// Runs items together. Where not one of several works because logits are not numbers, it is the model.
fn run<T: Task>(
    task: &T,
    engine: &mut Engine,
    items: &[T::Item],
    watch: &mut Watch<'_>,
) -> Result<Vec<Result<T::Found, String>>, Failure> {
    let mut found = task.run(engine, items, watch)?;
    let spoiled = |result: &Result<_, Error>| matches!(result, Err(e) if e.kind() == ErrorKind::NotFinite);
    if !found.is_empty()
        && found.iter().all(spoiled)
        && let Err(error) = found.swap_remove(0)
    {
        return Err(error.into());
    }
    Ok(found.into_iter().map(|result| result.map_err(|e| e.to_string())).collect())
}
