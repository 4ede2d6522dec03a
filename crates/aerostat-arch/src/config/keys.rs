//! One way to ask for a configuration value, whether it stands in `config.json` or in GGUF metadata.

use std::path::Path;

use aerostat_checkpoint::{Config, HfConfig, NAME_CHARS_MAX, gguf::Metadata, shortened};
use serde_json::{Map, Value};

use super::choice::model_type;
use super::class::Class;
use super::towers;
use crate::error::{Error, ErrorKind};
use crate::family::{Family, Key};

/// The most of anything but positions: heads, their elements, widths. Products of three of them are far from 2^64.
pub(crate) const COUNT_MAX: u64 = 1 << 20;
/// The most positions.
pub(crate) const POSITIONS_MAX: u64 = 1 << 40;

/// A checkpoint's configuration.
pub(crate) enum Keys<'a> {
    HuggingFace(&'a HfConfig),
    Gguf(&'a Metadata, &'a str),
}

impl<'a> Keys<'a> {
    pub(crate) fn new(config: &'a Config) -> Result<Self, Error> {
        match config {
            Config::HuggingFace(hf) => Ok(Self::HuggingFace(hf)),
            Config::Gguf(meta) => match meta.str("general.architecture") {
                Some(arch) => Ok(Self::Gguf(meta, arch)),
                None => Err(Error::new(ErrorKind::Config, meta.path(), "`general.architecture` is missing")),
            },
        }
    }

    /// The configuration as the class of its model type reads it, where there are classes: with every key that it knows, and
    /// no other. In a checkpoint of several towers that is said of the text tower.
    pub(crate) fn as_read(&self, family: &Family) -> Result<Option<HfConfig>, Error> {
        let Self::HuggingFace(hf) = self else { return Ok(None) };
        let given = model_type(self)?;
        let known = family.model_types.iter().find(|known| given == Some(**known));
        let known = known.or(family.model_types.first()).copied();
        let known = known.ok_or_else(|| self.defect(format!("{} has no model type", family.name)))?;
        let class = Class::of(known)
            .ok_or_else(|| self.defect(format!("nothing is known of the class of `{known}`")))?;
        let text = text_config(hf);
        let text_given = text.as_object().ok_or_else(|| self.config("it is not an object"))?;
        let is_tower = !std::ptr::eq(text, &hf.config);
        let outer = hf.config.get("model_type").and_then(Value::as_str).filter(|_| is_tower);
        let mut full = outer.map_or_else(Map::new, towers::text_defaults);
        full.extend(text_given.iter().map(|(key, value)| (key.clone(), value.clone())));
        let read = class.read(&full);
        let mut whole = (*hf).clone();
        match whole.config.get_mut("text_config").filter(|_| is_tower) {
            Some(tower) => *tower = Value::Object(read),
            None => whole.config = Value::Object(read),
        }
        Ok(Some(whole))
    }

