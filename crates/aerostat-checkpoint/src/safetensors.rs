//! Reading safetensors headers and the index of sharded models.
//!
//! Source: the format description in the safetensors repository. A file is the length of a JSON header (8 bytes,
//! little-endian), the header, and the bytes of all tensors without holes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::catalog::bytes_of;
use crate::limits::{DIMENSIONS_MAX, HEADER_BYTES_MAX, TENSORS_MAX};
use crate::name_shown;
use crate::{Catalog, DType, Error, ErrorKind, Extent, File, FileId, Tensor, disk};

const LENGTH_BYTES: u64 = 8;

/// Opens one safetensors file.
pub(crate) fn open(path: &Path) -> Result<Catalog, Error> {
    let (source, file) = disk::open(path)?;
    read(source, file)
}

/// Reads the header of one file of `file.bytes` bytes from `source`.
pub(crate) fn read(mut source: impl Read, file: File) -> Result<Catalog, Error> {
    let path = file.path.as_path();
    let mut length = [0; LENGTH_BYTES as usize];
    source
        .read_exact(&mut length)
        .map_err(|error| Error::io(path, "read the length of the header", error))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_BYTES_MAX {
        let message = format!(
            "the header would be {header_bytes} bytes long, more than the {HEADER_BYTES_MAX} that the format \
             allows; is this a safetensors file?"
        );
        return Err(Error::new(ErrorKind::Header, path, message));
    }
    let data_start = LENGTH_BYTES + header_bytes;
    if data_start > file.bytes {
        let message = format!(
            "the header ends at offset {data_start}, but the file has only {} bytes; if it was downloaded or \
             copied, that was not finished",
            file.bytes
        );
        return Err(Error::new(ErrorKind::Truncated, path, message));
    }
    let header = disk::read_bytes(source, header_bytes, path)?;
    let tensors = parse_header(&header, data_start, path)?;
    let catalog = Catalog::new(vec![file], tensors)?;
    check_coverage(&catalog, data_start)?;
    Ok(catalog)
}

/// `model.safetensors.index.json` and its like: which shard holds which tensor.
pub(crate) struct Index<'a> {
    /// The file names of the shards, sorted.
    pub(crate) shards: Vec<Cow<'a, str>>,
    /// Names of tensors and indices into `shards`, sorted by name.
    pub(crate) tensors: Vec<(Cow<'a, str>, usize)>,
}

