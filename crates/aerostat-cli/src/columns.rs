//! Tables in Parquet files: rows read by the names of columns, results written as columns of the types they have.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aerostat_jobs::{Cells, Columns, Prompt, RowCells};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Value, json};

use crate::cell::Cell;
use crate::failure::Failure;

/// A row group is written when it has so many rows, or when its cells take so many bytes.
const GROUP_ROWS_MAX: usize = 4096;
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Bytes of a page, of which each column has one at hand.
const PAGE_BYTES: usize = 64 << 10;

/// Whether Parquet can be written: it can.
pub(crate) fn check(_path: &Path) -> Result<(), Failure> {
    Ok(())
}

/// Reads the rows of a Parquet file.
pub(crate) struct Reader {
    path: PathBuf,
    rows: RowIter<'static>,
    columns: Columns,
}

impl Reader {
    /// Opens a file to read columns of it.
    pub(crate) fn open(path: &Path, columns: Columns) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| unreadable(path, &e.into()))?;
        let reader = SerializedFileReader::new(file).map_err(|e| unreadable(path, &e))?;
        let root = reader.metadata().file_metadata().schema();
        let (name, schema) = (root.name().to_owned(), root.get_fields().to_vec());
        let find = |name: &str| {
            let there: Vec<&str> = schema.iter().map(|f| f.name()).collect();
            let message = || {
                let there = there.join(", ");
                format!("{}: there is no column `{name}`; its columns are: {there}", path.display())
            };
            schema.iter().find(|f| f.name() == name).cloned().ok_or_else(|| Failure::failed(message()))
        };
        let mut names: Vec<&String> = columns.prompt.iter().chain(&columns.others).collect();
        names.sort();
        names.dedup();
        let wanted = names.into_iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
        let projection = Type::group_type_builder(&name).with_fields(wanted).build();
        let rows = projection.and_then(|p| RowIter::from_file_into(Box::new(reader)).project(Some(p)));
        let rows = rows.map_err(|e| unreadable(path, &e))?;
        Ok(Self { path: path.to_owned(), rows, columns })
    }

    /// The next row.
    pub(crate) fn next(&mut self) -> Result<Option<Cells>, Failure> {
        let Some(row) = self.rows.next().transpose().map_err(|e| unreadable(&self.path, &e))? else {
            return Ok(None);
        };
        let cell = |name: &str| row.get_column_iter().find(|(n, _)| *n == name).map(|(_, field)| field);
        let others = self.columns.others.iter().map(|name| cell(name).map_or(Value::Null, value)).collect();
        let prompt = match &self.columns.prompt {
            None => Ok(None),
            Some(name) => {
                let wrong = || format!("column `{name}` is neither a text nor a list of token ids");
                cell(name).and_then(prompt).ok_or_else(wrong).map(Some)
            }
        };
        Ok(Some(prompt.map(|prompt| RowCells { prompt, others })))
    }
}

fn prompt(field: &Field) -> Option<Prompt> {
    match field {
        Field::Str(text) => Some(Prompt::Text(text.clone())),
        Field::Bytes(bytes) => Some(Prompt::Text(bytes.as_utf8().ok()?.to_owned())),
        Field::ListInternal(list) => {
            let id = |field: &Field| value(field).as_u64().and_then(|id| u32::try_from(id).ok());
            list.elements().iter().map(id).collect::<Option<_>>().map(Prompt::TokenIds)
        }
        _ => None,
    }
}

/// A cell as JSON; dates and the like as text.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => json!(value),
        Field::Byte(value) => json!(value),
        Field::Short(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Long(value) => json!(value),
        Field::UByte(value) => json!(value),
        Field::UShort(value) => json!(value),
        Field::UInt(value) => json!(value),
        Field::ULong(value) => json!(value),
        Field::Float(value) => json!(value),
        Field::Double(value) => json!(value),
        Field::Str(text) => json!(text),
        other => json!(other.to_string()),
    }
}

/// A file of results. Its columns and their types are those of the first group of rows.
pub(crate) struct Writer {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    writer: Option<SerializedFileWriter<BufWriter<File>>>,
    columns: Vec<(String, Kind)>,
    rows: Vec<Vec<Cell>>,
    bytes: usize,
}