    /// The file the values come from.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::HuggingFace(hf) => &hf.path,
            Self::Gguf(meta, _) => meta.path(),
        }
    }

    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self, Self::Gguf(..))
    }

    /// A value of `config.json`, that of the text tower where there are several; `null` counts as absent. What lies in an
    /// object is named with it, parted by a full stop. Nothing in GGUF.
    pub(crate) fn json(&self, key: &str) -> Option<&'a Value> {
        match self {
            Self::HuggingFace(hf) => {
                let mut parts = key.split('.');
                parts.try_fold(text_config(hf), |value, part| value.get(part)).filter(|v| !v.is_null())
            }
            Self::Gguf(..) => None,
        }
    }

    /// A value of the whole of `config.json`, whatever its towers.
    pub(crate) fn whole(&self, key: &str) -> Option<&'a Value> {
        match self {
            Self::HuggingFace(hf) => hf.config.get(key).filter(|v| !v.is_null()),
            Self::Gguf(..) => None,
        }
    }

    /// The type of the text tower, if this is a checkpoint of several towers.
    pub(crate) fn text_tower(&self) -> Option<&'a str> {
        let Self::HuggingFace(hf) = self else { return None };
        let named = hf.config.get("text_config").and_then(|text| text.get("model_type"));
        towers::text_type(hf.config.get("model_type")?.as_str()?)
            .map(|usual| named.and_then(Value::as_str).unwrap_or(usual))
    }

    /// Whether the head is that of the text model's own class: the classes of several towers have one of theirs, which neither
    /// scales logits nor caps them, but for those of Gemma 3n and 4.
    pub(crate) fn has_own_head(&self) -> bool {
        self.text_tower().is_none()
            || matches!(self.whole("model_type").and_then(Value::as_str), Some("gemma4" | "gemma3n"))
    }

    /// Whether `config.json` holds the key with the value `null`.
    pub(crate) fn is_null(&self, key: &Key) -> Result<bool, Error> {
        let Self::HuggingFace(hf) = self else { return Ok(false) };
        Ok(text_config(hf).get(self.name(key)?).is_some_and(Value::is_null))
    }

    /// A number, if it is there.
    pub(crate) fn number(&self, key: &Key) -> Result<Option<f64>, Error> {
        let name = self.name(key)?;
        match self {
            Self::HuggingFace(_) => match self.json(&name) {
                None => Ok(None),
                Some(v) => json_number(v).map(Some).ok_or_else(|| self.wrong(&name, "a number", v)),
            },
            Self::Gguf(meta, _) => Ok(gguf_number(meta, &name)),
        }
    }

    /// A count that must be there and be at least 1.
    pub(crate) fn count(&self, key: &Key) -> Result<usize, Error> {
        match self.count_if_given(key)? {
            Some(n) => Ok(n),
            None => Err(self.config(format!("`{}` is missing", self.name(key)?))),
        }
    }

    /// A count of at least 1, or the default.
    pub(crate) fn count_or(&self, key: &Key, default: usize) -> Result<usize, Error> {
        Ok(self.count_if_given(key)?.unwrap_or(default))
    }

    /// A count of at least 1, if it is there.
    pub(crate) fn count_if_given(&self, key: &Key) -> Result<Option<usize>, Error> {
        self.whole_number(key, COUNT_MAX)
    }

    /// A number of positions, at least 1, if it is there.
    pub(crate) fn positions_if_given(&self, key: &Key) -> Result<Option<usize>, Error> {
        self.whole_number(key, POSITIONS_MAX)
    }

    fn whole_number(&self, key: &Key, max: u64) -> Result<Option<usize>, Error> {
        match self.number(key)? {
            None => Ok(None),
            Some(n) if (1.0..=max as f64).contains(&n) && n.fract() == 0.0 => Ok(Some(n as usize)),
            Some(n) => Err(self
                .config(format!("`{}` is {n}; a whole number from 1 to {max} is needed", self.name(key)?))),
        }
    }

    /// Whether the class of the configuration reads a key, whatever its value.
    pub(crate) fn reads(&self, key: &str) -> bool {
        match self {
            Self::HuggingFace(hf) => text_config(hf).get(key).is_some(),
            Self::Gguf(..) => false,
        }
    }

    /// A number of `config.json`, if it is there and not `null`; what lies in an object is named with it.
    pub(crate) fn json_number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.json(key) {
            None => Ok(None),
            Some(v) => v.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number", v)),
        }
    }

    /// A whole number of at least 0 of `config.json`.
    pub(crate) fn json_whole(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.json(key) {
            None => Ok(None),
            Some(v) => v.as_u64().map(Some).ok_or_else(|| self.wrong(key, "a whole number", v)),
        }
    }

    /// A list of `config.json`.
    pub(crate) fn json_list(&self, key: &str) -> Result<Option<&'a [Value]>, Error> {
        match self.json(key) {
            None => Ok(None),
            Some(v) => {
                v.as_array().map(|list| Some(list.as_slice())).ok_or_else(|| self.wrong(key, "a list", v))
            }
        }
    }

    /// An object of `config.json`.
    pub(crate) fn json_object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, Error> {
        match self.json(key) {
            None => Ok(None),
            Some(v) => v.as_object().map(Some).ok_or_else(|| self.wrong(key, "an object", v)),
        }
    }

    /// A boolean of `config.json`; the default where it is absent, and false where it is `null`, as Python has it.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.json(key) {
            None => Ok(default && !self.reads(key)),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(key, "true or false", v)),
        }
    }

    /// A boolean in either world, or the default.
    pub(crate) fn switch(&self, key: &Key, default: bool) -> Result<bool, Error> {
        let name = self.name(key)?;
        match self {
            Self::HuggingFace(_) => self.flag(&name, default),
            Self::Gguf(meta, _) => Ok(meta.bool(&name).unwrap_or(default)),
        }
    }

    /// A string of `config.json`.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        match self.json(key) {
            None => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", v)),
        }
    }

    /// A number of GGUF metadata under the architecture's name.
    pub(crate) fn gguf_number(&self, key: &str) -> Option<f64> {
        match self {
            Self::HuggingFace(_) => None,
            Self::Gguf(meta, arch) => gguf_number(meta, &format!("{arch}.{key}")),
        }
    }

    /// A list of whole numbers that differ, if that is how a value is given.
    pub(crate) fn counts_listed(&self, key: &Key) -> Result<Option<Vec<usize>>, Error> {
        let name = self.name(key)?;
        let numbers: Option<Vec<i64>> = match self {
            Self::HuggingFace(_) => {
                let list = self.json(&name).and_then(Value::as_array);
                list.map(|list| list.iter().map(|v| v.as_i64().unwrap_or(0)).collect())
            }
            Self::Gguf(meta, _) => meta.array(&name).and_then(|array| array.ints()).map(Iterator::collect),
        };
        let Some(numbers) = numbers else { return Ok(None) };
        if numbers.iter().min() == numbers.iter().max() {
            return Ok(None);
        }
        let count = |n: i64| usize::try_from(n).ok().filter(|n| (1..=COUNT_MAX as usize).contains(n));
        let counts = numbers.into_iter().map(count).collect::<Option<Vec<_>>>();
        let wrong = || self.config(format!("`{name}` must be whole numbers from 1 to {COUNT_MAX}"));
        counts.map(Some).ok_or_else(wrong)
    }

    /// A list of numbers of GGUF metadata under the architecture's name.
    pub(crate) fn gguf_floats(&self, key: &str) -> Option<Vec<f32>> {
        let Self::Gguf(meta, arch) = self else { return None };
        meta.array(&format!("{arch}.{key}"))?.numbers()
    }

    /// A list of GGUF metadata under the architecture's name, of truths.
    pub(crate) fn gguf_flags(&self, key: &str) -> Option<Vec<bool>> {
        let Self::Gguf(meta, arch) = self else { return None };
        Some(meta.array(&format!("{arch}.{key}"))?.bools()?.collect())
    }

    /// A string of GGUF metadata under the architecture's name.
    pub(crate) fn gguf_text(&self, key: &str) -> Option<&'a str> {
        match self {
            Self::HuggingFace(_) => None,
            Self::Gguf(meta, arch) => meta.str(&format!("{arch}.{key}")),
        }
    }

    /// The key's name in this file; where it has several, the one that the file gives a value, else the one that it holds, else
    /// the usual one.
    pub(crate) fn name(&self, key: &Key) -> Result<String, Error> {
        let nameless = || self.defect(format!("a configuration value has no name here: {key:?}"));
        match self {
            Self::HuggingFace(hf) => {
                let usual = key.hugging_face.first().ok_or_else(nameless)?;
                let text = text_config(hf);
                let mut names = key.hugging_face.iter();
                let given = names.clone().find(|name| text.get(**name).is_some_and(|value| !value.is_null()));
                let held = given.or_else(|| names.find(|name| text.get(**name).is_some()));
                Ok((*held.unwrap_or(usual)).to_owned())
            }
            Self::Gguf(..) if key.gguf.is_empty() => Err(nameless()),
            Self::Gguf(_, arch) => Ok(format!("{arch}.{}", key.gguf)),
        }
    }

    /// A defect of this crate, met while this configuration was read.
    pub(crate) fn defect(&self, what: impl std::fmt::Display) -> Error {
        Error::defect(self.path(), what)
    }

    pub(crate) fn config(&self, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Config, self.path(), message)
    }

    pub(crate) fn unsupported(&self, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, self.path(), message)
    }

    pub(crate) fn wrong(&self, key: &str, wanted: &str, found: &Value) -> Error {
        self.config(format!(
            "`{key}` is {}; {wanted} is needed",
            shortened(&found.to_string(), NAME_CHARS_MAX)
        ))
    }
}

