//! Tasks beside generation: single texts, or tables as jobs (`table_job.rs`).

use std::cell;
use std::sync::Arc;

use aerostat::{Engine, Error, ModelFiles, Need, Options, Outcome, Request, Stats, Tokenizer};
use aerostat_jobs::Named;
use serde::Serialize;

use crate::cell::Cell;
use crate::encode::{Chat, Encoder};
use crate::failure::Failure;
use crate::list::{self, Told};
use crate::model::{self, ModelName};
use crate::options::EngineArgs;
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::table::{Format, Row, TableArgs};
use crate::template::{Template, TemplateArgs};
use crate::watch::Watch;
use crate::{apart, interrupt, output};

/// What a command does with each text: from prompts to sequences of tokens, and from these to results.
pub(crate) trait Task: Send + Sync + 'static {
    /// A prompt in the form that the engine takes.
    type Item;
    /// The result of one item.
    type Found;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Self::Item, Failure>;

    /// The requests that are made for an item. If tokens are generated, there is one, and [`then`](Self::then) gives another.
    fn requests(&self, item: &Self::Item) -> Vec<Request>;

    /// The most tokens that are generated after each sequence.
    fn new_tokens(&self) -> usize {
        0
    }

    /// The most tokens that follow a prompt, generated or not.
    fn tokens_after(&self) -> usize {
        self.new_tokens()
    }

    /// The request that follows one with these tokens, once its answer is there.
    fn then(&self, _token_ids: &[u32], _answer: &[u32]) -> Option<Request> {
        None
    }

    /// Adds to `need` what a sequence of so many tokens needs.
    fn need(&self, tokens: usize, need: &mut Need);

    /// Size of the results of so many tokens, in bytes.
    fn result_bytes(&self, tokens: usize) -> usize;

    /// What is kept of an outcome; `None` if it is none that was asked for.
    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>>;

    /// The result of an item, of what was kept of its requests; `None` if that is broken.
    fn found(&self, parts: &[Vec<u8>]) -> Option<Self::Found>;

    /// What changes results, in words.
    fn words(&self) -> String;

    /// Adds what [`prepare`](Self::prepare) needs.
    fn need_before(&self, _need: &mut Need) {}

    /// What must be computed once before the results of rows can be told, as text to be kept.
    fn prepare(&self, _engine: &mut Engine, _watch: &mut Watch<'_>) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    /// Takes what was prepared, perhaps by an earlier run.
    fn prepared(&self, _text: &str) -> Result<(), Failure> {
        Ok(())
    }
}

/// A task that is also done with single texts, which need not be durable.
pub(crate) trait Prompted: Task {
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

/// What the allocator adds to a request and its parts.
const ALLOCATIONS_BYTES: usize = 128;

/// A model whose files are found and read, but whose engine is not opened yet.
pub(crate) struct Setup<'a> {
    pub(crate) name: &'a str,
    pub(crate) files: ModelFiles,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    /// How texts become prompts.
    pub(crate) template: Option<Template>,
    pub(crate) chat: Option<Chat>,
    /// The same in words.
    making: String,
    pub(crate) options: Options,
    /// The files that it is read from.
    pub(crate) read: Vec<Named>,
    /// The longest sequence, in tokens.
    pub(crate) context: usize,
    pub(crate) output: &'a OutputArgs,
}

/// What `--json` prints about prompts.
#[derive(Serialize)]
#[serde(bound = "I: Iterator<Item: Serialize>")]
struct Report<'a, I> {
    model: &'a str,
    results: Each<I>,
    stats: &'a Stats,
}

/// A list that is made while it is written: what is shown of a result takes many times the memory that it takes itself.
struct Each<I>(cell::Cell<Option<I>>);

impl<I: Iterator<Item: Serialize>> Serialize for Each<I> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.take().into_iter().flatten())
    }
}

impl<'a> Setup<'a> {
    /// Finds the model and reads its headers; `texts` says that a tokenizer is required.
    pub(crate) fn find(
        name: &'a ModelName,
        engine: &EngineArgs,
        texts: bool,
        template: &TemplateArgs,
        output: &'a OutputArgs,
    ) -> Result<Self, Failure> {
        let (making, parsed) = (template.words(), template.template()?);
        let options = engine.options(output)?;
        let files = model::open(name, engine.adapter(), output)?;
        let options = model::of_model(options, engine, &files);
        model::nothing_is_answered(engine, output);
        let tokenizer = model::tokenizer(&files, texts, output)?.map(Arc::new);
        let context = engine.context().unwrap_or(files.spec().context_max);
        let read = apart::read(files.path(), engine);
        let chat = template.chat(&files, tokenizer.as_deref())?;
        Ok(Self { name, files, tokenizer, template: parsed, chat, making, options, read, context, output })
    }

    /// What of the engine and its flags changes results, in words.
    pub(crate) fn words(&self) -> String {
        let Self { making, context, options, .. } = self;
        format!("{making}, context {context}, {}", aerostat::result_identity(options))
    }

