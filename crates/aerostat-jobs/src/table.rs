//! Tables of texts: JSONL and CSV, a row at a time, whatever is in them.

use std::io::{self, BufRead, BufReader, Read};

use serde_json::Value;

use crate::cells::json_cells;

/// The longest line of JSON, and the longest row of CSV, in bytes, where there is memory for it.
const ROW_BYTES_MAX: u64 = 64 << 20;
/// The least that is taken, whatever the memory.
const ROW_BYTES_MIN: u64 = 1 << 20;
/// Memory of a budget for each byte of the longest row.
const BUDGET_PER_ROW_BYTE: u64 = 8;
/// The longest first row of CSV, which has names alone, in bytes.
const NAMES_BYTES_MAX: u64 = 1 << 20;
/// Cells of a row of CSV at most: each takes some bytes, even where it is empty.
const CELLS_MAX: usize = 1 << 16;
/// Bytes of blank lines at most: a small packed file can hold any number of them.
const BLANK_BYTES_MAX: u64 = 64 << 20;
/// What some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Why there is no more room for a line or a row, and what to do: what failed for that stays failed.
pub const LITTLE_MEMORY: &str =
    ", the most with so little memory (--memory); with more, begin anew (--restart)";
/// Characters of a table that an error repeats at most.
pub(crate) const CHARS_MAX: usize = 300;

/// What a row asks of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// The tokens themselves.
    TokenIds(Vec<u32>),
}

/// The columns of a table that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The column of the prompts, if there is one.
    pub prompt: Option<String>,
    /// Others, in the order in which their cells are wanted.
    pub others: Vec<String>,
}

/// What is read of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowCells {
    /// The cell of the column of prompts, if one was asked for.
    pub prompt: Option<Prompt>,
    /// The cells of the others.
    pub others: Vec<Value>,
}

/// A row, or what is wrong with it.
pub type Cells = Result<RowCells, String>;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// A JSON object a line.
    Jsonl,
    /// Names in the first row; the byte that separates cells.
    Csv(u8),
}

/// Reads a table row by row. A row that is malformed costs the others nothing.
pub struct TextTable {
    columns: Columns,
    source: Source,
}

enum Source {
    Jsonl {
        reader: BufReader<Box<dyn Read + Send>>,
        line: u64,
        /// Bytes of blank lines so far.
        blank_bytes: u64,
        row_bytes_max: u64,
    },
    Csv {
        reader: Box<csv::Reader<Bounded>>,
        width: usize,
        prompt: Option<usize>,
        others: Vec<usize>,
        line: u64,
    },
}

impl TextTable {
    /// Begins to read the columns of a table.
    ///
    /// # Errors
    /// Reading fails; CSV has no such columns, or has one of them twice.
    pub fn new(file: impl Read + Send + 'static, format: TextFormat, columns: Columns) -> io::Result<Self> {
        let source = match format {
            TextFormat::Jsonl => Source::Jsonl {
                reader: BufReader::new(Box::new(file)),
                line: 0,
                blank_bytes: 0,
                row_bytes_max: ROW_BYTES_MAX,
            },
            TextFormat::Csv(delimiter) => {
                let mut reader = csv::ReaderBuilder::new()
                    .delimiter(delimiter)
                    .flexible(true)
                    .from_reader(Bounded::new(file, delimiter));
                let headers = reader.byte_headers().map_err(io::Error::from)?;
                let names: Vec<String> =
                    headers.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
                let file = reader.get_mut();
                if file.is_cut || names.len() > CELLS_MAX {
                    return Err(io::Error::other(format!(
                        "the first row, which names the columns, has more than {NAMES_BYTES_MAX} bytes or {CELLS_MAX} \
                         names: is a quote not closed?"
                    )));
                }
                file.most = ROW_BYTES_MAX;
                let prompt =
                    columns.prompt.as_deref().map(|name| find(&names, name, delimiter)).transpose()?;
                let others = columns.others.iter().map(|name| find(&names, name, delimiter));
                let others = others.collect::<io::Result<_>>()?;
                Source::Csv { width: names.len(), prompt, others, reader: Box::new(reader), line: 1 }
            }
        };
        Ok(Self { columns, source })
    }