/// The type of a column, found from its values; any value may be missing.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// No value was seen yet.
    Nothing,
    Bool,
    Int,
    Float,
    Text,
    List(Box<Kind>),
    Struct(Vec<(String, Kind)>),
}

/// What is written for a leaf of the schema, with its levels of definition and repetition.
struct Leaf {
    values: Values,
    defined: Vec<i16>,
    repeated: Vec<i16>,
}

enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f32>),
    Text(Vec<ByteArray>),
}

impl Writer {
    /// Begins to write to an empty file.
    pub(crate) fn new(path: &Path, file: File) -> Result<Self, Failure> {
        let (columns, rows) = (Vec::new(), Vec::new());
        let file = Some(BufWriter::new(file));
        Ok(Self { path: path.to_owned(), file, writer: None, columns, rows, bytes: 0 })
    }

    /// Writes the next row; every row has the same columns.
    pub(crate) fn write(&mut self, cells: Vec<(&str, Cell)>) -> Result<(), Failure> {
        if self.columns.is_empty() {
            self.columns = cells.iter().map(|(name, _)| ((*name).to_owned(), Kind::Nothing)).collect();
        }
        self.bytes += cells.iter().map(|(_, cell)| bytes(cell)).sum::<usize>();
        self.rows.push(cells.into_iter().map(|(_, cell)| cell).collect());
        if self.rows.len() >= GROUP_ROWS_MAX || self.bytes >= GROUP_BYTES_MAX {
            return self.end_group();
        }
        Ok(())
    }

    /// Writes the rows that are left and the end of the file.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.end_group()?;
        let closed = self.writer.map(|writer| writer.close());
        closed.transpose().map_err(|e| unwritable(&self.path, &e))?;
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), Failure> {
        let mut rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if let Some(file) = self.file.take() {
            for row in &rows {
                for ((_, kind), cell) in self.columns.iter_mut().zip(row) {
                    kind.widen_to(cell);
                }
            }
            let writer = open(file, &self.columns);
            self.writer = Some(writer.map_err(|e| unwritable(&self.path, &e))?);
        }
        let Some(writer) = self.writer.as_mut().filter(|_| !rows.is_empty()) else { return Ok(()) };
        let unwritable = |e: ParquetError| unwritable(&self.path, &e);
        let mut group = writer.next_row_group().map_err(unwritable)?;
        // A column after the other, so that only one is there twice.
        for (i, (name, kind)) in self.columns.iter().enumerate() {
            let mut leaves = kind.leaves();
            for row in &mut rows {
                let cell = row.get_mut(i).map_or(Cell::Value(Value::Null), |cell| {
                    std::mem::replace(cell, Cell::Value(Value::Null))
                });
                if !kind.put_cell(&cell, &mut leaves) {
                    let message = format!(
                        "{}: column `{name}` holds things of different types; name a .jsonl file",
                        self.path.display()
                    );
                    return Err(Failure::failed(message));
                }
            }
            leaves.into_iter().try_for_each(|leaf| write_leaf(&mut group, &leaf)).map_err(unwritable)?;
        }
        group.close().map(drop).map_err(unwritable)
    }
}

fn open(
    file: BufWriter<File>,
    columns: &[(String, Kind)],
) -> Result<SerializedFileWriter<BufWriter<File>>, ParquetError> {
    let fields = columns.iter().map(|(name, kind)| kind.field(name)).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(Type::group_type_builder("results").with_fields(fields).build()?);
    let zstd = Compression::ZSTD(ZstdLevel::default());
    // Numbers do not repeat, and dictionaries of texts take memory.
    let properties = WriterProperties::builder().set_compression(zstd).set_dictionary_enabled(false);
    let properties = properties.set_data_page_size_limit(PAGE_BYTES).build();
    SerializedFileWriter::new(file, schema, Arc::new(properties))
}

