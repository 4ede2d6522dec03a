//! A table as what a job works through: rows become requests, and what comes of them is kept until all are there.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use aerostat::{Need, Outcome, Request, Tokenizer};
use aerostat_openai::{Refusal, Token};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::counts::Kinds;
use crate::database::{LineRow, Mark, State};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind};
use crate::input::{LINES_MAX, lines_within, more_than};
use crate::job::{ASSEMBLED_BYTES, Begun, Job, taken};
use crate::line;
use crate::options::JobPaths;
use crate::output::Appender;
use crate::requests::{Done, Item, Requests, Settled, Unserved, Verdict, mark};
use crate::survey::{Survey, survey_of};
use crate::table::Prompt;
use crate::watch::Watcher;

/// What is remembered of rows may take this part of the memory, or so many bytes, where that is little.
const MEMORY_PER_ROWS: u64 = 4;
const ROWS_BYTES_MIN: u64 = 4 << 20;
/// Rows of a sweep whose results may wait to be saved, as far as a plan must know it.
const ROWS_HELD: usize = 512;

/// Characters of a row's key that the error file repeats.
const KEY_CHARS_MAX: usize = 200;

/// A row of a table.
#[derive(Debug)]
pub struct Row {
    /// The line that it begins in, from 1; of a file without lines its number, from 1.
    pub line: u64,
    /// What its owner tells it by, if a column holds that.
    pub key: Option<Value>,
    /// What it asks, or what is wrong with it.
    pub prompt: Result<Prompt, String>,
}

/// The rows of a table, which are read more than once.
pub trait Rows: Send {
    /// Goes to the beginning.
    ///
    /// # Errors
    /// The table cannot be read.
    fn rewind(&mut self) -> Result<(), Error>;

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The table cannot be read any further.
    fn next(&mut self) -> Result<Option<Row>, Error>;
}

/// What is done with each row: which requests it is, and what is kept of their outcomes.
pub trait RowTask: Send {
    /// The requests of a row, at least one; their ids are not looked at.
    ///
    /// # Errors
    /// The row cannot be served, and why.
    fn requests(&self, prompt: &Prompt) -> Result<Vec<Request>, String>;

    /// Tokens that the request of a row generates at most, and whether one more request follows, made by
    /// [`then`](Self::then) of what it generated.
    fn generates(&self) -> Option<usize> {
        None
    }

    /// The request that follows the answer to one with these tokens.
    fn then(&self, _token_ids: &[u32], _answer: &[u32]) -> Option<Request> {
        None
    }

    /// What is kept of an outcome, as bytes; `None` if it is of another kind than was asked for.
    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>>;

    /// Adds what a sequence of so many tokens needs, with what it generates and what follows that.
    fn need(&self, tokens: usize, need: &mut Need);

    /// Size of the results of so many tokens, in bytes.
    fn result_bytes(&self, tokens: usize) -> usize;
}

/// A table and what is to be done with it.
pub struct Table {
    /// Its rows.
    pub rows: Box<dyn Rows>,
    /// What is done with each.
    pub task: Arc<dyn RowTask + Sync>,
    /// What texts of answers are made with.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// The memory that all of it is to stay within, in bytes, if there is a bound.
    pub memory_bytes: Option<u64>,
}

impl Table {
    /// Rows at most: each is remembered.
    fn rows_max(&self) -> u64 {
        self.memory_bytes
            .map_or(LINES_MAX, |bytes| lines_within((bytes / MEMORY_PER_ROWS).max(ROWS_BYTES_MIN)))
    }
}

/// How a table is worked through. What changes results is part of what it was begun with.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// By what name the model was called.
    pub model: String,
    /// [`crate::model_digest`]'s.
    pub model_digest: String,
    /// What changes results beside input and model, in words.
    pub words: String,
    /// Begin anew, whatever is there.
    pub restart: bool,
    /// Try rows again that failed when they were run.
    pub retry_errors: bool,
}

impl Job {
    /// Begins to work through a table, or takes it up where it was left. Results are kept in [`JobPaths::rows`], and
    /// [`TableResults`](crate::TableResults) gives them in the order of the table once all are there.
    ///
    /// # Errors
    /// As [`Job::open`].
    pub fn open_table(
        disk: Box<dyn Disk>,
        paths: JobPaths,
        table: Table,
        options: TableOptions,
        watcher: &dyn Watcher,
    ) -> Result<Self, Error> {
        let is_new = options.restart || !paths.database().exists();
        let there = paths.output.metadata().is_ok_and(|m| m.len() > 0);
        if there && is_new && !options.restart {
            return Err(taken(&paths, true));
        }
        let TableOptions { model, model_digest, words, restart, retry_errors } = options;
        let appended = paths.rows();
        let begun = Begun { appended, model, model_digest, words, table: true, restart, retry_errors };
        let requests = TableRequests::new(table, paths.input.clone());
        Self::open_with(disk, paths, Box::new(requests), begun, watcher)
    }

