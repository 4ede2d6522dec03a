//! Tables of texts: JSONL and CSV, a row at a time, whatever is in them.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The longest line of JSON, and the longest row of CSV, in bytes.
const ROW_BYTES_MAX: u64 = 64 << 20;
/// What some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Characters of a table that an error repeats at most.
const CHARS_MAX: usize = 300;

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
            TextFormat::Jsonl => Source::Jsonl { reader: BufReader::new(Box::new(file)), line: 0 },
            TextFormat::Csv(delimiter) => {
                let mut reader = csv::ReaderBuilder::new()
                    .delimiter(delimiter)
                    .flexible(true)
                    .from_reader(Bounded::new(file, delimiter));
                let headers = reader.byte_headers().map_err(io::Error::from)?;
                let names: Vec<String> =
                    headers.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
                let prompt =
                    columns.prompt.as_deref().map(|name| find(&names, name, delimiter)).transpose()?;
                let others = columns.others.iter().map(|name| find(&names, name, delimiter));
                let others = others.collect::<io::Result<_>>()?;
                Source::Csv { width: names.len(), prompt, others, reader: Box::new(reader), line: 1 }
            }
        };
        Ok(Self { columns, source })
    }

    /// The next row and the line that it begins in, from 1; a malformed one carries the reason. `None` at the end.
    ///
    /// # Errors
    /// Reading fails.
    pub fn next_row(&mut self) -> io::Result<Option<(u64, Cells)>> {
        match &mut self.source {
            Source::Jsonl { reader, line } => {
                let Some(text) = json_line(reader, line)? else { return Ok(None) };
                let cells = text.and_then(|text| json_cells(&text, &self.columns));
                Ok(Some((*line, cells)))
            }
            Source::Csv { reader, width, prompt, others, line } => {
                let before = reader.get_ref().lines;
                (reader.get_mut().bytes, reader.get_mut().is_cut) = (0, false);
                let mut record = csv::ByteRecord::new();
                let more = reader.read_byte_record(&mut record).map_err(|e| behind(*line, e.into()))?;
                let begins = record.position().map_or(0, csv::Position::line) + before;
                let Bounded { returns, is_cut, .. } = *reader.get_ref();
                // Where lines end in CR LF, the reader has not come to the LF of the line before yet.
                *line = begins + u64::from(returns == Some(true));
                let too_long =
                    || Err(format!("the row is longer than {ROW_BYTES_MAX} bytes: is a quote not closed?"));
                let cells = || if is_cut { too_long() } else { csv_cells(&record, *width, *prompt, others) };
                Ok(more.then(|| (*line, cells())))
            }
        }
    }
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
    /// Bytes read since the last row began.
    bytes: u64,
    /// The rest of the row is left out.
    skips: bool,
    /// The row that is being read is not whole.
    is_cut: bool,
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
        let (place, skips, is_cut) = (Place::Begin, false, false);
        Self { file: Box::new(file), delimiter, place, bytes: 0, skips, is_cut, lines: 0, returns: None }
    }

    fn follow(&mut self, bytes: &[u8]) {
        self.place = bytes.iter().fold(self.place, |place, byte| place.after(*byte, self.delimiter));
    }

    /// Reads on to the end of the row, and gives what follows, from the line end on.
    fn rest(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(into)?;
            let Some(bytes) = into.get(..read).filter(|bytes| !bytes.is_empty()) else {
                self.skips = false;
                return Ok(0);
            };
            for (at, byte) in bytes.iter().copied().enumerate() {
                if self.place.ends_row(byte) {
                    self.skips = false;
                    self.bytes = (read - at) as u64;
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
        if self.bytes > ROW_BYTES_MAX && !self.is_cut {
            (self.skips, self.is_cut) = (true, true);
            // For the reader the cell ends here.
            if let (Place::Quoted, Some(first)) = (self.place, into.first_mut()) {
                *first = b'"';
                return Ok(1);
            }
            return self.rest(into);
        }
        let read = self.file.read(into)?;
        self.bytes += read as u64;
        let bytes = into.get(..read).unwrap_or_default();
        if let (None, Some(end)) = (self.returns, bytes.iter().position(|b| *b == b'\n')) {
            self.returns = Some(end > 0 && bytes.get(end - 1) == Some(&b'\r'));
        }
        self.place = bytes.iter().fold(self.place, |place, byte| place.after(*byte, self.delimiter));
        Ok(read)
    }
}

/// The next line that is not blank, or what is wrong with it.
fn json_line(reader: &mut impl BufRead, line: &mut u64) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.by_ref().take(ROW_BYTES_MAX).read_until(b'\n', &mut text)? as u64;
        *line += 1;
        if *line == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        if read == 0 {
            return Ok(None);
        }
        if read == ROW_BYTES_MAX && !text.ends_with(b"\n") {
            // What it holds is not needed any more.
            drop(text);
            reader.skip_until(b'\n')?;
            return Ok(Some(Err(format!("the line is longer than {ROW_BYTES_MAX} bytes"))));
        }
        if !text.trim_ascii().is_empty() {
            return Ok(Some(Ok(text)));
        }
    }
}