/// The configuration of the text tower.
pub(crate) fn text_config(hf: &HfConfig) -> &Value {
    let tower = hf.config.get("model_type").and_then(Value::as_str).and_then(towers::text_type);
    hf.config.get("text_config").filter(|text| tower.is_some() && text.is_object()).unwrap_or(&hf.config)
}

/// A number; where layers may differ and the value is a list, its only distinct element.
fn json_number(value: &Value) -> Option<f64> {
    match value.as_array() {
        None => value.as_f64(),
        Some(list) => list.first().filter(|first| list.iter().all(|v| v == *first))?.as_f64(),
    }
}

/// A number of any type; where layers may differ and the value is a list, its only distinct element, but for zeros: layers without a
/// part have none of its numbers.
fn gguf_number(meta: &Metadata, key: &str) -> Option<f64> {
    if let Some(n) = meta.f64(key).or_else(|| meta.i64(key).map(|n| n as f64)) {
        return Some(n);
    }
    let mut numbers = meta.array(key)?.ints()?.peekable();
    numbers.peek()?;
    let mut values = numbers.filter(|v| *v != 0);
    let first = values.next().unwrap_or(0);
    values.all(|v| v == first).then_some(first as f64)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    /// It read the value of a key named nothing, and took the default where there was none.
    #[test]
    fn a_value_without_a_name_is_a_defect() {
        let hf = HfConfig { path: PathBuf::from("config.json"), config: json!({"": 7}), generation: None };
        let nameless = Key { hugging_face: &[], gguf: "attention.key_length" };
        let error = Keys::HuggingFace(&hf).count_or(&nameless, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Defect);
        assert!(error.to_string().contains("defect of aerostat"), "{error}");
    }
}