    /// A fact that this job keeps for whoever runs it.
    ///
    /// # Errors
    /// [`ErrorKind::Database`].
    pub fn noted(&self, key: &str) -> Result<Option<String>, Error> {
        self.database.fact(key)
    }

    /// Keeps a fact with the job, durably.
    ///
    /// # Errors
    /// [`ErrorKind::Database`], [`ErrorKind::Disk`].
    pub fn note(&mut self, key: &'static str, value: String) -> Result<(), Error> {
        self.database.set(&*self.disk, &[(key, value)])
    }

    /// Closes the job of a table whose results are where they belong, and leaves nothing but these and its database.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`].
    pub fn leave(self) -> Result<(), Error> {
        let paths = self.paths.clone();
        drop(self);
        crate::results::tidy(&paths)
    }

    /// Whether the results of a table have been put together and are where they belong.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] if they were and are gone; [`ErrorKind::Database`].
    pub fn assembled(&self) -> Result<bool, Error> {
        if !self.is_assembled()? {
            return Ok(false);
        }
        let output = self.paths.output.display();
        let message = match (self.paths.output.metadata(), self.database.number(ASSEMBLED_BYTES)?) {
            (Ok(file), Some(written)) if file.len() != written => format!(
                "{output} has {} bytes, but {written} of results were written: it was changed; put it back, name another \
                 output, or --restart begins anew",
                file.len()
            ),
            (Ok(_), _) => return Ok(true),
            (Err(_), _) => {
                format!("{output} was there when this job ended, and is gone; --restart begins anew")
            }
        };
        Err(Error::new(ErrorKind::Changed, message))
    }
}

/// Reads and checks a whole table without writing anything.
///
/// # Errors
/// [`ErrorKind::Input`] if it cannot be read, [`ErrorKind::Interrupted`] if the watcher asks to stop.
pub fn survey_table(table: Table, watcher: &dyn Watcher) -> Result<Survey, Error> {
    survey_of(&mut TableRequests::new(table, PathBuf::new()), watcher)
}

/// The table as a job sees it.
struct TableRequests {
    table: Table,
    path: PathBuf,
    /// Rows read so far.
    count: u64,
    row: Option<Row>,
}

impl TableRequests {
    fn new(table: Table, path: PathBuf) -> Self {
        Self { table, path, count: 0, row: None }
    }

    fn item(&mut self) -> Result<TableItem, Unserved> {
        let Some(Row { line, key, prompt }) = self.row.take() else {
            return Err(Unserved::new(None, Refusal::defect("there is no row to be read")));
        };
        let (line, key) = (line.to_string(), key.map(told));
        let requests = prompt.and_then(|prompt| self.table.task.requests(&prompt));
        let requests = match requests {
            Ok(requests) => requests,
            Err(why) => {
                let (key, refusal) = (key.map(Box::new), Refusal::new("bad_row", why));
                return Err(Unserved { name: Some(line), key, refusal });
            }
        };
        let task = Arc::clone(&self.table.task);
        Ok(TableItem {
            line,
            key,
            task,
            requests: requests.into_iter().map(Some).collect(),
            given: Vec::new(),
        })
    }
}

impl Requests for TableRequests {
    fn tokenizer(&self) -> Option<Arc<Tokenizer>> {
        self.table.tokenizer.clone()
    }

    fn begun(&mut self, _created: u64) {}

    fn rewind(&mut self, _checks: bool) -> Result<(), Error> {
        (self.count, self.row) = (0, None);
        self.table.rows.rewind()
    }

    fn advance(&mut self) -> Result<Option<u64>, Error> {
        self.row = self.table.rows.next()?;
        if self.row.is_none() {
            return Ok(None);
        }
        let most = self.table.rows_max();
        if self.count == most {
            let message =
                format!("the table {} has {}: split it", self.path.display(), more_than(most, "rows"));
            return Err(Error::new(ErrorKind::Input, message));
        }
        self.count += 1;
        Ok(Some(self.count - 1))
    }

    fn read(&mut self) -> Result<Box<dyn Item>, Unserved> {
        Ok(Box::new(self.item()?))
    }

    fn check(&mut self) -> Verdict {
        let number = self.count.saturating_sub(1);
        match self.item() {
            Ok(item) => Verdict::Good(item.row(number), Kinds::default()),
            Err(unserved) => Verdict::Bad(unserved),
        }
    }

    fn failure(&self, number: u64, unserved: &Unserved) -> String {
        let Unserved { name, key, refusal } = unserved;
        let line = name.as_ref().and_then(|line| line.parse::<u64>().ok());
        let error = json!({"code": refusal.code(), "message": refusal.message(), "line": line});
        let mut told = json!({"id": line::id(number), "row": number, "error": error});
        if let Some(key) = key {
            told["key"] = (**key).clone();
        }
        told.to_string()
    }

