//! Reading GGUF headers: one file, or all parts of a split set.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Array, Items, Metadata, Value, ValueType};
use crate::catalog::bytes_of;
use crate::limits::{HEADER_BYTES_MAX, TENSORS_MAX};
use crate::name_shown;
use crate::{Catalog, DType, Error, ErrorKind, Extent, File, FileId, disk};

const ENTRIES_MAX: u64 = 1 << 16;
const KEY_BYTES_MAX: u64 = u16::MAX as u64;
const TENSOR_NAME_BYTES_MAX: u64 = 1024;
const DIMENSIONS_MAX: u32 = 4;
const ARRAY_DEPTH_MAX: u32 = 4;
/// Arrays inside arrays in one file; each costs more memory than its bytes in the file.
const NESTED_ARRAYS_MAX: u64 = 1 << 16;
pub(crate) const ALIGNMENT_DEFAULT: u64 = 32;
/// Bytes that a tensor's entry takes at least: name length, count of dimensions, type, offset.
const TENSOR_ENTRY_BYTES_MIN: u64 = 24;

/// Opens the GGUF file at `path` and, if it is one part of a split set, all the others.
/// Gives the path of the first part, its metadata and the catalogue of all.
pub(crate) fn open(path: &Path) -> Result<(PathBuf, Metadata, Catalog), Error> {
    let Some(split) = SplitName::of(path).filter(|split| split.count > 1) else {
        let (metadata, catalog) = open_one(path, ALIGNMENT_DEFAULT)?;
        if let Some(count) = metadata.u64("split.count").filter(|&count| count > 1) {
            let message = format!(
                "the file is one part of {count}, but its name does not tell the others': \
                 give the parts their names back (…-00001-of-{count:05}.gguf)"
            );
            return Err(Error::new(ErrorKind::MissingShard, path, message));
        }
        return Ok((path.to_owned(), metadata, catalog));
    };
    let mut parts = Vec::new();
    let mut first = None;
    for number in 1..=split.count {
        let part = split.part(path, number);
        if !part.exists() {
            let message =
                format!("part {number} of {} is not there; a split model needs all of them", split.count);
            return Err(Error::new(ErrorKind::MissingShard, &part, message));
        }
        let default =
            first.as_ref().map_or(Ok(ALIGNMENT_DEFAULT), |first| alignment(first, ALIGNMENT_DEFAULT))?;
        let (metadata, catalog) = open_one(&part, default)?;
        check_part(&metadata, number, split.count)?;
        parts.push(catalog);
        first.get_or_insert(metadata);
    }
    let metadata = first.ok_or_else(|| Error::new(ErrorKind::Header, path, "a split set of no parts"))?;
    let catalog = Catalog::merge(parts, |_, _| true)?;
    match metadata.u64("split.tensors.count") {
        Some(count) if count != catalog.len() as u64 => {
            let message =
                format!("the split set should have {count} tensors, but its parts have {}", catalog.len());
            Err(Error::new(ErrorKind::Header, metadata.path(), message))
        }
        _ => Ok((metadata.path().to_owned(), metadata, catalog)),
    }
}

/// Reads the header of one file of `file.bytes` bytes from `source`. Where it names no alignment, the default holds:
/// [`ALIGNMENT_DEFAULT`], or what the first part of a split set named.
pub(crate) fn read(
    source: impl Read,
    file: File,
    alignment_default: u64,
) -> Result<(Metadata, Catalog), Error> {
    let mut header = Header { source, offset: 0, bytes: file.bytes, nested_arrays: 0, path: &file.path };
    header.version()?;
    let tensor_count = header.u64()?;
    let entry_count = header.u64()?;
    let metadata = Metadata { path: file.path.clone(), entries: header.entries(entry_count)? };
    let alignment = alignment(&metadata, alignment_default)?;
    let mut tensors = header.tensors(tensor_count, alignment)?;
    let data_start = header.offset.next_multiple_of(alignment);
    for tensor in &mut tensors {
        tensor.extent.offset = tensor.extent.offset.checked_add(data_start).ok_or_else(|| {
            Error::new(ErrorKind::OutOfRange, &file.path, "its offset exceeds 2^64").with_tensor(&tensor.name)
        })?;
    }
    Ok((metadata, Catalog::new(vec![file], tensors)?))
}

