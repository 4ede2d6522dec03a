//! The fields of a request's body, taken one by one; what is left over is not supported, and said so.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Why a line cannot be served: it becomes an error line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A short name for programs.
    pub(crate) code: &'static str,
    /// What is wrong and what would be right.
    pub(crate) message: String,
    /// The field it is about.
    pub(crate) param: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None }
    }

    /// A field whose value cannot be served.
    pub(crate) fn value(param: &str, message: impl Into<String>) -> Self {
        Self { code: "invalid_value", message: message.into(), param: Some(param.to_owned()) }
    }

    /// A field, or a value of one, that is well known but not served here.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self { code: "unsupported_parameter", message: message.into(), param: Some(param.to_owned()) }
    }
}

/// A JSON object whose fields are taken out.
pub(crate) struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn new(map: Map<String, Value>) -> Self {
        Self { map }
    }

    /// A field's value; null is as good as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn need(&mut self, name: &str) -> Result<Value, Refusal> {
        self.take(name).ok_or_else(|| Refusal {
            code: "missing_parameter",
            message: format!("`{name}` is missing"),
            param: Some(name.to_owned()),
        })
    }

    /// A number within a range, bounds included.
    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number as f32)),
            None => {
                let message = format!(
                    "`{name}` is {}; it must be a number from {} to {}",
                    brief(&value),
                    range.start(),
                    range.end()
                );
                Err(Refusal::value(name, message))
            }
        }
    }

    /// A whole number within a range, bounds included.
    pub(crate) fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_i64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!(
                    "`{name}` is {}; it must be a whole number from {} to {}",
                    brief(&value),
                    range.start(),
                    range.end()
                );
                Err(Refusal::value(name, message))
            }
        }
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(yes)) => Ok(Some(yes)),
            Some(value) => {
                Err(Refusal::value(name, format!("`{name}` is {}; it must be true or false", brief(&value))))
            }
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => {
                Err(Refusal::value(name, format!("`{name}` is {}; it must be text", brief(&value))))
            }
        }
    }

    /// A text or a list of texts.
    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let wrong = || {
            Refusal::value(name, format!("`{name}` is {}; it must be text or a list of texts", brief(&value)))
        };
        match &value {
            Value::String(text) => Ok(Some(vec![text.clone()])),
            Value::Array(list) => list
                .iter()
                .map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            _ => Err(wrong()),
        }
    }

    /// Takes a field that has no effect here.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.map.remove(*name);
        }
    }

    /// Takes a field that may only say what is the case anyway.
    pub(crate) fn only(&mut self, name: &str, served: &[Value]) -> Result<(), Refusal> {
        match self.take(name) {
            Some(value) if !served.contains(&value) => {
                let message = format!("`{name}`: {} is not supported", brief(&value));
                Err(Refusal::unsupported(name, message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what is left.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(Refusal::unsupported(name, format!("`{name}` is not supported"))),
            None => Ok(()),
        }
    }
}

/// A value for a message, however long it is.
pub(crate) fn brief(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}
