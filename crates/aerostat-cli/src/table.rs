//! Tables of texts: JSONL, CSV and Parquet, a row at a time.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aerostat_jobs::{
    Columns, Encoding, LITTLE_MEMORY, Prompt, RowCells, TextFormat, TextTable, open_text, row_bytes_within,
};
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use serde_json::Value;

use crate::columns;
use crate::failure::Failure;
use crate::fit::Fit;
use crate::template::{TEXT, Template};

/// A table in, a table out.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables")]
pub(crate) struct TableArgs {
    /// Work through the rows of this file: .jsonl (an object a line), .csv, .tsv (names in the first row), any of them .gz or
    /// .zst, or .parquet; `-`: stdin, in JSONL or CSV.
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = PathBufValueParser::new().map(stdin_by_one_name),
        conflicts_with_all = ["prompt_text", "prompt", "token_ids"]
    )]
    pub(crate) input: Option<PathBuf>,
    /// The column of the texts; in JSON and Parquet it may hold lists of token ids, too.
    #[arg(long, value_name = "NAME", default_value = TEXT, requires = "input")]
    pub(crate) column: String,
    /// What separates the cells of CSV: a character, or tab. Without it `,`, and tabs in .tsv.
    #[arg(long, value_name = "C", requires = "input", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// How characters are written: utf-8, utf-16, utf-16be, latin-1 or windows-1252. Without it, UTF-8, or what the file
    /// begins with.
    #[arg(long, value_name = "NAME", requires = "input")]
    encoding: Option<Encoding>,
    /// A column that results repeat, by which to tell rows apart; without it they have the row's number, from 0.
    #[arg(long, value_name = "NAME", requires = "input")]
    pub(crate) key: Option<String>,
    /// More columns that results repeat, as a,b,c.
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "input")]
    pub(crate) carry: Vec<String>,
    /// Cut texts that do not fit the context: drop their beginning (left) or their end (right); or of each text all but its
    /// first N tokens. Without it, such rows fail.
    #[arg(long, value_name = "left|right|N", requires = "input")]
    pub(crate) truncate: Option<Truncate>,
    /// Where results go, there once they are whole; its ending is its format. Without it, or with `-`: stdout. Given again,
    /// the same command goes on where it was stopped.
    #[arg(short, long, value_name = "FILE", requires = "input")]
    output: Option<PathBuf>,
    /// Where rows are told of that failed; beside the output unless given.
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) errors: Option<PathBuf>,
    /// Begin anew and overwrite what is there.
    #[arg(long, requires = "input")]
    pub(crate) restart: bool,
    /// Try rows again that failed while they ran.
    #[arg(long, requires = "input")]
    pub(crate) retry_errors: bool,
    /// Read and check the whole table, say how long it would take, and write nothing.
    #[arg(long, requires = "input")]
    pub(crate) dry_run: bool,
}

/// Which tokens of a text that is too long are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truncate {
    /// The first ones.
    Left,
    /// The last ones.
    Right,
    /// All but so many first ones, of every text.
    First(usize),
}

impl std::str::FromStr for Truncate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "left" => Ok(Self::Left),
            "right" => Ok(Self::Right),
            number => match number.parse() {
                Ok(tokens) if tokens > 0 => Ok(Self::First(tokens)),
                _ => Err("expected left, right or a number of tokens".to_owned()),
            },
        }
    }
}

/// `-` for all names of stdin: a file that a shell opened has no ending there.
fn stdin_by_one_name(path: PathBuf) -> PathBuf {
    let names = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
    if names.iter().any(|name| path == Path::new(name)) { PathBuf::from("-") } else { path }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "tab" | "\\t" => Ok(b'\t'),
        _ => match text.as_bytes() {
            [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n".contains(byte) => {
                Ok(*byte)
            }
            _ => Err("expected one character, such as `;`, or tab".to_owned()),
        },
    }
}

