//! Tables of texts: JSONL, CSV and Parquet, a row at a time.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use aerostat_jobs::{Prompt, TextFormat, TextTable};
use clap::Args;
use serde_json::Value;

use crate::columns;
use crate::failure::Failure;

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
    number: u64,
    source: Source,
}

enum Source {
    Text(TextTable),
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
        let (column, key) = (args.column.as_str(), args.key.as_deref());
        let text = |format| {
            let file = File::open(path).map_err(|e| unreadable(path, &e))?;
            TextTable::new(file, format, column, key).map_err(|e| unreadable(path, &e)).map(Source::Text)
        };
        let source = match format {
            Format::Jsonl => text(TextFormat::Jsonl)?,
            Format::Csv(delimiter) => text(TextFormat::Csv(delimiter))?,
            Format::Parquet => Source::Parquet(Box::new(columns::Reader::open(path, column, key)?)),
        };
        Ok(Self { path, number: 0, source })
    }

    /// The next row; a malformed one carries the reason. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, Failure> {
        let number = self.number;
        let read = match &mut self.source {
            Source::Text(table) => table.next_row().map_err(|e| unreadable(self.path, &e))?,
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

fn unreadable(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("{}: {e}", path.display()))
}