    fn need(&self, rows: &mut dyn Iterator<Item = LineRow>, _kinds: Kinds) -> Need {
        let task = &self.table.task;
        let (mut need, mut longest_of_all) = (Need::none(), 0);
        for row in rows {
            // Its longest sequence, and others that share the rest of its prompts. What follows one is counted with it.
            let longest = row.longest.saturating_sub(row.answer) as usize;
            task.need(longest, &mut need);
            longest_of_all = longest_of_all.max(row.longest as usize);
            if task.generates().is_none() {
                let others = row.parts.max(1) as usize - 1;
                let rest = (row.prompt as usize).saturating_sub(longest);
                (0..others).for_each(|i| {
                    task.need(rest / others + usize::from(i < rest % others), &mut need);
                });
            }
        }
        if longest_of_all == 0 {
            return Need::one(1);
        }
        // Of what is under way and not saved yet; and of the longest while it is packed and written.
        let held = task.result_bytes(2 * longest_of_all + ROWS_HELD) + 4 * task.result_bytes(longest_of_all);
        need.hold_results(held as u64);
        need
    }
}

/// A row that was read and found good.
struct TableItem {
    line: String,
    key: Option<Value>,
    task: Arc<dyn RowTask + Sync>,
    /// Until they are asked for.
    requests: Vec<Option<Request>>,
    /// The tokens of the one that another request follows.
    given: Vec<u32>,
}

impl TableItem {
    fn row(&self, number: u64) -> LineRow {
        let lengths = || self.requests.iter().flatten().map(|r| r.token_ids.len());
        let (sum, longest, answer) =
            (lengths().sum::<usize>(), lengths().max().unwrap_or(0), self.task.generates().unwrap_or(0));
        let prompt = if answer > 0 { 2 * sum + answer } else { sum };
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        LineRow {
            number,
            state: State::ToDo,
            parts: small(self.parts()),
            prompt: small(prompt),
            answer: small(answer),
            longest: small(longest + answer),
            generated: 0,
            mark: self.mark(),
        }
    }
}

impl Item for TableItem {
    fn name(&self) -> Option<&str> {
        Some(&self.line)
    }

    fn key(&self) -> Option<&Value> {
        self.key.as_ref()
    }

    fn mark(&self) -> Mark {
        let ids = self.requests.iter().flatten().flat_map(|request| &request.token_ids);
        mark(ids.flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn parts(&self) -> usize {
        self.requests.len() + usize::from(self.follows())
    }

    fn follows(&self) -> bool {
        self.task.generates().is_some()
    }

    fn part(&mut self, index: usize, before: &[Token]) -> Result<Request, Refusal> {
        if let Some(request) = self.requests.get_mut(index) {
            let request = request.take().ok_or_else(|| Refusal::defect("a request is asked for twice"))?;
            if self.follows() {
                self.given.clone_from(&request.token_ids);
            }
            return Ok(request);
        }
        // An earlier run may have done the first.
        if let Some(first) = self.requests.first_mut().and_then(Option::take) {
            self.given = first.token_ids;
        }
        let answer: Vec<u32> = before.iter().map(|token| token.id).collect();
        self.task.then(&self.given, &answer).ok_or_else(|| Refusal::defect("no request follows"))
    }

    fn settle(&self, outcome: Outcome) -> Result<Settled, Refusal> {
        let outcome = match outcome {
            Outcome::Failed(error) => return Err(Refusal::failed(error.to_string())),
            outcome => outcome,
        };
        let bytes = self.task.pack(outcome);
        let bytes = bytes.ok_or_else(|| Refusal::defect("what came is not what was asked for"))?;
        Ok(Settled { bytes, ended_early: false })
    }

    fn write(
        self: Box<Self>,
        number: u64,
        _created: u64,
        part: &mut dyn FnMut(usize) -> Result<Done, Error>,
        out: &mut Appender,
    ) -> Result<(), Error> {
        let parts = (0..self.parts()).map(|index| Ok(BASE64_STANDARD.encode(part(index)?.bytes)));
        let parts = parts.collect::<Result<Vec<String>, Error>>()?;
        out.push(row_line(number, &parts).as_bytes())
    }
}

/// A key as the error file tells it, which does not repeat at length what stands in the table.
fn told(key: Value) -> Value {
    let text = match &key {
        Value::String(text) => Cow::from(text),
        other => Cow::from(other.to_string()),
    };
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => Value::from(&text[..end]),
        None => key,
    }
}

/// The line of a row's result.
fn row_line(number: u64, parts: &[String]) -> String {
    format!("{{\"id\":\"{}\",\"parts\":{}}}", line::id(number), Value::from(parts.to_vec()))
}