fn write_leaf(
    group: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    leaf: &Leaf,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    match &leaf.values {
        Values::Bool(values) => write_values::<BoolType>(&mut column, values, leaf)?,
        Values::Int(values) => write_values::<Int64Type>(&mut column, values, leaf)?,
        Values::Float(values) => write_values::<FloatType>(&mut column, values, leaf)?,
        Values::Text(values) => write_values::<ByteArrayType>(&mut column, values, leaf)?,
    }
    column.close()
}

fn write_values<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: &[T::T],
    leaf: &Leaf,
) -> Result<(), ParquetError> {
    column.typed::<T>().write_batch(values, Some(&leaf.defined), Some(&leaf.repeated))?;
    Ok(())
}

impl Kind {
    /// Widens the type so that it can hold this value.
    fn widen(&mut self, value: &Value) {
        match (&mut *self, value) {
            (_, Value::Null) | (Self::Bool, Value::Bool(_)) | (Self::Text, _) => {}
            (Self::Float, Value::Number(_)) => {}
            (Self::Int, Value::Number(n)) if n.is_i64() || n.is_u64() => {}
            (Self::Int, Value::Number(_)) => *self = Self::Float,
            (Self::List(kind), Value::Array(list)) => list.iter().for_each(|v| kind.widen(v)),
            (Self::Struct(fields), Value::Object(map)) => {
                for (name, value) in map {
                    match fields.iter_mut().find(|(n, _)| n == name) {
                        Some((_, kind)) => kind.widen(value),
                        None => fields.push((name.clone(), Self::of(value))),
                    }
                }
            }
            (Self::Nothing, value) => *self = Self::of(value),
            // Different things in one column are told apart as JSON.
            _ => *self = Self::Text,
        }
    }

    fn of(value: &Value) -> Self {
        let mut kind = match value {
            Value::Null => Self::Nothing,
            Value::Bool(_) => Self::Bool,
            Value::Number(n) if n.is_f64() => Self::Float,
            Value::Number(_) => Self::Int,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List(Box::new(Self::Nothing)),
            Value::Object(_) => Self::Struct(Vec::new()),
        };
        if value.is_array() || value.is_object() {
            kind.widen(value);
        }
        kind
    }

    /// The field of the schema. What is never there is a number, as most results are.
    fn field(&self, name: &str) -> Result<TypePtr, ParquetError> {
        let leaf =
            |physical| Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        let group =
            |fields| Type::group_type_builder(name).with_repetition(Repetition::OPTIONAL).with_fields(fields);
        let field = match self {
            Self::Bool => leaf(Physical::BOOLEAN).build()?,
            Self::Int => leaf(Physical::INT64).build()?,
            Self::Float | Self::Nothing => leaf(Physical::FLOAT).build()?,
            Self::Text => leaf(Physical::BYTE_ARRAY).with_logical_type(Some(LogicalType::String)).build()?,
            Self::List(kind) => {
                let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
                let list = list.with_fields(vec![kind.field("element")?]).build()?;
                group(vec![Arc::new(list)]).with_logical_type(Some(LogicalType::List)).build()?
            }
            Self::Struct(fields) => {
                let fields = fields.iter().map(|(name, kind)| kind.field(name)).collect::<Result<_, _>>()?;
                group(fields).build()?
            }
        };
        Ok(Arc::new(field))
    }

    /// Empty leaves, in the order of the schema.
    fn leaves(&self) -> Vec<Leaf> {
        let leaf = |values| vec![Leaf { values, defined: Vec::new(), repeated: Vec::new() }];
        match self {
            Self::Bool => leaf(Values::Bool(Vec::new())),
            Self::Int => leaf(Values::Int(Vec::new())),
            Self::Float | Self::Nothing => leaf(Values::Float(Vec::new())),
            Self::Text => leaf(Values::Text(Vec::new())),
            Self::List(kind) => kind.leaves(),
            Self::Struct(fields) => fields.iter().flat_map(|(_, kind)| kind.leaves()).collect(),
        }
    }

    /// The type of a cell of numbers; they are the same in all of its rows.
    fn of_numbers(cell: &Cell) -> Option<Self> {
        let (of, width) = match cell {
            Cell::Value(_) => return None,
            Cell::Floats(_, width) => (Self::Float, width),
            Cell::Ids(_, width) => (Self::Int, width),
        };
        let list = Self::List(Box::new(of));
        Some(if width.is_some() { Self::List(Box::new(list)) } else { list })
    }