    /// Turns prompts into tokens.
    pub(crate) fn encoder(&self) -> Encoder<'_> {
        Encoder::plain(self.tokenizer.as_deref()).within(self.context).through(self.chat.clone())
    }

    /// Runs the task on prompts and prints each result, made by `json` with `--json` and by `text` without.
    pub(crate) fn prompts<T: Prompted, J: Serialize>(
        &self,
        task: &T,
        prompts: &[Prompt],
        json: impl Fn(&T::Item, T::Found) -> J,
        text: impl Fn(&T::Item, T::Found) -> String,
    ) -> Result<(), Failure> {
        let encoder = self.encoder();
        let (mut items, mut need) = (Vec::new(), Need::none());
        for (i, prompt) in prompts.iter().enumerate() {
            let made = self.template.as_ref().map(|template| template.of_text(prompt)).transpose()?;
            let item = task.item(&encoder, made.as_ref().unwrap_or(prompt))?;
            for sequence in task.requests(&item).into_iter().map(|request| request.token_ids) {
                self.check(i as u64, &sequence, task.new_tokens())?;
                task.need(sequence.len(), &mut need);
                // Some tasks make all requests first, and what allocating each costs.
                let request = size_of::<Request>() + size_of_val(&sequence[..]) + ALLOCATIONS_BYTES;
                let result = task.result_bytes(sequence.len() + task.new_tokens());
                need.hold_results((request + result) as u64);
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
                Told::Found(found) => Told::Found(json(item, found)),
                Told::Failed { error } => Told::Failed { error },
            };
            let results = Each(cell::Cell::new(Some(pairs.map(result))));
            output::json(&Report { model: self.name, results, stats: &stats })?;
        } else {
            for (item, found) in pairs.filter_map(|(item, told)| Some((item, told.into_found()?))) {
                output::text(&text(item, found))?;
            }
        }
        output::summary(self.output, &stats);
        end
    }

    fn check(&self, number: u64, sequence: &[u32], new_tokens: usize) -> Result<(), Failure> {
        self.files.check_tokens(number, sequence)?;
        let answer = aerostat_openai::AnswerTokens::Exactly(new_tokens);
        aerostat_openai::answer_tokens(self.context, sequence.len(), answer).map(drop).map_err(|e| {
            let message = format!("{} tokens do not fit a context of {}; see --context", e.needed, e.context);
            Failure::usage(message)
        })
    }
}

/// The prompts of a command; none if it works through a table.
pub(crate) fn prompts(
    prompts: &mut Prompts,
    table: &TableArgs,
    engine: &EngineArgs,
) -> Result<Vec<Prompt>, Failure> {
    match table.input {
        Some(_) => Ok(Vec::new()),
        None if table.file().is_some() || table.key.is_some() => {
            Err(Failure::usage("--output and --key belong to a table: name it with --input FILE"))
        }
        None if prompts.are_missing() => Err(Failure::usage(
            "nothing to work on: give PROMPT, --prompt or --token-ids, a table with -i FILE, or pipe a text into stdin",
        )),
        None => std::mem::take(prompts).or_stdin(engine.memory()),
    }
}

/// Whether nothing can be done without a tokenizer: CSV has only texts.
pub(crate) fn texts(prompts: &[Prompt], table: &TableArgs) -> bool {
    match &table.input {
        // What stdin holds is not known yet.
        Some(input) => matches!(Format::of(input), Ok(Format::Csv(_))),
        None => prompts.iter().any(|p| matches!(p, Prompt::Text(_))),
    }
}

/// Refuses results on stdout beside `--json`, and a key that the results have a column of.
pub(crate) fn check(table: &TableArgs, columns: &[&str], output: &OutputArgs) -> Result<(), Failure> {
    if table.input.is_some() && table.file().is_none() && !table.dry_run && output.json {
        return Err(Failure::usage("--json reports about a table; its results need a file: -o FILE"));
    }
    let mut names: Vec<&str> = columns.to_vec();
    if table.key.is_none() {
        names.push("row");
    }
    for name in table.repeated() {
        if names.contains(&name.as_str()) {
            return Err(Failure::usage(format!(
                "--key, --carry: {name} is a column of the results already; rename that of the input"
            )));
        }
        names.push(name);
    }
    Ok(())
}

/// The names of the columns of results, those of [`first_cells`] before `own`.
pub(crate) fn columns<'a>(table: &'a TableArgs, own: &[&'a str]) -> Vec<&'a str> {
    let carried = table.carry.iter().map(String::as_str);
    std::iter::once(key_name(table)).chain(carried).chain(own.iter().copied()).collect()
}

fn key_name(table: &TableArgs) -> &str {
    table.key.as_deref().unwrap_or("row")
}

/// The first cells of a row of results, with their names: the row's key or its number, and what is carried.
pub(crate) fn first_cells<'a>(row: &Row, table: &'a TableArgs) -> Vec<(&'a str, Cell)> {
    let key = (key_name(table), row.key.clone());
    let carried = table.carry.iter().map(String::as_str).zip(row.carried.iter().cloned());
    std::iter::once(key).chain(carried).map(|(name, value)| (name, Cell::Value(value))).collect()
}