impl TableArgs {
    /// The file that results go to; `None`: stdout.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// The format of results: that of the file's ending, on stdout that of the input.
    pub(crate) fn result_format(&self, input: &Path) -> Result<Format, Failure> {
        let format = match (self.file(), input == Path::new("-")) {
            (Some(file), _) => Format::of(file)?,
            // What stdin holds is not known yet.
            (None, true) => self.delimiter.map_or(Format::Jsonl, Format::Csv),
            (None, false) => Format::of(input)?,
        };
        Ok(match (format, self.delimiter) {
            (Format::Csv(_), Some(delimiter)) => Format::Csv(delimiter),
            (format, _) => format,
        })
    }

    /// What of the flags changes results, in words.
    pub(crate) fn words(&self) -> String {
        let Self { column, key, carry, delimiter, encoding, truncate, .. } = self;
        let mut words = format!("column {column:?}");
        for (name, flag) in [
            ("key", key.as_ref().map(|key| format!("{key:?}"))),
            ("carry", (!carry.is_empty()).then(|| format!("{carry:?}"))),
            ("delimiter", delimiter.map(|byte| byte.to_string())),
            ("encoding", encoding.map(|encoding| format!("{encoding:?}"))),
            ("truncate", truncate.map(|truncate| format!("{truncate:?}"))),
        ] {
            words.extend(flag.map(|value| format!(", {name} {value}")));
        }
        words
    }

    /// The columns that results repeat, by the names that they have there.
    pub(crate) fn repeated(&self) -> impl Iterator<Item = &String> {
        self.key.iter().chain(&self.carry)
    }
}

/// The format of a table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Jsonl,
    /// CSV or TSV, with the byte that separates cells.
    Csv(u8),
    Parquet,
}

/// A row of the input table.
#[derive(Debug)]
pub(crate) struct Row {
    /// The number of the row, from 0.
    pub(crate) number: u64,
    /// The line that it begins in, from 1.
    pub(crate) line: u64,
    /// The cell of the key column, null if the row cannot be read; without such a column, the number of the row.
    pub(crate) key: Value,
    /// The cells of the columns that results repeat, the key's not among them.
    pub(crate) carried: Vec<Value>,
    /// The prompt, or what is wrong with the row.
    pub(crate) prompt: Result<Prompt, String>,
}

/// How prompts are made of cells, and made to fit.
#[derive(Clone, Default)]
pub(crate) struct Making {
    /// What a prompt is made of a row by; without it, it is the text.
    pub(crate) template: Option<Template>,
    /// What cuts texts that are too long.
    pub(crate) fit: Option<Arc<Fit>>,
    /// Prompts become messages of a chat.
    pub(crate) chat: bool,
}

/// Times that a text is in memory at once when a template of chats is filled in: the text, its message, what the template
/// takes of it, and what it writes.
const COPIES_OF_CHAT: u64 = 4;

/// Reads a table row by row.
pub(crate) struct Rows {
    path: PathBuf,
    input: Input,
    making: Making,
    /// Bytes of a prompt at most.
    most: usize,
    number: u64,
    source: Source,
}

/// How a table is read.
struct Input {
    /// What is shown of its path: its copy is no business of the user's.
    shown: PathBuf,
    columns: Columns,
    delimiter: Option<u8>,
    encoding: Option<Encoding>,
    keyed: bool,
    carried: usize,
    /// The name of the column of texts.
    text: String,
    /// The budget, if there is one.
    memory_bytes: Option<u64>,
}

enum Source {
    Text(TextTable),
    Parquet(Box<columns::Reader>),
}

