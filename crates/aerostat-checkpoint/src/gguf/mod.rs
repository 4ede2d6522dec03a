//! GGUF metadata: typed values under dotted keys, and the reader of GGUF headers.
//!
//! Source: the GGUF specification in ggml's `docs/gguf.md`; versions 2 and 3, little-endian.

mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use read::{ALIGNMENT_DEFAULT, SplitName, open, read};

/// The key-value section of a GGUF file (of a split set: of its first part).
#[derive(Clone, Debug)]
pub struct Metadata {
    path: PathBuf,
    entries: BTreeMap<String, Value>,
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are the types they hold")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    /// Bytes that are not UTF-8 are replaced by U+FFFD.
    String(String),
    Array(Array),
}

/// The type of a value or of an array's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the variants are the types they name")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// An array of the metadata, kept as its bytes: a vocabulary costs 4 bytes per entry more than its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    element: ValueType,
    items: Items,
}

#[derive(Clone, Debug, PartialEq)]
enum Items {
    /// Little-endian elements of one fixed size, one after the other.
    Fixed(Vec<u8>),
    /// The text of all strings, and the end of each in it.
    Strings {
        text: Vec<u8>,
        ends: Vec<u32>,
    },
    Nested(Vec<Array>),
}

impl Metadata {
    /// Metadata made from entries, as a file at `path` would hold them; of equal keys the last counts.
    pub fn new(path: impl Into<PathBuf>, entries: impl IntoIterator<Item = (String, Value)>) -> Metadata {
        Metadata { path: path.into(), entries: entries.into_iter().collect() }
    }

    /// The file the metadata is from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The string under `key`.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// The integer under `key`, of whatever integer type, if it is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.int(key)?.try_into().ok()
    }

    /// The integer under `key`, of whatever integer type, if it fits.
    pub fn i64(&self, key: &str) -> Option<i64> {
        self.int(key)?.try_into().ok()
    }

    /// The floating-point number under `key`; one of 64 bits is rounded.
    pub fn f32(&self, key: &str) -> Option<f32> {
        match *self.get(key)? {
            Value::F32(value) => Some(value),
            Value::F64(value) => Some(value as f32),
            _ => None,
        }
    }

    /// The floating-point number under `key`.
    pub fn f64(&self, key: &str) -> Option<f64> {
        match *self.get(key)? {
            Value::F32(value) => Some(value.into()),
            Value::F64(value) => Some(value),
            _ => None,
        }
    }

    /// The truth value under `key`.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match *self.get(key)? {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The array under `key`.
    pub fn array(&self, key: &str) -> Option<&Array> {
        match self.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    fn int(&self, key: &str) -> Option<i128> {
        Some(match *self.get(key)? {
            Value::U8(value) => value.into(),
            Value::I8(value) => value.into(),
            Value::U16(value) => value.into(),
            Value::I16(value) => value.into(),
            Value::U32(value) => value.into(),
            Value::I32(value) => value.into(),
            Value::U64(value) => value.into(),
            Value::I64(value) => value.into(),
            _ => return None,
        })
    }
}

impl Value {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F32(_) => ValueType::F32,
            Value::F64(_) => ValueType::F64,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
        }
    }
}

impl ValueType {
    /// The type with the number `id` in the GGUF specification.
    fn from_id(id: u32) -> Option<ValueType> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64].get(id as usize).copied()
    }

    /// Bytes of one value; `None` for strings and arrays, which have no fixed size.
    fn fixed_bytes(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }
}

impl Array {
    /// An array of strings, as a file would hold it. `None` if the strings take more than 2^32 bytes together.
    pub fn from_strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Option<Array> {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for string in strings {
            text.extend_from_slice(string.as_ref());
            ends.push(u32::try_from(text.len()).ok()?);
        }
        Some(Array { element: ValueType::String, items: Items::Strings { text, ends } })
    }

    /// An array of [`ValueType::F32`].
    pub fn from_f32s(values: impl IntoIterator<Item = f32>) -> Array {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Array { element: ValueType::F32, items: Items::Fixed(bytes) }
    }

