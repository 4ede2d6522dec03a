//! Results of tables: lines, columns, and arrays. Files are written under another name and get their own when they are
//! whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aerostat_jobs::Packer;
use serde_json::{Map, Value, json};

use crate::cell::{Cell, Named};
use crate::columns;
use crate::failure::Failure;
use crate::table::{Format, Row, TableArgs};

/// A file that is written under another name and renamed when it is complete. If dropped before, it leaves nothing.
pub(crate) struct Draft {
    path: PathBuf,
    part: PathBuf,
    file: Option<BufWriter<File>>,
}

/// Results as the rows of a table.
pub(crate) struct Lines {
    format: Format,
    /// The writer, if the format is Parquet.
    columns: Option<Box<columns::Writer>>,
    /// The file that is written; `None` for stdout.
    draft: Option<Draft>,
    /// Packs what goes to the file, as its name says.
    packer: Packer,
}

/// Results as tensors of a safetensors file.
pub(crate) struct Tensors {
    draft: Draft,
    metadata: Map<String, Value>,
    columns: Vec<Tensor>,
    key_bytes: i64,
}

/// A tensor that grows by whole rows.
struct Tensor {
    name: &'static str,
    dtype: &'static str,
    /// Size of an element, in bytes.
    size: u64,
    /// Elements of a row, if it has a second dimension.
    width: Option<usize>,
    bytes: u64,
    spool: Draft,
}

/// Results as the one f32 matrix of a NumPy file.
pub(crate) struct Npy {
    draft: Draft,
    width: usize,
    rows: u64,
}

/// Bytes of a NumPy header, which is written last.
const NPY_HEADER_BYTES: usize = 128;

impl Draft {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        Self::create_part(path, "part")
    }

    fn create_part(path: &Path, ending: &str) -> Result<Self, Failure> {
        let mut part = path.as_os_str().to_owned();
        part.push(".");
        part.push(ending);
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|e| unwritable(&part, &e))?;
        Ok(Self { path: path.to_owned(), part, file: Some(BufWriter::new(file)) })
    }

    fn with<T>(
        &mut self,
        use_file: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
    ) -> Result<T, Failure> {
        let closed = || io::Error::other("it is closed");
        let done = self.file.as_mut().ok_or_else(closed).and_then(use_file);
        done.map_err(|e| unwritable(&self.part, &e))
    }

    /// Takes the file out, for a writer that wants to own it.
    fn handle(&self) -> Result<File, Failure> {
        let closed = || io::Error::other("it is closed");
        let file = self.file.as_ref().ok_or_else(closed).and_then(|file| file.get_ref().try_clone());
        file.map_err(|e| unwritable(&self.part, &e))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.with(|file| file.write_all(bytes))
    }

    /// Flushes the file to the disk and renames it to its own name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.with(|file| {
            file.flush()?;
            file.get_ref().sync_all()
        })?;
        self.file = None;
        fs::rename(&self.part, &self.path).map_err(|e| unwritable(&self.path, &e))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.file = None;
        // After `finish` it has another name.
        let _ = fs::remove_file(&self.part);
    }
}

impl Lines {
    /// Begins to write rows of these columns to a file or to stdout.
    pub(crate) fn create(path: Option<&Path>, format: Format, columns: &[&str]) -> Result<Self, Failure> {
        let names = columns;
        let draft = path.map(Draft::create).transpose()?;
        let columns = match (format, path, &draft) {
            (Format::Parquet, Some(path), Some(draft)) => {
                Some(Box::new(columns::Writer::new(path, draft.handle()?)?))
            }
            (Format::Parquet, ..) => return Err(no_parquet_on_stdout()),
            _ => None,
        };
        let packer = path.map_or_else(|| Ok(Packer::default()), Packer::of);
        let packer = packer.map_err(|e| Failure::failed(format!("results cannot be packed: {e}")))?;
        let mut lines = Self { format, columns, draft, packer };
        if let Format::Csv(delimiter) = format {
            lines.put(&record(delimiter, names)?)?;
        }
        Ok(lines)
    }

    /// Refuses a format that cannot be written to the file, or to stdout.
    pub(crate) fn check(path: Option<&Path>, format: Format) -> Result<(), Failure> {
        match (path, format) {
            (Some(path), Format::Parquet) => columns::check(path),
            (None, Format::Parquet) => Err(no_parquet_on_stdout()),
            _ => Ok(()),
        }
    }

    /// Writes the next row, which has the columns that were named.
    pub(crate) fn write(&mut self, cells: Vec<(&str, Cell)>) -> Result<(), Failure> {
        if let Some(columns) = &mut self.columns {
            return columns.write(cells);
        }
        let bytes = match self.format {
            Format::Jsonl | Format::Parquet => {
                let mut row = serde_json::to_vec(&Named(&cells))?;
                row.push(b'\n');
                row
            }
            Format::Csv(delimiter) => {
                let texts = cells.iter().map(|(_, cell)| cell.text()).collect::<Result<Vec<_>, _>>()?;
                record(delimiter, &texts)?
            }
        };
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.draft {
            Some(draft) => {
                let packed = self.packer.pack(bytes).map_err(|e| unwritable(&draft.part, &e))?;
                draft.write(&packed)
            }
            None => Ok(io::stdout().lock().write_all(bytes)?),
        }
    }

    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.columns.map_or(Ok(()), |columns| columns.finish())?;
        match self.draft {
            Some(mut draft) => {
                let rest = self.packer.finish().map_err(|e| unwritable(&draft.part, &e))?;
                draft.write(&rest)?;
                draft.finish()
            }
            None => Ok(io::stdout().lock().flush()?),
        }
    }
}