/// A file name of the pattern `prefix-00001-of-00003.gguf`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct SplitName<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) count: u32,
}

impl<'a> SplitName<'a> {
    pub(crate) fn of(path: &'a Path) -> Option<SplitName<'a>> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let parse = |digits: &str| {
            let five = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
            if five { digits.parse::<u32>().ok() } else { None }
        };
        let (number, count) = (parse(number)?, parse(count)?);
        (1..=count).contains(&number).then_some(SplitName { prefix, count })
    }

    fn part(&self, beside: &Path, number: u32) -> PathBuf {
        beside.with_file_name(format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count))
    }
}

fn open_one(path: &Path, alignment_default: u64) -> Result<(Metadata, Catalog), Error> {
    let (source, file) = disk::open(path)?;
    read(source, file, alignment_default)
}

/// Part `number` (from 1) of `count` must say that it is that part (`split.no` counts from 0).
fn check_part(metadata: &Metadata, number: u32, count: u32) -> Result<(), Error> {
    let found = (metadata.u64("split.no"), metadata.u64("split.count"));
    if found == (Some(u64::from(number) - 1), Some(count.into())) {
        return Ok(());
    }
    let show = |value: Option<u64>| value.map_or("absent".to_owned(), |value| value.to_string());
    let message = format!(
        "the name says part {number} of {count}, but split.no (from 0) is {} and split.count {}; \
         was the file renamed?",
        show(found.0),
        show(found.1)
    );
    Err(Error::new(ErrorKind::Header, metadata.path(), message))
}

fn alignment(metadata: &Metadata, default: u64) -> Result<u64, Error> {
    const KEY: &str = "general.alignment";
    if metadata.get(KEY).is_none() {
        return Ok(default);
    }
    // At most 2^31, so that the start of the data cannot overflow.
    match metadata.u64(KEY) {
        Some(alignment) if alignment.is_power_of_two() && alignment <= 1 << 31 => Ok(alignment),
        _ => Err(Error::new(ErrorKind::Header, metadata.path(), format!("{KEY} is not a power of two"))),
    }
}

/// A header while it is read; nothing is allocated for more bytes than remain of it.
struct Header<'a, R> {
    source: R,
    /// Bytes read so far.
    offset: u64,
    /// The length of the file.
    bytes: u64,
    nested_arrays: u64,
    path: &'a Path,
}