impl<'a> Index<'a> {
    /// Reads an index; `path` is for errors.
    pub(crate) fn parse(json: &'a [u8], path: &Path) -> Result<Index<'a>, Error> {
        let fail = |message: String| Error::new(ErrorKind::Header, path, message);
        let file: IndexFile = serde_json::from_slice(json).map_err(|error| fail(error.to_string()))?;
        let WeightMap { shards: numbers, mut tensors } = file.weight_map;
        // Shards are numbered as they come; the catalogue wants them in the order of their names.
        let mut order = vec![0; numbers.len()];
        let mut shards = Vec::with_capacity(numbers.len());
        for (position, (shard, number)) in numbers.into_iter().enumerate() {
            if shard.is_empty() || shard.starts_with('.') || shard.contains(['/', '\\', '\0']) {
                return Err(fail(format!(
                    "the shard {shard:?} is not the name of a file in the same folder"
                )));
            }
            if let Some(slot) = order.get_mut(number) {
                *slot = position;
            }
            shards.push(shard);
        }
        for (_, shard) in &mut tensors {
            *shard = order.get(*shard).copied().unwrap_or_default();
        }
        tensors.sort();
        let twice = tensors.windows(2).find_map(|pair| match pair {
            [(a, _), (b, _)] if a == b => Some(a),
            _ => None,
        });
        if let Some(name) = twice {
            return Err(fail("the name occurs twice in the index".to_owned()).with_tensor(name));
        }
        Ok(Index { shards, tensors })
    }

    /// The index into `shards` of the shard that should hold the tensor called `name`.
    pub(crate) fn shard_of(&self, name: &str) -> Option<usize> {
        let position = self.tensors.binary_search_by(|(other, _)| other.as_ref().cmp(name)).ok()?;
        self.tensors.get(position).map(|&(_, shard)| shard)
    }
}

fn parse_header(header: &[u8], data_start: u64, path: &Path) -> Result<Vec<Tensor>, Error> {
    let mut current = None;
    let mut json = serde_json::Deserializer::from_slice(header);
    let parsed = Entries { current: &mut current }.deserialize(&mut json).and_then(|entries| {
        json.end()?;
        Ok(entries)
    });
    let entries = parsed.map_err(|error| {
        let error = Error::new(ErrorKind::Header, path, format!("the header is malformed: {error}"));
        match &current {
            Some(name) => error.with_tensor(name),
            None => error,
        }
    })?;
    entries
        .into_iter()
        .map(|(name, entry)| {
            tensor(&name, entry, data_start)
                .map_err(|(kind, message)| Error::new(kind, path, message).with_tensor(&name))
        })
        .collect()
}

fn tensor(name: &str, entry: Entry<'_>, data_start: u64) -> Result<Tensor, (ErrorKind, String)> {
    let dtype = DType::from_safetensors(&entry.dtype).ok_or_else(|| {
        (ErrorKind::UnknownDType, format!("its dtype {:?} is not known", name_shown(&entry.dtype)))
    })?;
    let (begin, end) = entry.data_offsets;
    let bytes = end
        .checked_sub(begin)
        .ok_or_else(|| (ErrorKind::Header, format!("its data_offsets {begin}..{end} run backwards")))?;
    let shape = entry.shape.0;
    let expected = bytes_of(dtype, &shape).map_err(|message| (ErrorKind::ShapeMismatch, message))?;
    if bytes != expected {
        let message = format!(
            "{dtype} of the shape {shape:?} takes {expected} bytes, but data_offsets {begin}..{end} give it {bytes}"
        );
        return Err((ErrorKind::ShapeMismatch, message));
    }
    let offset = data_start
        .checked_add(begin)
        .ok_or_else(|| (ErrorKind::OutOfRange, format!("its data_offsets {begin}..{end} exceed 2^64")))?;
    Ok(Tensor { name: name.to_owned(), dtype, shape, extent: Extent { file: FileId(0), offset, bytes } })
}

/// The tensors of a file must cover its data without holes.
fn check_coverage(catalog: &Catalog, data_start: u64) -> Result<(), Error> {
    let mut end = data_start;
    for tensor in catalog.tensors() {
        if tensor.extent.offset != end {
            let message =
                format!("it begins at offset {}, but the one before ends at {end}", tensor.extent.offset);
            let error = Error::new(ErrorKind::Header, catalog.file_of(tensor), message);
            return Err(error.with_tensor(&tensor.name));
        }
        end = end.saturating_add(tensor.extent.bytes);
    }
    match catalog.files().first() {
        Some(file) if file.bytes != end => {
            let message = format!("the tensors end at offset {end}, but the file has {} bytes", file.bytes);
            Err(Error::new(ErrorKind::Header, &file.path, message))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A shape of at most [`DIMENSIONS_MAX`] dimensions.
struct Shape(Vec<u64>);

/// The tensors of a header in its order; `current` is the name of the entry that is being read.
struct Entries<'a> {
    current: &'a mut Option<String>,
}

#[derive(Deserialize)]
struct IndexFile<'a> {
    #[serde(borrow)]
    weight_map: WeightMap<'a>,
}

/// A map from tensors to shards in which the name of a shard is stored once.
struct WeightMap<'a> {
    /// Names and numbers of the shards.
    shards: BTreeMap<Cow<'a, str>, usize>,
    /// Names of tensors and numbers of their shards.
    tensors: Vec<(Cow<'a, str>, usize)>,
}

/// A string that is borrowed where JSON does not escape it.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {DIMENSIONS_MAX} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dimension) = sequence.next_element()? {
                    if shape.len() == DIMENSIONS_MAX {
                        return Err(de::Error::custom(format_args!("more than {DIMENSIONS_MAX} dimensions")));
                    }
                    shape.push(dimension);
                }
                shape.shrink_to_fit();
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Vec<(String, Entry<'de>)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Vec<(String, Entry<'de>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry per tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == TENSORS_MAX {
                return Err(de::Error::custom(format_args!("more than {TENSORS_MAX} tensors")));
            }
            match map.next_value() {
                Ok(entry) => entries.push((name, entry)),
                Err(error) => {
                    *self.current = Some(name);
                    return Err(error);
                }
            }
        }
        Ok(entries)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for WeightMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightMap<'a>, D::Error> {
        struct WeightMapVisitor;
        impl<'de> Visitor<'de> for WeightMapVisitor {
            type Value = WeightMap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that names the shard of every tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap<'de>, A::Error> {
                let mut weights = WeightMap { shards: BTreeMap::new(), tensors: Vec::new() };
                while let Some((Text(name), Text(shard))) = map.next_entry()? {
                    if weights.tensors.len() == TENSORS_MAX {
                        return Err(de::Error::custom(format_args!("more than {TENSORS_MAX} tensors")));
                    }
                    let count = weights.shards.len();
                    let number = *weights.shards.entry(shard).or_insert(count);
                    weights.tensors.push((name, number));
                }
                Ok(weights)
            }
        }
        deserializer.deserialize_map(WeightMapVisitor)
    }
}