    /// As [`widen`](Self::widen), of a cell.
    fn widen_to(&mut self, cell: &Cell) {
        match (cell, Self::of_numbers(cell)) {
            (_, Some(kind)) => *self = kind,
            (Cell::Value(value), None) => self.widen(value),
            _ => {}
        }
    }

    /// As [`put`](Self::put), of a cell.
    fn put_cell(&self, cell: &Cell, leaves: &mut [Leaf]) -> bool {
        if let Cell::Value(value) = cell {
            return self.put(value, (0, 0, 0), leaves);
        }
        let Some(leaf) = leaves.first_mut().filter(|_| Self::of_numbers(cell).as_ref() == Some(self)) else {
            return false;
        };
        match (cell, &mut leaf.values) {
            (Cell::Floats(values, width), Values::Float(all)) => {
                all.extend(values.iter().filter(|value| value.is_finite()));
                leaf.levels_of(values.iter().map(|value| value.is_finite()), *width);
            }
            (Cell::Ids(ids, width), Values::Int(all)) => {
                all.extend(ids.iter().map(|id| i64::from(*id)));
                leaf.levels_of(ids.iter().map(|_| true), *width);
            }
            _ => return false,
        }
        true
    }

    /// Adds a value to the leaves of this kind; false if it is of another. Levels are those of Dremel: how many of the
    /// optional and repeated things above it are there, which of the repeated ones it continues, and how many there are.
    fn put(&self, value: &Value, (defined, repeated, depth): (i16, i16, i16), leaves: &mut [Leaf]) -> bool {
        match (self, value) {
            (_, Value::Null) => {
                leaves.iter_mut().for_each(|leaf| leaf.level(defined, repeated));
                true
            }
            (Self::List(kind), Value::Array(list)) => {
                if list.is_empty() {
                    leaves.iter_mut().for_each(|leaf| leaf.level(defined + 1, repeated));
                }
                let mut each = list.iter().enumerate();
                each.all(|(i, value)| {
                    let continues = if i == 0 { repeated } else { depth + 1 };
                    kind.put(value, (defined + 2, continues, depth + 1), leaves)
                })
            }
            (Self::Struct(fields), Value::Object(map)) => {
                let mut rest = leaves;
                fields.iter().all(|(name, kind)| {
                    let (own, others) = std::mem::take(&mut rest).split_at_mut(kind.leaves().len());
                    rest = others;
                    kind.put(map.get(name).unwrap_or(&Value::Null), (defined + 1, repeated, depth), own)
                })
            }
            _ => leaves.first_mut().is_some_and(|leaf| {
                leaf.level(defined + 1, repeated);
                leaf.values.push(value)
            }),
        }
    }
}

impl Leaf {
    fn level(&mut self, defined: i16, repeated: i16) {
        self.defined.push(defined);
        self.repeated.push(repeated);
    }

    /// The levels of a list of numbers, or of lists of `width` of them, each of which is there or null.
    fn levels_of(&mut self, list: impl ExactSizeIterator<Item = bool>, width: Option<usize>) {
        let depth = if width.is_some() { 2 } else { 1 };
        let width = width.map_or(usize::MAX, |width| width.max(1));
        if list.len() == 0 {
            self.level(1, 0);
        }
        for (i, there) in list.enumerate() {
            let repeated = match i {
                0 => 0,
                i if i.is_multiple_of(width) => 1,
                _ => depth,
            };
            self.level(2 * depth + i16::from(there), repeated);
        }
    }
}

impl Values {
    /// Adds a value that is no list or struct; false if the leaf has another type.
    fn push(&mut self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(all), Value::Bool(value)) => all.push(*value),
            (Self::Int(all), Value::Number(n)) => match n.as_i64() {
                Some(value) => all.push(value),
                None => return false,
            },
            (Self::Float(all), Value::Number(n)) => all.push(n.as_f64().unwrap_or(f64::NAN) as f32),
            (Self::Text(all), Value::String(text)) => all.push(text.as_str().into()),
            (Self::Text(all), other) => all.push(other.to_string().as_str().into()),
            _ => return false,
        }
        true
    }
}