    /// An array of [`ValueType::I32`].
    pub fn from_i32s(values: impl IntoIterator<Item = i32>) -> Array {
        let bytes = values.into_iter().flat_map(i32::to_le_bytes).collect();
        Array { element: ValueType::I32, items: Items::Fixed(bytes) }
    }

    /// An array of [`ValueType::Bool`].
    pub fn from_bools(values: impl IntoIterator<Item = bool>) -> Array {
        Array { element: ValueType::Bool, items: Items::Fixed(values.into_iter().map(u8::from).collect()) }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Fixed(bytes) => bytes.len() / self.element.fixed_bytes().unwrap_or(1),
            Items::Strings { ends, .. } => ends.len(),
            Items::Nested(arrays) => arrays.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The elements of an array of strings. They need not be UTF-8: byte-level vocabularies hold pieces of characters.
    pub fn strings(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let Items::Strings { text, ends } = &self.items else { return None };
        let mut start = 0;
        Some(ends.iter().map(move |&end| {
            let string = text.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            string
        }))
    }

    /// The elements of an array of floating-point numbers; those of 64 bits are rounded.
    pub fn f32s(&self) -> Option<impl Iterator<Item = f32>> {
        let decode: fn(&[u8]) -> f32 = match self.element {
            ValueType::F32 => |bytes| f32::from_le_bytes(low(bytes)),
            ValueType::F64 => |bytes| f64::from_le_bytes(low(bytes)) as f32,
            _ => return None,
        };
        Some(self.fixed()?.map(decode))
    }

    /// The elements of an array of numbers, in `f32`: of floating-point numbers as [`f32s`](Self::f32s), and of integers, which
    /// some converters write in their place, the nearest.
    pub fn numbers(&self) -> Option<Vec<f32>> {
        match self.f32s() {
            Some(floats) => Some(floats.collect()),
            None => Some(self.ints()?.map(|n| n as f32).collect()),
        }
    }

    /// The elements of an array of integers of any type; `None` if one does not fit 64 bits with sign.
    pub fn ints(&self) -> Option<impl Iterator<Item = i64>> {
        let decode: fn(&[u8]) -> i64 = match self.element {
            ValueType::U8 => |bytes| u8::from_le_bytes(low(bytes)).into(),
            ValueType::I8 => |bytes| i8::from_le_bytes(low(bytes)).into(),
            ValueType::U16 => |bytes| u16::from_le_bytes(low(bytes)).into(),
            ValueType::I16 => |bytes| i16::from_le_bytes(low(bytes)).into(),
            ValueType::U32 => |bytes| u32::from_le_bytes(low(bytes)).into(),
            ValueType::I32 => |bytes| i32::from_le_bytes(low(bytes)).into(),
            ValueType::U64 | ValueType::I64 => |bytes| i64::from_le_bytes(low(bytes)),
            _ => return None,
        };
        if self.element == ValueType::U64 && self.fixed()?.map(decode).any(i64::is_negative) {
            return None;
        }
        Some(self.fixed()?.map(decode))
    }

    /// The elements of an array of truth values.
    pub fn bools(&self) -> Option<impl Iterator<Item = bool>> {
        if self.element != ValueType::Bool {
            return None;
        }
        Some(self.fixed()?.map(|bytes| bytes != [0]))
    }

    /// The elements of an array of arrays.
    pub fn arrays(&self) -> Option<impl Iterator<Item = &Array>> {
        match &self.items {
            Items::Nested(arrays) => Some(arrays.iter()),
            _ => None,
        }
    }

    fn fixed(&self) -> Option<std::slice::ChunksExact<'_, u8>> {
        match &self.items {
            Items::Fixed(bytes) => Some(bytes.chunks_exact(self.element.fixed_bytes()?)),
            _ => None,
        }
    }
}

/// The first N bytes of a chunk; chunks have the length that their type demands.
fn low<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}
