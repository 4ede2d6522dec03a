//! Reading JSON that may be hostile: bounded in what it holds, and with the numbers that only Python writes.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use aerostat_input::json_of_python;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

use crate::error::Error;

/// The size of a tokenizer file beyond which it is not read.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 64 << 20;

/// The size of a configuration or template file beyond which it is not read.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The most values that a small part of a file may consist of.
const SMALL_VALUES_MAX: usize = 100_000;

/// The most bytes of text in it.
const SMALL_BYTES_MAX: usize = 8 << 20;

/// The most steps of one kind that a tokenizer may have.
const PARTS_MAX: usize = 64;

/// How deep lists of steps may be nested.
const PARTS_DEPTH_MAX: usize = 8;

/// Opens a regular file of at most `bytes_max` bytes.
pub(crate) fn open(path: &Path, bytes_max: u64) -> Result<BufReader<File>, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
    if !metadata.is_file() {
        return Err(Error::malformed(format!("{} is not a regular file", path.display())));
    }
    let bytes = metadata.len();
    if bytes > bytes_max {
        let message = format!("{} has {bytes} bytes; at most {bytes_max} are read", path.display());
        return Err(Error::malformed(message));
    }
    let file = File::open(path).map_err(|error| Error::io(path, &error))?;
    Ok(BufReader::with_capacity(1 << 16, file))
}

/// All bytes of a file of at most `bytes_max`.
pub(crate) fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    open(path, bytes_max)?
        .take(bytes_max)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io(path, &error))?;
    Ok(bytes)
}

/// Reads a text file of moderate size.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = read_bytes(path, CONFIG_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| Error::malformed(format!("{} is not UTF-8", path.display())))
}

/// Reads a JSON file of moderate size.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = read_bytes(path, CONFIG_BYTES_MAX)?;
    json_of_python(&bytes).map_err(|error| {
        Error::malformed(format!("{}: {}", path.display(), crate::error::clip(&error.to_string())))
    })
}

/// The steps of one kind: none for null, those of a `Sequence` under its field `list`, else the one there is.
pub(crate) fn parts<'a>(value: &'a Value, list: &str) -> Result<Vec<&'a Value>, Error> {
    fn collect<'a>(
        value: &'a Value,
        list: &str,
        depth: usize,
        steps: &mut Vec<&'a Value>,
    ) -> Result<(), Error> {
        if value.get("type").and_then(Value::as_str) != Some("Sequence") {
            steps.push(value);
        } else {
            let inner = value.get(list).and_then(Value::as_array);
            let inner = inner.ok_or_else(|| Error::malformed(format!("a Sequence without {list}")))?;
            if depth == PARTS_DEPTH_MAX {
                return Err(Error::malformed(format!("{list} are nested more than {PARTS_DEPTH_MAX} deep")));
            }
            inner.iter().try_for_each(|step| collect(step, list, depth + 1, steps))?;
        }
        if steps.len() > PARTS_MAX {
            return Err(Error::malformed(format!("there are more than {PARTS_MAX} {list}")));
        }
        Ok(())
    }
    let mut steps = Vec::new();
    if !value.is_null() {
        collect(value, list, 0, &mut steps)?;
    }
    Ok(steps)
}

/// A JSON value of bounded size.
#[derive(Default, Clone)]
pub(crate) struct Small(pub(crate) Value);

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = (Cell::new(SMALL_VALUES_MAX), Cell::new(SMALL_BYTES_MAX));
        Bounded(&left).deserialize(deserializer).map(Small)
    }
}

/// Reads a value as long as there are values and bytes left.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a (Cell<usize>, Cell<usize>));

impl Bounded<'_> {
    fn spend<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let (values, left) = self.0;
        let too_much =
            || E::custom(format!("a part of more than {SMALL_VALUES_MAX} values or {SMALL_BYTES_MAX} bytes"));
        values.set(values.get().checked_sub(1).ok_or_else(too_much)?);
        left.set(left.get().checked_sub(bytes).ok_or_else(too_much)?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.spend(0).map(|()| Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.spend(value.len()).map(|()| value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.spend::<A::Error>(key.len())?;
            values.insert(key, map.next_value_seed(self)?);
        }
        Ok(values.into())
    }
}