impl Format {
    /// The format that a file's ending names.
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        let ending = |path: &Path| path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let (packed, inner) = match ending(path).as_deref() {
            Some("gz" | "zst") => (true, ending(&path.with_extension(""))),
            _ => (false, ending(path)),
        };
        match inner.as_deref() {
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            Some("csv") => Ok(Self::Csv(b',')),
            Some("tsv") => Ok(Self::Csv(b'\t')),
            Some("parquet") if !packed => Ok(Self::Parquet),
            _ => Err(Failure::usage(format!(
                "{}: not a table that is known here; use .jsonl, .csv, .tsv (also .gz or .zst) or .parquet",
                path.display()
            ))),
        }
    }
}

impl Rows {
    /// Begins to read a table, within a budget if there is one.
    pub(crate) fn open(
        path: &Path,
        args: &TableArgs,
        making: Making,
        memory_bytes: Option<u64>,
    ) -> Result<Self, Failure> {
        let names = making.template.as_ref().map(Template::names);
        let is_text = |name: &str| name == TEXT || name == args.column;
        let prompt = names.as_ref().is_none_or(|names| names.iter().any(|name| is_text(name)));
        let cells = names.into_iter().flatten().filter(|name| !is_text(name)).map(str::to_owned);
        let others = args.repeated().cloned().chain(cells).collect();
        let columns = Columns { prompt: prompt.then(|| args.column.clone()), others };
        let stdin = args.input.as_deref() == Some(Path::new("-"));
        let input = Input {
            shown: if stdin { PathBuf::from("stdin") } else { path.to_owned() },
            columns,
            delimiter: args.delimiter,
            encoding: args.encoding,
            keyed: args.key.is_some(),
            carried: args.carry.len(),
            text: args.column.clone(),
            memory_bytes,
        };
        let source = Source::open(path, &input)?;
        let most = row_bytes_within(memory_bytes.unwrap_or(u64::MAX));
        let most = if making.chat { most / COPIES_OF_CHAT } else { most } as usize;
        Ok(Self { path: path.to_owned(), input, making, most, number: 0, source })
    }

    /// The next row; a malformed one carries the reason. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, Failure> {
        let number = self.number;
        let read = match &mut self.source {
            Source::Text(table) => table.next_row().map_err(|e| unreadable(&self.input.shown, &e))?,
            // Rows are all it has: the first is 1, as the first line of a file is.
            Source::Parquet(reader) => reader.next()?.map(|cells| (number + 1, cells)),
        };
        let Some((line, cells)) = read else { return Ok(None) };
        self.number += 1;
        let key = if self.input.keyed { Value::Null } else { Value::from(number) };
        let mut row = Row { number, line, key, carried: Vec::new(), prompt: Err(String::new()) };
        match cells {
            Ok(RowCells { prompt, others }) => {
                let mut others = others.into_iter();
                if self.input.keyed {
                    row.key = others.next().unwrap_or_default();
                }
                row.carried = others.by_ref().take(self.input.carried).collect();
                row.prompt = self.prompt(prompt, &others.collect::<Vec<_>>());
            }
            Err(why) => row.prompt = Err(why),
        }
        Ok(Some(row))
    }

    /// The prompt of a row, of its text and of the cells that the template names beside it.
    fn prompt(&self, text: Option<Prompt>, cells: &[Value]) -> Result<Prompt, String> {
        let Making { template, fit, .. } = &self.making;
        let Some(template) = template else {
            return match (text, fit) {
                (Some(Prompt::Text(text)), _) if text.len() > self.most => Err(self.too_long(text.len())),
                (Some(prompt), Some(fit)) => fit.prompt(prompt),
                (Some(prompt), None) => Ok(prompt),
                (None, _) => Err(format!("there is no column `{}`", self.input.text)),
            };
        };
        let mut texts = match text {
            None => Vec::new(),
            Some(Prompt::Text(text)) => vec![(TEXT, text)],
            // A template is of texts.
            Some(ids) => return fit.as_ref().map_or(Ok(ids.clone()), |fit| fit.prompt(ids.clone())),
        };
        let is_text = |name: &str| name == TEXT || name == self.input.text;
        let names = template.names().into_iter().filter(|name| !is_text(name));
        texts.extend(names.zip(cells).map(|(name, cell)| (name, shown(cell))));
        let bytes = template.bytes(|name| cell(name, &texts, &is_text));
        if bytes > self.most {
            return Err(self.too_long(bytes));
        }
        match fit {
            None => Ok(Prompt::Text(filled(template, &texts, &is_text))),
            Some(fit) => fit.filled(template, texts, &is_text),
        }
    }

    fn too_long(&self, bytes: usize) -> String {
        let what = if self.making.chat { "a message" } else { "a prompt" };
        let memory = if self.input.memory_bytes.is_some() { LITTLE_MEMORY } else { "" };
        format!("{what} of {bytes} bytes is longer than {}{memory}", self.most)
    }
}