    /// The same within so much memory: rows that would take much of it fail, each alone.
    pub fn within(mut self, memory_bytes: u64) -> Self {
        let bytes = row_bytes_within(memory_bytes);
        match &mut self.source {
            Source::Jsonl { row_bytes_max, .. } => *row_bytes_max = bytes,
            Source::Csv { reader, .. } => reader.get_mut().most = bytes,
        }
        self
    }

    /// The next row and the line that it begins in, from 1; a malformed one carries the reason. `None` at the end.
    ///
    /// # Errors
    /// Reading fails.
    pub fn next_row(&mut self) -> io::Result<Option<(u64, Cells)>> {
        match &mut self.source {
            Source::Jsonl { reader, line, blank_bytes, row_bytes_max } => {
                let Some(text) = json_line(reader, (line, blank_bytes), *row_bytes_max)? else {
                    return Ok(None);
                };
                let cells = text.and_then(|text| json_cells(&text, &self.columns));
                Ok(Some((*line, cells)))
            }
            Source::Csv { reader, width, prompt, others, line } => {
                let before = reader.get_ref().lines;
                reader.get_mut().is_cut = false;
                let mut record = csv::ByteRecord::new();
                let more = reader.read_byte_record(&mut record).map_err(|e| behind(*line, e.into()))?;
                let begins = record.position().map_or(0, csv::Position::line) + before;
                let Bounded { returns, is_cut, is_open, most, .. } = *reader.get_ref();
                // Where lines end in CR LF, the reader has not come to the LF of the line before yet.
                *line = begins + u64::from(returns == Some(true));
                let too_long = || {
                    let less = row_bound(most, "row");
                    Err(format!("{less}, or has more than {CELLS_MAX} cells: is a quote not closed?"))
                };
                let open = || {
                    let message = "a quote of the row is never closed: all that follows is one cell of it";
                    Err(message.to_owned())
                };
                let cells = || match (is_cut, is_open) {
                    (true, _) => too_long(),
                    (_, true) => open(),
                    _ => csv_cells(&record, *width, *prompt, others),
                };
                Ok(more.then(|| (*line, cells())))
            }
        }
    }
}

/// Bytes that a row may have within so much memory.
pub fn row_bytes_within(memory_bytes: u64) -> u64 {
    (memory_bytes / BUDGET_PER_ROW_BYTE).clamp(ROW_BYTES_MIN, ROW_BYTES_MAX)
}

/// What is wrong with a row that is too long.
fn row_bound(most: u64, what: &str) -> String {
    let memory = if most < ROW_BYTES_MAX { LITTLE_MEMORY } else { "" };
    format!("the {what} is longer than {most} bytes{memory}")
}

/// The place of a column, by its name; spaces around names do not count.
fn find(names: &[String], name: &str, delimiter: u8) -> io::Result<usize> {
    let mut same = names.iter().enumerate().filter(|(_, n)| *n == name || n.trim() == name.trim());
    match (same.next(), same.next()) {
        (Some((index, _)), None) => return Ok(index),
        (Some(_), Some(_)) => {
            return Err(io::Error::other(format!("the column `{name}` is there twice: rename one of them")));
        }
        _ => {}
    }
    if names.is_empty() {
        return Err(io::Error::other("the table is empty: its first row has the names of the columns"));
    }
    let there: String = names.join(", ").chars().take(CHARS_MAX).collect();
    let other = [';', '\t', '|', ','].into_iter().find(|c| {
        *c != char::from(delimiter)
            && names.iter().any(|n| n.contains(*c) && n.split(*c).any(|n| n.trim() == name))
    });
    let hint = match other {
        Some('\t') => "\n  hint: the cells seem to be separated by tabs: --delimiter tab".to_owned(),
        Some(c) => format!("\n  hint: the cells seem to be separated by `{c}`: --delimiter '{c}'"),
        None => String::new(),
    };
    Err(io::Error::other(format!("there is no column `{name}`; its columns are: {there}{hint}")))
}