impl<R: Read> Header<'_, R> {
    fn version(&mut self) -> Result<(), Error> {
        if self.array::<4>()? != *b"GGUF" {
            return Err(self.error(ErrorKind::Header, "this is not a GGUF file: it does not begin with GGUF"));
        }
        match self.u32()? {
            2 | 3 => Ok(()),
            version if matches!(version.swap_bytes(), 1..=3) => Err(self
                .error(ErrorKind::Unsupported, "big-endian GGUF is not read; convert it to little-endian")),
            version => {
                let message =
                    format!("GGUF version {version} is not read (2 and 3 are); convert the model again");
                Err(self.error(ErrorKind::Unsupported, message))
            }
        }
    }

    fn entries(&mut self, count: u64) -> Result<BTreeMap<String, Value>, Error> {
        if count > ENTRIES_MAX {
            let message = format!("{count} metadata entries, more than the {ENTRIES_MAX} that are read");
            return Err(self.error(ErrorKind::Header, message));
        }
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let key =
                self.name(KEY_BYTES_MAX).map_err(|error| error.within(&format!("metadata entry {index}")))?;
            let value = self
                .entry()
                .map_err(|error| error.within(&format!("metadata key {:?}", name_shown(&key))))?;
            if entries.contains_key(&key) {
                return Err(self
                    .error(ErrorKind::Header, format!("metadata key {:?} occurs twice", name_shown(&key))));
            }
            entries.insert(key, value);
        }
        Ok(entries)
    }

    /// The type and the value of one entry.
    fn entry(&mut self) -> Result<Value, Error> {
        Ok(match self.value_type()? {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array()?)),
            ValueType::U32 => Value::U32(self.u32()?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array()?)),
            ValueType::U64 => Value::U64(self.u64()?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            ValueType::Bool => {
                let bytes: [u8; 1] = self.array()?;
                self.check_bools(&bytes)?;
                Value::Bool(bytes != [0])
            }
            ValueType::String => Value::String(self.text()?),
            ValueType::Array => Value::Array(self.value_array(ARRAY_DEPTH_MAX)?),
        })
    }

    fn value_array(&mut self, depth_left: u32) -> Result<Array, Error> {
        let element = self.value_type()?;
        let count = self.u64()?;
        let items = match element {
            ValueType::String => self.string_items(count)?,
            ValueType::Array => self.nested_items(count, depth_left)?,
            _ => {
                let element_bytes = element.fixed_bytes().unwrap_or(1) as u64;
                let mut bytes = Vec::new();
                self.append(count.saturating_mul(element_bytes), &mut bytes)?;
                if element == ValueType::Bool {
                    self.check_bools(&bytes)?;
                }
                Items::Fixed(bytes)
            }
        };
        Ok(Array { element, items })
    }

    fn string_items(&mut self, count: u64) -> Result<Items, Error> {
        self.check_room(count.saturating_mul(8))?;
        let mut ends = Vec::with_capacity(count as usize);
        let mut text = Vec::new();
        for _ in 0..count {
            let bytes = self.u64()?;
            self.append(bytes, &mut text)?;
            // Fits: the header is at most HEADER_BYTES_MAX long.
            ends.push(text.len() as u32);
        }
        text.shrink_to_fit();
        Ok(Items::Strings { text, ends })
    }

    fn nested_items(&mut self, count: u64, depth_left: u32) -> Result<Items, Error> {
        self.nested_arrays = self.nested_arrays.saturating_add(count);
        if depth_left == 0 || self.nested_arrays > NESTED_ARRAYS_MAX {
            let message = format!(
                "arrays nested deeper than {ARRAY_DEPTH_MAX}, or more than {NESTED_ARRAYS_MAX} arrays in arrays"
            );
            return Err(self.error(ErrorKind::Header, message));
        }
        let mut arrays = Vec::new();
        for _ in 0..count {
            arrays.push(self.value_array(depth_left - 1)?);
        }
        Ok(Items::Nested(arrays))
    }

    /// The entries of all tensors, with offsets from the start of the data.
    fn tensors(&mut self, count: u64, alignment: u64) -> Result<Vec<crate::Tensor>, Error> {
        if count > TENSORS_MAX as u64 {
            let message = format!("{count} tensors, more than the {TENSORS_MAX} that are read");
            return Err(self.error(ErrorKind::Header, message));
        }
        self.check_room(count.saturating_mul(TENSOR_ENTRY_BYTES_MIN))?;
        let mut tensors = Vec::with_capacity(count as usize);
        for index in 0..count {
            let name =
                self.name(TENSOR_NAME_BYTES_MAX).map_err(|error| error.within(&format!("tensor {index}")))?;
            tensors.push(self.tensor(&name, alignment).map_err(|error| error.with_tensor(&name))?);
        }
        Ok(tensors)
    }

    fn tensor(&mut self, name: &str, alignment: u64) -> Result<crate::Tensor, Error> {
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS_MAX {
            let message =
                format!("{dimensions} dimensions, more than the {DIMENSIONS_MAX} that the format has");
            return Err(self.error(ErrorKind::Header, message));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64()?);
        }
        // The file has the contiguous dimension first.
        shape.reverse();
        let id = self.u32()?;
        let dtype = DType::from_ggml(id).ok_or_else(|| {
            let message = format!("ggml type {id} is not known (withdrawn, or newer than this program)");
            self.error(ErrorKind::UnknownDType, message)
        })?;
        let offset = self.u64()?;
        if !offset.is_multiple_of(alignment) {
            let message = format!("its offset {offset} is not a multiple of the alignment {alignment}");
            return Err(self.error(ErrorKind::Header, message));
        }
        let bytes =
            bytes_of(dtype, &shape).map_err(|message| self.error(ErrorKind::ShapeMismatch, message))?;
        let extent = Extent { file: FileId(0), offset, bytes };
        Ok(crate::Tensor { name: name.to_owned(), dtype, shape, extent })
    }

    fn check_bools(&self, bytes: &[u8]) -> Result<(), Error> {
        match bytes.iter().find(|&&byte| byte > 1) {
            Some(byte) => Err(self.error(ErrorKind::Header, format!("{byte} is not a truth value (0 or 1)"))),
            None => Ok(()),
        }
    }

    fn value_type(&mut self) -> Result<ValueType, Error> {
        let id = self.u32()?;
        ValueType::from_id(id)
            .ok_or_else(|| self.error(ErrorKind::Header, format!("metadata value type {id} is not known")))
    }

    /// A key or a tensor's name: UTF-8, of at most `bytes_max` bytes.
    fn name(&mut self, bytes_max: u64) -> Result<String, Error> {
        let bytes = self.u64()?;
        if bytes > bytes_max {
            let message = format!("a name of {bytes} bytes, more than the {bytes_max} that are read");
            return Err(self.error(ErrorKind::Header, message));
        }
        let mut name = Vec::new();
        self.append(bytes, &mut name)?;
        String::from_utf8(name).map_err(|_| self.error(ErrorKind::Header, "a name is not UTF-8"))
    }

    fn text(&mut self) -> Result<String, Error> {
        let bytes = self.u64()?;
        let mut text = Vec::new();
        self.append(bytes, &mut text)?;
        Ok(String::from_utf8(text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.check_room(N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&mut self, bytes: u64, to: &mut Vec<u8>) -> Result<(), Error> {
        self.check_room(bytes)?;
        let start = to.len();
        // Fits: it is at most HEADER_BYTES_MAX.
        to.resize(start + bytes as usize, 0);
        self.fill(to.get_mut(start..).unwrap_or_default())
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<(), Error> {
        self.source.read_exact(to).map_err(|error| Error::io(self.path, "read the header", error))?;
        self.offset += to.len() as u64;
        Ok(())
    }

    /// Whether `bytes` more bytes can belong to the header.
    fn check_room(&self, bytes: u64) -> Result<(), Error> {
        if bytes > self.bytes.saturating_sub(self.offset) {
            let message = format!(
                "the header needs {bytes} bytes at offset {}, but the file has only {}; if it was downloaded or \
                 copied, that was not finished",
                self.offset, self.bytes
            );
            return Err(self.error(ErrorKind::Truncated, message));
        }
        if bytes > HEADER_BYTES_MAX.saturating_sub(self.offset) {
            let message = format!("the header is longer than the {HEADER_BYTES_MAX} bytes that are read");
            return Err(self.error(ErrorKind::Header, message));
        }
        Ok(())
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, self.path, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_names_are_recognised() {
        let cases = [
            ("dir/m-00001-of-00003.gguf", Some(("m", 3))),
            ("a-b-00003-of-00003.gguf", Some(("a-b", 3))),
            ("m-00004-of-00003.gguf", None),
            ("m-00000-of-00003.gguf", None),
            ("m-1-of-3.gguf", None),
            ("m-+0001-of-00003.gguf", None),
            ("m-00001-of-00003.safetensors", None),
            ("m.gguf", None),
        ];
        for (name, expected) in cases {
            let expected = expected.map(|(prefix, count)| SplitName { prefix, count });
            assert_eq!(SplitName::of(Path::new(name)), expected, "{name}");
        }
    }
}
