//! What the class of a model type reads of a configuration, and what it takes where a key is absent.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A line for each model type, made by `oracle/classes.py`.
const CLASSES: &str = include_str!("../classes.jsonl");

/// Keys that are read whatever the class.
const ALWAYS: &[&str] = &[
    "architectures",
    "model_type",
    "vocab_size",
    "quantization_config",
    "dtype",
    "torch_dtype",
    "per_layer_config",
    "is_causal",
];

/// The configuration class of a model type.
#[derive(Deserialize)]
pub(crate) struct Class {
    /// The keys it reads, with what it takes where they are absent.
    keys: Map<String, Value>,
    /// Other spellings of keys, which count more than the keys.
    names: BTreeMap<String, String>,
}

impl Class {
    /// The class of a type; `None`: there is no line for it, or none that can be read.
    pub(crate) fn of(model_type: &str) -> Option<Self> {
        let start = format!("{{\"type\":{},", Value::from(model_type));
        CLASSES.lines().find(|line| line.starts_with(&start)).and_then(|line| serde_json::from_str(line).ok())
    }

    /// The configuration as the class reads it: every key that it knows, and no other.
    pub(crate) fn read(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let always = ALWAYS.iter().filter_map(|key| Some(((*key).to_owned(), given.get(*key)?.clone())));
        let mut read: Map<String, Value> = always.collect();
        for (key, default) in self.keys.iter().filter(|(key, _)| !ALWAYS.contains(&key.as_str())) {
            let mut others = self.names.iter().filter(|(_, name)| *name == key);
            let value = others.find_map(|(other, _)| given.get(other)).or(given.get(key));
            read.insert(key.clone(), value.unwrap_or(default).clone());
        }
        // Parameters of rotation are taken whole, from where they are given.
        let is_given = |key: &str| {
            read.get(key).is_some_and(|value| !value.is_null() && *value != Value::Object(Map::new()))
        };
        if !is_given("rope_parameters")
            && !is_given("rope_scaling")
            && let Some(usual) = self.keys.get("rope_parameters")
        {
            read.insert("rope_parameters".to_owned(), usual.clone());
        } else if is_given("rope_scaling") && given.get("rope_parameters").is_none_or(Value::is_null) {
            read.insert("rope_parameters".to_owned(), Value::Null);
        }
        read
    }
}