/// A template with these cells.
pub(crate) fn filled(
    template: &Template,
    cells: &[(&str, String)],
    is_text: &dyn Fn(&str) -> bool,
) -> String {
    template.fill(|name| cell(name, cells, is_text))
}

/// The cell that a template has by this name.
fn cell<'c>(name: &str, cells: &'c [(&str, String)], is_text: &dyn Fn(&str) -> bool) -> &'c str {
    let name = if is_text(name) { TEXT } else { name };
    cells.iter().find(|(n, _)| *n == name).map_or("", |(_, cell)| cell.as_str())
}

/// A cell as text.
fn shown(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Source {
    fn open(path: &Path, input: &Input) -> Result<Self, Failure> {
        let failed = |e: io::Error| unreadable(&input.shown, &e);
        let format = match (Format::of(path), input.delimiter) {
            (Ok(Format::Csv(_)), Some(delimiter)) => Format::Csv(delimiter),
            (Ok(format), _) => format,
            // A copy of what came through a pipe.
            (Err(_), delimiter) if path.extension().is_some_and(|e| e == "input") => {
                match begins_with_an_object(path, input.encoding).map_err(failed)? {
                    true => Format::Jsonl,
                    false => Format::Csv(delimiter.unwrap_or(b',')),
                }
            }
            (Err(failure), _) => return Err(failure),
        };
        let text = |format| {
            let file = open_text(path, input.encoding).map_err(failed)?;
            let table = TextTable::new(file, format, input.columns.clone()).map_err(failed)?;
            Ok(Self::Text(match input.memory_bytes {
                Some(bytes) => table.within(bytes),
                None => table,
            }))
        };
        match format {
            Format::Jsonl => text(TextFormat::Jsonl),
            Format::Csv(delimiter) => text(TextFormat::Csv(delimiter)),
            Format::Parquet => {
                Ok(Self::Parquet(Box::new(columns::Reader::open(path, input.columns.clone())?)))
            }
        }
    }
}

/// Whether the first thing in a text is an object of JSON.
fn begins_with_an_object(path: &Path, encoding: Option<Encoding>) -> io::Result<bool> {
    for byte in BufReader::new(open_text(path, encoding)?).bytes() {
        match byte? {
            byte if byte.is_ascii_whitespace() => {}
            byte => return Ok(byte == b'{'),
        }
    }
    Ok(false)
}

/// As a job reads them.
impl aerostat_jobs::Rows for Rows {
    fn rewind(&mut self) -> Result<(), aerostat_jobs::Error> {
        let opened = Source::open(&self.path, &self.input);
        self.source = opened.map_err(|failure| aerostat_jobs::Error::input(failure.message()))?;
        self.number = 0;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<aerostat_jobs::Row>, aerostat_jobs::Error> {
        let row = self.next().map_err(|failure| aerostat_jobs::Error::input(failure.message()))?;
        let keyed = self.input.keyed;
        let of = |row: Row| aerostat_jobs::Row {
            line: row.line,
            key: Some(row.key).filter(|key| keyed && !key.is_null()),
            prompt: row.prompt,
        };
        Ok(row.map(of))
    }
}

fn unreadable(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("{}: {e}", path.display()))
}
