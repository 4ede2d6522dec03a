//! The members of a JSON object, taken one by one; what is left over is not known, and said so by its path.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// Members of a body that some server follows and this one does not. They change answers, so that nobody may ignore them.
const CHANGE_ANSWERS: &[&str] = &[
    "add_special_tokens",
    "allowed_token_ids",
    "audio",
    "bad_words",
    "chat_template",
    "documents",
    "echo",
    "instruction",
    "length_penalty",
    "logits_processors",
    "min_tokens",
    "mm_processor_kwargs",
    "prompt_embeds",
    "prompt_logprobs",
    "reasoning_effort",
    "return_tokens_as_token_ids",
    "structural_tag",
    "thinking_token_budget",
    "truncate_prompt_tokens",
    "verbosity",
    "web_search_options",
];

/// How one request is read: strictly, or leniently, and then which of its members were ignored.
#[derive(Debug, Default)]
pub struct Reading {
    lenient: bool,
    ignored: RefCell<Vec<String>>,
}

impl Reading {
    /// A strict one refuses every member that is not known; a lenient one ignores and notes it.
    pub fn new(lenient: bool) -> Self {
        Self { lenient, ignored: RefCell::default() }
    }

    /// Whether members that are not known are ignored.
    pub fn lenient(&self) -> bool {
        self.lenient
    }

    /// The paths of members that were ignored since they are not known, in the order in which they were met.
    pub fn into_ignored(self) -> Vec<String> {
        self.ignored.into_inner()
    }
}

/// A JSON object whose members are taken out one by one.
pub struct Fields<'a> {
    map: Map<String, Value>,
    /// Where the object stands in the request; empty for the request itself.
    path: String,
    reading: &'a Reading,
}

impl<'a> Fields<'a> {
    /// The members of a request.
    pub fn new(map: Map<String, Value>, reading: &'a Reading) -> Self {
        Self::at(String::new(), map, reading)
    }

    /// The members of an object inside a request, at a path such as `tools[0]`.
    pub fn at(path: String, map: Map<String, Value>, reading: &'a Reading) -> Self {
        Self { map, path, reading }
    }

    /// The path of a member: what errors call it.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A member's value without taking it.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A member's value; null is as good as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A member that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn need(&mut self, name: &str) -> Result<Value, Refusal> {
        self.take(name).ok_or_else(|| Refusal::missing(&self.path(name)))
    }

    /// A number within a range, bounds included.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number as f32)),
            None => {
                let must = format!("a number from {} to {}", range.start(), range.end());
                Err(self.wrong(name, &value, &must))
            }
        }
    }

    /// A whole number within a range, bounds included.
    ///
    /// # Errors
    /// It is something else.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_i64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let must = format!("a whole number from {} to {}", range.start(), range.end());
                Err(self.wrong(name, &value, &must))
            }
        }
    }

    /// True or false.
    ///
    /// # Errors
    /// It is something else.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(yes)) => Ok(Some(yes)),
            Some(value) => Err(self.wrong(name, &value, "true or false")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.wrong(name, &value, "text")),
        }
    }

    /// A text or a list of texts.
    ///
    /// # Errors
    /// It is something else.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let texts = match &value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        texts.map(Some).ok_or_else(|| self.wrong(name, &value, "text or a list of texts"))
    }

    /// The members of an object.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields<'a>>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields::at(self.path(name), map, self.reading))),
            Some(value) => Err(self.wrong(name, &value, "a JSON object")),
        }
    }

    /// Takes members that are known and have no effect here.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.map.remove(*name);
        }
    }

    /// Takes a member that may only say what is the case anyway.
    ///
    /// # Errors
    /// It says something else.
    pub fn only(&mut self, name: &str, served: &[Value]) -> Result<(), Refusal> {
        match self.take(name) {
            Some(value) if !served.contains(&value) => {
                let path = self.path(name);
                Err(Refusal::unsupported(&path, format!("`{path}`: {} is not supported", brief(&value))))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what is left, or notes it if the reading is lenient. What is known to change answers is refused always.
    ///
    /// # Errors
    /// A member is not known.
    pub fn finish(self) -> Result<(), Refusal> {
        for (name, _) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            let path = self.path(name);
            if !self.reading.lenient || (self.path.is_empty() && CHANGE_ANSWERS.contains(&name.as_str())) {
                return Err(unknown(&path));
            }
            self.reading.ignored.borrow_mut().push(path);
        }
        Ok(())
    }

    fn wrong(&self, name: &str, value: &Value, must: &str) -> Refusal {
        let path = self.path(name);
        Refusal::value(&path, format!("`{path}` is {}; it must be {must}", brief(value)))
    }
}

/// The refusal of a member that is not known.
pub(crate) fn unknown(path: &str) -> Refusal {
    Refusal::unsupported(path, format!("`{path}` is not supported"))
}

/// A value for a message, cut short.
pub fn brief(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_left_over_is_told_by_its_path() {
        let reading = Reading::new(false);
        let mut fields = Fields::new(map(json!({"a": {"b": 1, "c": null, "d": 2}})), &reading);
        let mut inner = fields.object("a").unwrap().unwrap();
        assert_eq!(
            inner.integer("b", 0..=0).unwrap_err().message(),
            "`a.b` is 1; it must be a whole number from 0 to 0"
        );
        let refusal = inner.finish().unwrap_err();
        assert_eq!((refusal.code(), refusal.param()), ("unsupported_parameter", Some("a.d")));
        fields.finish().unwrap();
    }

    #[test]
    fn a_lenient_reading_notes_what_it_ignores_and_still_refuses_what_changes_answers() {
        let reading = Reading::new(true);
        Fields::new(map(json!({"novel": 1, "nothing": null})), &reading).finish().unwrap();
        Fields::at("response_format".to_owned(), map(json!({"echo": true})), &reading).finish().unwrap();
        assert!(Fields::new(map(json!({"min_tokens": 3})), &reading).finish().is_err());
        assert_eq!(reading.into_ignored(), ["novel", "response_format.echo"]);
    }
}
