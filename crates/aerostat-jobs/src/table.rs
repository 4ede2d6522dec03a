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

/// What is read of a row: its key, if one is asked for, and its prompt; or what is wrong with it.
pub type Cells = Result<(Option<Value>, Prompt), String>;

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
    column: String,
    key: Option<String>,
    source: Source,
}

enum Source {
    Jsonl { reader: BufReader<Box<dyn Read + Send>>, line: u64 },
    Csv { reader: Box<csv::Reader<Bounded>>, width: usize, column: usize, key: Option<usize> },
}

impl TextTable {
    /// Begins to read a table: the prompts of `column`, and the cells of a `key` column.
    ///
    /// # Errors
    /// Reading fails; CSV has no such columns.
    pub fn new(
        file: impl Read + Send + 'static,
        format: TextFormat,
        column: &str,
        key: Option<&str>,
    ) -> io::Result<Self> {
        let source = match format {
            TextFormat::Jsonl => Source::Jsonl { reader: BufReader::new(Box::new(file)), line: 0 },
            TextFormat::Csv(delimiter) => {
                let mut reader = csv::ReaderBuilder::new()
                    .delimiter(delimiter)
                    .flexible(true)
                    .from_reader(Bounded { file: Box::new(file), bytes: 0 });
                let headers = reader.byte_headers().map_err(io::Error::from)?;
                let names: Vec<String> =
                    headers.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
                let find = |name: &str| {
                    let there: String = names.join(", ").chars().take(CHARS_MAX).collect();
                    let none = || format!("there is no column `{name}`; its columns are: {there}");
                    names.iter().position(|n| n == name).ok_or_else(|| io::Error::other(none()))
                };
                let (column, key) = (find(column)?, key.map(find).transpose()?);
                Source::Csv { width: names.len(), column, key, reader: Box::new(reader) }
            }
        };
        Ok(Self { column: column.to_owned(), key: key.map(str::to_owned), source })
    }

    /// The next row and the line that it begins in, from 1; a malformed one carries the reason. `None` at the end.
    ///
    /// # Errors
    /// Reading fails, or nothing can be told of what follows: a row of CSV is too long.
    pub fn next_row(&mut self) -> io::Result<Option<(u64, Cells)>> {
        match &mut self.source {
            Source::Jsonl { reader, line } => {
                let Some(text) = json_line(reader, line)? else { return Ok(None) };
                let cells = text.and_then(|text| json_cells(&text, &self.column, self.key.as_deref()));
                Ok(Some((*line, cells)))
            }
            Source::Csv { reader, width, column, key } => {
                reader.get_mut().bytes = 0;
                let mut record = csv::ByteRecord::new();
                let more = reader.read_byte_record(&mut record).map_err(io::Error::from)?;
                let line = record.position().map_or(0, csv::Position::line);
                Ok(more.then(|| (line, csv_cells(&record, *width, *column, *key))))
            }
        }
    }
}

/// A file of which no row is read that is too long: one quote that is never closed makes all that follows one cell.
struct Bounded {
    file: Box<dyn Read + Send>,
    /// Bytes read since the last row began.
    bytes: u64,
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes > ROW_BYTES_MAX {
            let what = format!("a row is longer than {ROW_BYTES_MAX} bytes: is a quote not closed?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let read = self.file.read(into)?;
        self.bytes += read as u64;
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

fn json_cells(text: &[u8], column: &str, key: Option<&str>) -> Cells {
    let wrong = |e: serde_json::Error| {
        let why: String = e.to_string().chars().take(CHARS_MAX).collect();
        format!("not a JSON object: {why}")
    };
    let mut from = serde_json::Deserializer::from_slice(text);
    let (prompt, found) = RowReader { column, key }
        .deserialize(&mut from)
        .and_then(|row| from.end().map(|()| row))
        .map_err(wrong)?;
    let none = |name: &str| format!("there is no column `{name}`");
    let wrong = || format!("column `{column}` is neither a text nor a list of token ids");
    let prompt = prompt.ok_or_else(|| none(column))?.ok_or_else(wrong)?;
    let cell = |name: &str| match &prompt {
        Prompt::Text(text) if name == column => Some(text.as_str().into()),
        Prompt::TokenIds(ids) if name == column => Some(ids.as_slice().into()),
        _ => None,
    };
    let key = key.map(|name| cell(name).or(found).ok_or_else(|| none(name))).transpose()?;
    Ok((key, prompt))
}

/// Reads an object, and of it no more than is asked for: what a list of numbers takes as JSON is many times what it takes
/// as numbers.
struct RowReader<'a> {
    column: &'a str,
    key: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for RowReader<'_> {
    /// The prompt, if the column is there and holds one, and the key.
    type Value = (Option<Option<Prompt>>, Option<Value>);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowReader<'_> {
    type Value = (Option<Option<Prompt>>, Option<Value>);

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut prompt, mut key) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            if name == self.column {
                prompt = Some(map.next_value::<Cell>()?.0);
            } else if Some(name.as_str()) == self.key {
                key = Some(map.next_value::<Value>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok((prompt, key))
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
                Found::Text(text) => Some(Prompt::Text(text)),
                Found::Ids(ids) => Some(Prompt::TokenIds(ids)),
                Found::Id(_) | Found::Other => None,
            })
        })
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Anything)
            .map(|found| Self(if let Found::Id(id) = found { Some(id) } else { None }))
    }
}

/// What a value is, as far as it may be a prompt or a part of one.
enum Found {
    Text(String),
    Ids(Vec<u32>),
    Id(u32),
    Other,
}

/// Takes any value.
struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Found;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Found::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Found, E> {
        Ok(u32::try_from(number).map_or(Found::Other, Found::Id))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let mut ids = Some(Vec::new());
        while let Some(Id(id)) = list.next_element()? {
            ids = ids.zip(id).map(|(mut ids, id)| {
                ids.push(id);
                ids
            });
        }
        Ok(ids.map_or(Found::Other, Found::Ids))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &'static str, format: TextFormat) -> Vec<(u64, Cells)> {
        let mut table = TextTable::new(text.as_bytes(), format, "text", Some("id")).unwrap();
        std::iter::from_fn(|| table.next_row().unwrap()).collect()
    }

    #[test]
    fn a_row_holds_a_text_or_ids_and_nothing_else() {
        let of = |text: &str, key| json_cells(text.as_bytes(), "text", key);
        let ids = || Prompt::TokenIds(vec![1, 2]);
        let wrong = Err("column `text` is neither a text nor a list of token ids".to_owned());
        assert_eq!(
            of(r#"{"a":{"b":[1]},"text":[1,2],"id":{"c":[]}}"#, Some("id")),
            Ok((Some(serde_json::json!({"c": []})), ids()))
        );
        assert_eq!(of(r#"{"text":[1,2]}"#, Some("text")), Ok((Some(serde_json::json!([1, 2])), ids())));
        // The last of two counts, as everywhere.
        assert_eq!(of(r#"{"text":5,"text":"a"}"#, None), Ok((None, Prompt::Text("a".to_owned()))));
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
        let cells = |id: Value| Ok((Some(id), Prompt::Text("a".to_owned())));
        let json = rows("\u{feff}{\"id\":1,\"text\":\"a\"}\n\n{\"id\":2}\n", TextFormat::Jsonl);
        assert_eq!(json, [(1, cells(1.into())), (3, Err("there is no column `text`".to_owned()))]);
        let csv = rows("\u{feff}text,id\na,1\n", TextFormat::Csv(b','));
        assert_eq!(csv, [(2, cells("1".into()))]);
    }
}