/// An error of reading, with the line that was read last.
fn behind(line: u64, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("behind the row of line {line}: {error}"))
}

/// A file of which no row is read that is too long: what is too much of it is left out, and the row ends. One quote that is
/// never closed makes all that follows one row.
struct Bounded {
    file: Box<dyn Read + Send>,
    delimiter: u8,
    place: Place,
    /// Bytes that a row may have.
    most: u64,
    /// Bytes since the last end of a row, and cells that ended in them.
    bytes: u64,
    cells: usize,
    /// The byte read last, and blank lines so far.
    last: u8,
    blank: u64,
    /// The rest of the row is left out.
    skips: bool,
    /// The row that is being read is not whole.
    is_cut: bool,
    /// The table ended in a quote that is not closed.
    is_open: bool,
    /// Line ends that were left out so far.
    lines: u64,
    /// Whether its first line ends in CR LF; `None` before that was seen.
    returns: Option<bool>,
}

/// Where in a row a byte of CSV stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A cell begins.
    Begin,
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell, which ends it unless another follows.
    Quote,
}

impl Place {
    /// The place behind a byte.
    fn after(self, byte: u8, delimiter: u8) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::Quote,
            (Self::Quoted, _) | (Self::Begin | Self::Quote, b'"') => Self::Quoted,
            (_, b'\n' | b'\r') => Self::Begin,
            (_, byte) if byte == delimiter => Self::Begin,
            _ => Self::Plain,
        }
    }

    /// Whether a byte here ends the row.
    fn ends_row(self, byte: u8) -> bool {
        self != Self::Quoted && matches!(byte, b'\n' | b'\r')
    }
}

impl Bounded {
    fn new(file: impl Read + Send + 'static, delimiter: u8) -> Self {
        let (file, place) = (Box::new(file), Place::Begin);
        let (most, bytes, cells, lines) = (NAMES_BYTES_MAX, 0, 0, 0);
        let (skips, is_cut, is_open, returns) = (false, false, false, None);
        let (last, blank) = (0, 0);
        Self {
            file,
            delimiter,
            place,
            most,
            bytes,
            cells,
            last,
            blank,
            skips,
            is_cut,
            is_open,
            lines,
            returns,
        }
    }

    fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied() {
            if self.place.ends_row(byte) {
                (self.bytes, self.cells) = (0, 0);
                // The LF of a CR LF ends no line of its own.
                self.blank += u64::from(self.last == b'\n' || (self.last, byte) == (b'\r', b'\r'));
            }
            self.last = byte;
            self.place = self.place.after(byte, self.delimiter);
            self.bytes += 1;
            self.cells += usize::from(self.place == Place::Begin);
        }
    }

    /// Reads on to the end of the row, and gives what follows, from the line end on.
    fn rest(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(into)?;
            let Some(bytes) = into.get(..read).filter(|bytes| !bytes.is_empty()) else {
                (self.skips, self.bytes, self.cells) = (false, 0, 0);
                return Ok(0);
            };
            for (at, byte) in bytes.iter().copied().enumerate() {
                if self.place.ends_row(byte) {
                    self.skips = false;
                    let rest = bytes.get(at..).unwrap_or_default().to_vec();
                    self.follow(&rest);
                    into.copy_within(at..read, 0);
                    return Ok(rest.len());
                }
                self.lines += u64::from(byte == b'\n');
                self.place = self.place.after(byte, self.delimiter);
            }
        }
    }
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.skips {
            return self.rest(into);
        }
        if (self.bytes > self.most || self.cells > CELLS_MAX) && !self.is_cut {
            (self.skips, self.is_cut) = (true, true);
            // For the reader the cell ends here.
            if let (Place::Quoted, Some(first)) = (self.place, into.first_mut()) {
                *first = b'"';
                return Ok(1);
            }
            return self.rest(into);
        }
        let read = self.file.read(into)?;
        self.is_open = read == 0 && self.place == Place::Quoted;
        let bytes = into.get(..read).unwrap_or_default();
        self.follow(bytes);
        if self.blank > BLANK_BYTES_MAX {
            let message = format!("it has more than {BLANK_BYTES_MAX} blank lines: it is no table");
            return Err(io::Error::other(message));
        }
        if let (None, Some(end)) = (self.returns, bytes.iter().position(|b| *b == b'\n')) {
            self.returns = Some(end > 0 && bytes.get(end - 1) == Some(&b'\r'));
        }
        Ok(read)
    }
}