impl Tensors {
    /// Begins a safetensors file; `metadata` goes into its header.
    pub(crate) fn create(path: &Path, metadata: &[(&str, String)]) -> Result<Self, Failure> {
        let metadata = metadata.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        Ok(Self { draft: Draft::create(path)?, metadata, columns: Vec::new(), key_bytes: 0 })
    }

    /// Adds a tensor with `width` elements in each row. Tensors of larger elements must be added first, so that all are
    /// aligned.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        dtype: &'static str,
        size: u64,
        width: Option<usize>,
    ) -> Result<(), Failure> {
        let spool = Draft::create_part(&self.draft.path, &format!("part.{name}"))?;
        self.columns.push(Tensor { name, dtype, size, width, bytes: 0, spool });
        Ok(())
    }

    /// The tensors that tell rows apart: their numbers and, if there are keys, where each one's text ends. Of large
    /// elements, so they come first.
    pub(crate) fn rows(&mut self, table: &TableArgs) -> Result<(), Failure> {
        self.add("rows", "I64", 8, None)?;
        if table.key.is_some() {
            self.add("key_offsets", "I64", 8, None)?;
            self.push("key_offsets", 0i64.to_le_bytes())?;
        }
        Ok(())
    }

    /// The texts of keys, one after the other. Of small elements, so they come last.
    pub(crate) fn texts(&mut self, table: &TableArgs) -> Result<(), Failure> {
        if table.key.is_some() { self.add("keys", "U8", 1, None) } else { Ok(()) }
    }

    /// Begins the results of a row of the input: appends its number and key.
    pub(crate) fn row(&mut self, row: &Row) -> Result<(), Failure> {
        let key = row.key.as_str().map_or_else(|| row.key.to_string(), str::to_owned);
        self.key_bytes += key.len() as i64;
        self.push("rows", (row.number as i64).to_le_bytes())?;
        self.push("key_offsets", self.key_bytes.to_le_bytes())?;
        self.push("keys", key.into_bytes())
    }

    /// Appends bytes to the tensor of this name; nothing happens if there is none.
    pub(crate) fn push(&mut self, name: &str, bytes: impl IntoIterator<Item = u8>) -> Result<(), Failure> {
        let Some(tensor) = self.columns.iter_mut().find(|t| t.name == name) else { return Ok(()) };
        let bytes: Vec<u8> = bytes.into_iter().collect();
        tensor.bytes += bytes.len() as u64;
        tensor.spool.write(&bytes)
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(self.metadata))]);
        let mut offset = 0;
        for tensor in &self.columns {
            let row_bytes = tensor.size * tensor.width.unwrap_or(1).max(1) as u64;
            let rows = tensor.bytes / row_bytes;
            let shape = tensor.width.map_or_else(|| json!([rows]), |width| json!([rows, width]));
            let end = offset + tensor.bytes;
            let entry = json!({"dtype": tensor.dtype, "shape": shape, "data_offsets": [offset, end]});
            header.insert(tensor.name.to_owned(), entry);
            offset = end;
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        self.draft.write(&(header.len() as u64).to_le_bytes())?;
        self.draft.write(&header)?;
        for tensor in &mut self.columns {
            tensor.spool.with(io::Write::flush)?;
            let mut spooled =
                File::open(&tensor.spool.part).map_err(|e| unwritable(&tensor.spool.part, &e))?;
            self.draft.with(|file| io::copy(&mut spooled, file))?;
        }
        self.draft.finish()
    }
}

impl Npy {
    /// Begins a matrix whose rows have `width` elements.
    pub(crate) fn create(path: &Path, width: usize) -> Result<Self, Failure> {
        let mut draft = Draft::create(path)?;
        draft.write(&[0; NPY_HEADER_BYTES])?;
        Ok(Self { draft, width, rows: 0 })
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, row: &[f32]) -> Result<(), Failure> {
        self.rows += 1;
        self.draft.write(&row.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let shape = format!("({}, {})", self.rows, self.width);
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let text_bytes = NPY_HEADER_BYTES - 10;
        let header = format!("{text:<width$}\n", width = text_bytes - 1);
        self.draft.with(|file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(b"\x93NUMPY\x01\x00")?;
            file.write_all(&(text_bytes as u16).to_le_bytes())?;
            file.write_all(header.as_bytes())
        })?;
        self.draft.finish()
    }
}

/// A line of CSV.
fn record(delimiter: u8, cells: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, Failure> {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    writer.write_record(cells).map_err(io::Error::from)?;
    Ok(writer.into_inner().map_err(|e| io::Error::other(e.to_string()))?)
}

fn no_parquet_on_stdout() -> Failure {
    Failure::usage("results in Parquet need a file: -o FILE.parquet, or FILE.jsonl")
}

fn unwritable(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("{}: cannot be written: {e}", path.display()))
}
