//! Tables of texts: JSONL, CSV and Parquet, a row at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use crate::columns;
use crate::failure::Failure;
use crate::prompts::{Cells, Prompt};

/// The longest line of a JSONL file that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A table in, a table out.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables")]
pub(crate) struct TableArgs {
    /// Work through the rows of this file: .jsonl (an object a line), .csv, .tsv (names in the first row) or .parquet.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["prompt_text", "prompt", "token_ids"])]
    pub(crate) input: Option<PathBuf>,
    /// The column of the texts; in JSON and Parquet it may hold lists of token ids, too.
    #[arg(long, value_name = "NAME", default_value = "text", requires = "input")]
    pub(crate) column: String,
    /// A column that results repeat, by which to tell rows apart; without it they have the row's number, from 0.
    #[arg(long, value_name = "NAME", requires = "input")]
    pub(crate) key: Option<String>,
    /// Where results go, there once they are whole; its ending is its format.
    #[arg(short, long, value_name = "FILE", requires = "input")]
    pub(crate) output: Option<PathBuf>,
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
    /// Where the row begins, as `file:line`.
    pub(crate) place: String,
    /// The cell of the key column; without one, the number of the row.
    pub(crate) key: Value,
    /// The prompt, or what is wrong with the row.
    pub(crate) prompt: Result<Prompt, String>,
}

/// Reads a table row by row.
pub(crate) struct Rows<'a> {
    path: &'a Path,
    column: &'a str,
    key: Option<&'a str>,
    number: u64,
    source: Source,
}

enum Source {
    Jsonl { reader: BufReader<File>, line: u64 },
    Csv { reader: csv::Reader<File>, width: usize, column: usize, key: Option<usize> },
    Parquet(Box<columns::Reader>),
}

impl Format {
    /// The format that a file's ending names.
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            Some("csv") => Ok(Self::Csv(b',')),
            Some("tsv") => Ok(Self::Csv(b'\t')),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(Failure::usage(format!(
                "{}: not a table that is known here; use .jsonl, .csv, .tsv or .parquet",
                path.display()
            ))),
        }
    }
}

impl<'a> Rows<'a> {
    pub(crate) fn open(path: &'a Path, args: &'a TableArgs) -> Result<Self, Failure> {
        let format = Format::of(path)?;
        let open = || File::open(path).map_err(|e| unreadable(path, &e));
        let (column, key) = (args.column.as_str(), args.key.as_deref());
        let source = match format {
            Format::Jsonl => Source::Jsonl { reader: BufReader::new(open()?), line: 0 },
            Format::Csv(delimiter) => {
                let mut reader =
                    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(open()?);
                let headers = reader.byte_headers().map_err(|e| unreadable(path, &e.into()))?;
                let names: Vec<String> =
                    headers.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
                let find = |name: &str| {
                    let there = names.join(", ");
                    let none = || {
                        format!("{}: there is no column `{name}`; its columns are: {there}", path.display())
                    };
                    names.iter().position(|n| n == name).ok_or_else(|| Failure::failed(none()))
                };
                let (column, key) = (find(column)?, key.map(find).transpose()?);
                Source::Csv { width: names.len(), column, key, reader }
            }
            Format::Parquet => Source::Parquet(Box::new(columns::Reader::open(path, column, key)?)),
        };
        Ok(Self { path, column, key, number: 0, source })
    }

    /// The next row; a malformed one carries the reason. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, Failure> {
        let number = self.number;
        let read = match &mut self.source {
            Source::Jsonl { reader, line } => {
                let read = json_line(reader, line).map_err(|e| unreadable(self.path, &e))?;
                read.map(|text| (*line, text.and_then(|text| json_cells(&text, self.column, self.key))))
            }
            Source::Csv { reader, width, column, key } => {
                let mut record = csv::ByteRecord::new();
                let more =
                    reader.read_byte_record(&mut record).map_err(|e| unreadable(self.path, &e.into()))?;
                let line = record.position().map_or(0, csv::Position::line);
                more.then(|| (line, csv_cells(&record, *width, *column, *key)))
            }
            // Rows are all it has: the first is 1, as the first line of a file is.
            Source::Parquet(reader) => reader.next()?.map(|cells| (number + 1, cells)),
        };
        let Some((line, cells)) = read else { return Ok(None) };
        self.number += 1;
        let place = format!("{}:{line}", self.path.display());
        let (key, prompt) = match cells {
            Ok((key, prompt)) => (key.unwrap_or_else(|| Value::from(number)), Ok(prompt)),
            Err(why) => (Value::from(number), Err(why)),
        };
        Ok(Some(Row { number, place, key, prompt }))
    }
}

/// The next line that is not blank, or what is wrong with it.
fn json_line(reader: &mut BufReader<File>, line: &mut u64) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)? as u64;
        *line += 1;
        if read == 0 {
            return Ok(None);
        }
        if read == LINE_BYTES_MAX && !text.ends_with(b"\n") {
            reader.skip_until(b'\n')?;
            return Ok(Some(Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"))));
        }
        if !text.trim_ascii().is_empty() {
            return Ok(Some(Ok(text)));
        }
    }
}

fn json_cells(text: &[u8], column: &str, key: Option<&str>) -> Cells {
    let row: Map<String, Value> =
        serde_json::from_slice(text).map_err(|e| format!("not a JSON object: {e}"))?;
    let cell = |name: &str| row.get(name).ok_or_else(|| format!("there is no column `{name}`"));
    let wrong = || format!("column `{column}` is neither a text nor a list of token ids");
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let prompt = match cell(column)? {
        Value::String(text) => Prompt::Text(text.clone()),
        Value::Array(ids) => Prompt::TokenIds(ids.iter().map(id).collect::<Option<_>>().ok_or_else(wrong)?),
        _ => return Err(wrong()),
    };
    Ok((key.map(cell).transpose()?.cloned(), prompt))
}

fn csv_cells(record: &csv::ByteRecord, width: usize, column: usize, key: Option<usize>) -> Cells {
    if record.len() != width {
        return Err(format!("the row has {} cells, the first one {width}", record.len()));
    }
    let cell = |index: usize| {
        let text = std::str::from_utf8(record.get(index).unwrap_or_default());
        text.map(str::to_owned).map_err(|_| "the row is not UTF-8".to_owned())
    };
    Ok((key.map(cell).transpose()?.map(Value::from), Prompt::Text(cell(column)?)))
}

fn unreadable(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("{}: cannot be read: {e}", path.display()))
}