/// The next line that is not blank, or what is wrong with it.
fn json_line(
    reader: &mut impl BufRead,
    (line, blank_bytes): (&mut u64, &mut u64),
    most: u64,
) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.by_ref().take(most).read_until(b'\n', &mut text)? as u64;
        *line += 1;
        if *line == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        if read == 0 {
            return Ok(None);
        }
        if read == most && !text.ends_with(b"\n") {
            // What it holds is not needed any more.
            drop(text);
            reader.skip_until(b'\n')?;
            return Ok(Some(Err(row_bound(most, "line"))));
        }
        if !text.trim_ascii().is_empty() {
            return Ok(Some(Ok(text)));
        }
        *blank_bytes += read;
        if *blank_bytes > BLANK_BYTES_MAX {
            let message = format!("it has more than {BLANK_BYTES_MAX} bytes of blank lines: it is no table");
            return Err(behind(*line, io::Error::other(message)));
        }
    }
}

fn csv_cells(record: &csv::ByteRecord, width: usize, prompt: Option<usize>, others: &[usize]) -> Cells {
    if record.len() != width {
        let cells = if record.len() == 1 { "cell" } else { "cells" };
        return Err(format!("the row has {} {cells}, the first one {width}", record.len()));
    }
    let cell = |index: usize| {
        let text = std::str::from_utf8(record.get(index).unwrap_or_default());
        text.map(str::to_owned).map_err(|_| "the row is not UTF-8 (see --encoding)".to_owned())
    };
    let prompt = prompt.map(|index| cell(index).map(Prompt::Text)).transpose()?;
    let others = others.iter().map(|index| cell(*index).map(Value::from)).collect::<Result<_, _>>()?;
    Ok(RowCells { prompt, others })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::VALUES_MAX;

    /// A packed gigabyte of them was read for minutes.
    #[test]
    fn a_table_of_blank_lines_is_none() {
        let blank = [vec![b' '; (1 << 20) - 1], vec![b'\n']].concat().repeat(65);
        let columns = Columns { prompt: Some("text".to_owned()), others: Vec::new() };
        let mut table = TextTable::new(std::io::Cursor::new(blank), TextFormat::Jsonl, columns).unwrap();
        let error = table.next_row().err().unwrap();
        assert!(error.to_string().contains("blank lines"), "{error}");
    }

    /// They were bytes of the row that follows, which failed for its length.
    #[test]
    fn blank_lines_of_csv_are_no_part_of_a_row() {
        for end in ["\n", "\r\n"] {
            let text = format!("text,id{end}a,1{end}{}b,2{end}{}", end.repeat(3 << 20), end.repeat(7));
            let table = TextTable::new(std::io::Cursor::new(text), TextFormat::Csv(b','), columns(&["id"]));
            let mut table = table.unwrap().within(8 << 20);
            let rows: Vec<Cells> =
                std::iter::from_fn(|| table.next_row().unwrap()).map(|row| row.1).collect();
            let cells = |text: &str, id: &str| cells(Prompt::Text(text.to_owned()), &[id.into()]);
            assert_eq!(rows, [cells("a", "1"), cells("b", "2")]);
        }
        let text = ["text,id\n", &"\n".repeat(65 << 20)].concat();
        let table = TextTable::new(std::io::Cursor::new(text), TextFormat::Csv(b','), columns(&["id"]));
        let error = table.unwrap().next_row().err().unwrap();
        assert!(error.to_string().contains("blank lines"), "{error}");
    }

    fn columns(others: &[&str]) -> Columns {
        Columns { prompt: Some("text".to_owned()), others: others.iter().map(ToString::to_string).collect() }
    }

    fn cells(prompt: Prompt, others: &[Value]) -> Cells {
        Ok(RowCells { prompt: Some(prompt), others: others.to_vec() })
    }

    fn rows(text: &'static str, format: TextFormat) -> Vec<(u64, Cells)> {
        let mut table = TextTable::new(text.as_bytes(), format, columns(&["id"])).unwrap();
        std::iter::from_fn(|| table.next_row().unwrap()).collect()
    }

    /// A byte order mark once lost the first row.
    #[test]
    fn a_byte_order_mark_is_no_part_of_a_table() {
        let cells = |id: Value| cells(Prompt::Text("a".to_owned()), &[id]);
        let json = rows("\u{feff}{\"id\":1,\"text\":\"a\"}\n\n{\"id\":2}\n", TextFormat::Jsonl);
        assert_eq!(json, [(1, cells(1.into())), (3, Err("there is no column `text`".to_owned()))]);
        let csv = rows("\u{feff}text,id\na,1\n", TextFormat::Csv(b','));
        assert_eq!(csv, [(2, cells("1".into()))]);
    }

    /// One of these once failed the table.
    #[test]
    fn a_row_that_is_too_long_fails_alone_and_later_lines_keep_their_numbers() {
        let much = || io::repeat(b'x').take(ROW_BYTES_MAX + 100_000);
        let lines = || io::repeat(b'\n').take(ROW_BYTES_MAX + 100_000);
        let of = |file: Box<dyn Read + Send>| {
            let mut table = TextTable::new(file, TextFormat::Csv(b','), columns(&["id"])).unwrap();
            let rows = std::iter::from_fn(|| table.next_row().unwrap());
            rows.map(|(line, cells)| (line, cells.map(|cells| cells.others))).collect::<Vec<_>>()
        };
        let text = |text: &'static str| text.as_bytes();
        let long = || {
            let longer = format!("the row is longer than {ROW_BYTES_MAX} bytes");
            Err(format!("{longer}, or has more than {CELLS_MAX} cells: is a quote not closed?"))
        };
        let id = |id: &str| Ok(vec![Value::from(id)]);
        let plain = of(Box::new(text("text,id\na,1\n").chain(much()).chain(text(",2\nb,3\n\"c\nd\",4\n"))));
        assert_eq!(plain, [(2, id("1")), (3, long()), (4, id("3")), (5, id("4"))]);
        let quoted =
            of(Box::new(text("text,id\na,1\n\"x\"\"").chain(lines()).chain(text("\"\"\",2\nb,3\n"))));
        let behind = 3 + ROW_BYTES_MAX + 100_000 + 1;
        assert_eq!(quoted, [(2, id("1")), (3, long()), (behind, id("3"))]);
        let open = of(Box::new(text("text,id\na,1\n\"").chain(lines())));
        assert_eq!(open, [(2, id("1")), (3, long())]);
    }

    /// Sixty million commas once took half a gigabyte, and as many quotes in the first row a fifth, whatever the budget.
    #[test]
    fn what_takes_much_memory_fails_alone_and_a_first_row_without_an_end_is_no_table() {
        let csv =
            |text: Vec<u8>| TextTable::new(io::Cursor::new(text), TextFormat::Csv(b','), columns(&["id"]));
        let rows = |table: TextTable| {
            let mut table = table.within(16 << 20);
            std::iter::from_fn(|| table.next_row().unwrap()).collect::<Vec<_>>()
        };
        let good = || (Prompt::Text("a".to_owned()), Value::from("1"));
        for much in [vec![b','; 3 << 20], [b"\"".to_vec(), vec![b'x'; 3 << 20]].concat(), vec![b'"'; 3 << 20]]
        {
            let read = rows(csv([b"text,id\na,1\n".to_vec(), much.clone()].concat()).unwrap());
            assert_eq!(read.len(), 2, "{:?}", much.first());
            assert_eq!(read[0].1, cells(good().0, &[good().1]));
            assert!(read[1].1.as_ref().unwrap_err().contains("so little memory"), "{:?}", read[1]);
            let first = csv([much, b"\ntext,id\na,1\n".to_vec()].concat()).err().unwrap().to_string();
            assert!(first.contains("the first row"), "{first}");
        }
        let commas = [b"text,id\n".to_vec(), vec![b','; 200_000], b"\na,1\n".to_vec()].concat();
        let read = rows(csv(commas).unwrap());
        assert!(read[0].1.is_err() && read[1] == (3, cells(good().0, &[good().1])), "{read:?}");
        let json = |text: String| {
            rows(TextTable::new(io::Cursor::new(text), TextFormat::Jsonl, columns(&["id"])).unwrap())
        };
        let good = "{\"text\":\"a\",\"id\":1}\n";
        let long = json(format!("{{\"text\":\"{}\"}}\n{good}", "x".repeat(3 << 20)));
        assert!(
            long[0].1.as_ref().unwrap_err().contains("so little memory") && long[1].1.is_ok(),
            "{long:?}"
        );
        // What nobody wants may be as large as the row.
        let list = format!("[{}1]", "1,".repeat(VALUES_MAX));
        let wanted = json(format!("{{\"text\":\"a\",\"id\":{list}}}\n{good}"));
        assert!(wanted[0].1.as_ref().unwrap_err().contains("values") && wanted[1].1.is_ok());
        assert!(json(format!("{{\"text\":\"a\",\"id\":1,\"other\":{list}}}\n"))[0].1.is_ok());
    }

    #[test]
    fn several_columns_are_read_in_the_order_in_which_they_are_wanted() {
        let wanted = Columns { prompt: None, others: ["b", "a", "b"].map(str::to_owned).to_vec() };
        let want = Ok(RowCells { prompt: None, others: vec!["2".into(), "1".into(), "2".into()] });
        for (text, format) in
            [("{\"a\":\"1\",\"b\":\"2\"}\n", TextFormat::Jsonl), (" a, b \n1,2\n", TextFormat::Csv(b','))]
        {
            let mut table = TextTable::new(text.as_bytes(), format, wanted.clone()).unwrap();
            assert_eq!(table.next_row().unwrap().unwrap().1, want, "{text}");
        }
    }

    /// Lines of CSV with CR LF were once counted one too low.
    #[test]
    fn lines_are_counted_whatever_they_end_in() {
        let text = "text,id\na,1\n\"two\nlines\",2\nb,3\nshort\n";
        for text in [text.to_owned(), text.replace('\n', "\r\n")] {
            let mut table =
                TextTable::new(io::Cursor::new(text.clone()), TextFormat::Csv(b','), columns(&["id"]))
                    .unwrap();
            let lines: Vec<u64> =
                std::iter::from_fn(|| table.next_row().unwrap()).map(|(line, _)| line).collect();
            assert_eq!(lines, [2, 3, 5, 6], "{text:?}");
        }
    }

    #[test]
    fn columns_that_cannot_be_found_are_told_with_a_hint() {
        let refused = |text: &'static str, delimiter| {
            let table = TextTable::new(text.as_bytes(), TextFormat::Csv(delimiter), columns(&[]));
            table.err().unwrap().to_string()
        };
        assert!(refused("id;text\n1;a\n", b',').contains("--delimiter ';'"));
        assert!(refused("id\ttext\n1\ta\n", b',').contains("--delimiter tab"));
        assert!(refused("a,b\n1,2\n", b',').ends_with("its columns are: a, b"));
        assert!(refused("text,id,text\n", b',').contains("is there twice"));
        assert!(refused("", b',').contains("the table is empty"));
    }
}