fn json_cells(text: &[u8], columns: &Columns) -> Cells {
    let wrong = |e: serde_json::Error| {
        let why: String = e.to_string().chars().take(CHARS_MAX).collect();
        format!("not a JSON object: {why}")
    };
    let mut from = serde_json::Deserializer::from_slice(text);
    let read = RowReader(columns).deserialize(&mut from).and_then(|row| from.end().map(|()| row));
    let (found, mut cells) = read.map_err(wrong)?;
    let none = |name: &str| format!("there is no column `{name}`");
    let prompt = match &columns.prompt {
        None => None,
        Some(name) => {
            let wrong = || format!("column `{name}` is neither a text nor a list of token ids");
            Some(found.ok_or_else(|| none(name))?.ok_or_else(wrong)?)
        }
    };
    let others = columns.others.iter().enumerate().map(|(i, name)| match &prompt {
        Some(Prompt::Text(text)) if columns.prompt.as_ref() == Some(name) => Ok(text.as_str().into()),
        Some(Prompt::TokenIds(ids)) if columns.prompt.as_ref() == Some(name) => Ok(ids.as_slice().into()),
        _ => cells.get_mut(i).and_then(Option::take).ok_or_else(|| none(name)),
    });
    let others = others.collect::<Result<_, String>>()?;
    Ok(RowCells { prompt, others })
}

/// Reads an object, and of it no more than is asked for: what a list of numbers takes as JSON is many times what it takes
/// as numbers.
struct RowReader<'a>(&'a Columns);

/// The prompt, if its column is there and holds one, and the other cells that are there.
type Found = (Option<Option<Prompt>>, Vec<Option<Value>>);

impl<'de> DeserializeSeed<'de> for RowReader<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowReader<'_> {
    type Value = Found;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Columns { prompt: column, others } = self.0;
        let (mut prompt, mut cells) = (None, vec![None; others.len()]);
        while let Some(name) = map.next_key::<String>()? {
            if Some(&name) == column.as_ref() {
                prompt = Some(map.next_value::<Cell>()?.0);
            } else if others.contains(&name) {
                let value = map.next_value::<Value>()?;
                for (cell, _) in cells.iter_mut().zip(others).filter(|(_, other)| **other == name) {
                    *cell = Some(value.clone());
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok((prompt, cells))
    }
}

/// A prompt; `None` if it is something else.
struct Cell(Option<Prompt>);

/// A token's id; `None` if it is something else.
struct Id(Option<u32>);

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Anything).map(|found| {
            Self(match found {
                Kind::Text(text) => Some(Prompt::Text(text)),
                Kind::Ids(ids) => Some(Prompt::TokenIds(ids)),
                Kind::Id(_) | Kind::Other => None,
            })
        })
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Anything)
            .map(|found| Self(if let Kind::Id(id) = found { Some(id) } else { None }))
    }
}

/// What a value is, as far as it may be a prompt or a part of one.
enum Kind {
    Text(String),
    Ids(Vec<u32>),
    Id(u32),
    Other,
}

/// Takes any value.
struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Kind;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
        Ok(u32::try_from(number).map_or(Kind::Other, Kind::Id))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut ids = Some(Vec::new());
        while let Some(Id(id)) = list.next_element()? {
            ids = ids.zip(id).map(|(mut ids, id)| {
                ids.push(id);
                ids
            });
        }
        Ok(ids.map_or(Kind::Other, Kind::Ids))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Kind::Other)
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

    #[test]
    fn a_row_holds_a_text_or_ids_and_nothing_else() {
        let of = |text: &str, key: Option<&str>| json_cells(text.as_bytes(), &columns(key.as_slice()));
        let ids = || Prompt::TokenIds(vec![1, 2]);
        let wrong = Err("column `text` is neither a text nor a list of token ids".to_owned());
        assert_eq!(
            of(r#"{"a":{"b":[1]},"text":[1,2],"id":{"c":[]}}"#, Some("id")),
            cells(ids(), &[serde_json::json!({"c": []})])
        );
        assert_eq!(of(r#"{"text":[1,2]}"#, Some("text")), cells(ids(), &[serde_json::json!([1, 2])]));
        // The last of two counts, as everywhere.
        assert_eq!(of(r#"{"text":5,"text":"a"}"#, None), cells(Prompt::Text("a".to_owned()), &[]));
        for cell in [
            "5",
            "null",
            "true",
            "1.5",
            "-1",
            "{}",
            "[1,-1]",
            "[1,[2]]",
            "[1,{}]",
            "[\"1\"]",
            "[4294967296]",
            "[1.0]",
        ] {
            assert_eq!(of(&format!("{{\"text\":{cell}}}"), None), wrong, "{cell}");
        }
        for row in [
            "",
            "[]",
            "5",
            "\"text\"",
            "{\"text\":",
            "{\"text\":[1}",
            "{\"text\":\"a\"} x",
            "{\"text\":[1,]}",
        ] {
            assert!(of(row, None).unwrap_err().starts_with("not a JSON object"), "{row}");
        }
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
        let long = || Err(format!("the row is longer than {ROW_BYTES_MAX} bytes: is a quote not closed?"));
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