/// What a cell takes, in bytes, or nearly.
fn bytes(cell: &Cell) -> usize {
    fn of_value(value: &Value) -> usize {
        size_of::<Value>()
            + match value {
                Value::String(text) => text.len(),
                Value::Array(list) => list.iter().map(of_value).sum(),
                Value::Object(map) => map.iter().map(|(name, value)| 64 + name.len() + of_value(value)).sum(),
                _ => 0,
            }
    }
    match cell {
        Cell::Value(value) => of_value(value),
        Cell::Floats(values, _) => size_of_val(&values[..]),
        Cell::Ids(ids, _) => size_of_val(&ids[..]),
    }
}

fn unreadable(path: &Path, e: &ParquetError) -> Failure {
    Failure::failed(format!("{}: cannot be read: {e}", path.display()))
}

fn unwritable(path: &Path, e: &ParquetError) -> Failure {
    Failure::failed(format!("{}: cannot be written: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes rows of one column named `c`, and gives the file's cells back as text.
    fn there_and_back(values: &[Value]) -> Vec<String> {
        there_and_back_of(&values.iter().cloned().map(Cell::Value).collect::<Vec<_>>())
    }

    fn there_and_back_of(cells: &[Cell]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let mut writer = Writer::new(&path, File::create(&path).unwrap()).unwrap();
        for cell in cells {
            writer.write(vec![("c", cell.clone())]).unwrap();
        }
        writer.finish().unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
        rows.map(|row| row.get_column_iter().next().unwrap().1.to_string()).collect()
    }

    #[test]
    fn what_is_written_is_read_back_with_all_its_levels() {
        for (values, want) in [
            (vec![json!(1), Value::Null, json!(-3)], vec!["1", "null", "-3"]),
            (vec![json!(1), json!(0.5)], vec!["1.0", "0.5"]),
            (vec![json!(true), json!(false)], vec!["true", "false"]),
            (vec![json!("ä"), json!("")], vec!["\"ä\"", "\"\""]),
            (vec![json!("a"), json!(7)], vec!["\"a\"", "\"7\""]),
            (vec![json!([1, null, 3]), json!([]), Value::Null], vec!["[1, null, 3]", "[]", "null"]),
            (vec![json!([[1, 2], [], [3]]), json!([[4]])], vec!["[[1, 2], [], [3]]", "[[4]]"]),
            (vec![json!({"x y": 0.5, "z": [1]})], vec!["{x y: 0.5, z: [1]}"]),
            (vec![json!([null])], vec!["[null]"]),
        ] {
            assert_eq!(there_and_back(&values), want, "{values:?}");
        }
    }

    /// They once were values, which took ten times the memory.
    #[test]
    fn cells_of_numbers_are_written_as_their_values_are() {
        let floats = |list: &[f32], width| Cell::Floats(list.to_vec(), width);
        for cells in [
            vec![floats(&[0.5, f32::NAN, 2.0], None), floats(&[], None), floats(&[-1.0], None)],
            vec![floats(&[1.0, 2.0, 3.0, f32::NEG_INFINITY, 5.0, 6.0], Some(2)), floats(&[], Some(2))],
            vec![Cell::Ids(vec![1, 2, 3], None), Cell::Ids(Vec::new(), None)],
            vec![Cell::Ids(vec![1, 2, 3, 4], Some(1)), Cell::Ids(vec![5, u32::MAX], Some(2))],
        ] {
            let values = cells.iter().map(|cell| serde_json::to_value(cell).unwrap()).collect::<Vec<_>>();
            let values: Vec<Cell> = values.into_iter().map(Cell::Value).collect();
            assert_eq!(there_and_back_of(&cells), there_and_back_of(&values), "{cells:?}");
        }
    }

    #[test]
    fn groups_of_rows_follow_each_other() {
        let values: Vec<Value> = (0..10_000).map(|i| json!(i)).collect();
        let want: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        assert_eq!(there_and_back(&values), want);
    }
}
