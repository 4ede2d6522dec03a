//! Patterns of tokenizer files: literal texts and regular expressions, of which any may be hostile.

use std::ops::Range;

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::error::{Error, clip};
use crate::meter::Meter;

/// The longest pattern that is compiled, in bytes.
const PATTERN_BYTES_MAX: usize = 16 << 10;

/// How often one search may go back; those of tokenizers that are meant well go back a few times.
const BACKTRACKS_MAX: usize = 500_000;

/// The size of a compiled pattern, in bytes. Nothing stops a search in it, which may look at all of it for each byte of a text:
/// in 8 MiB that took six milliseconds a byte.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Something that is looked for in texts.
pub(crate) enum Pattern {
    /// A text, not empty.
    Literal(String),
    /// A regular expression.
    Regex(Box<Regex>),
}

impl Pattern {
    /// The pattern `{"String": …}` or `{"Regex": …}` of a tokenizer file.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        if let Some(text) = value.get("String").and_then(Value::as_str) {
            return Self::literal(text);
        }
        match value.get("Regex").and_then(Value::as_str) {
            Some(regex) => Self::regex(regex),
            None => Err(Error::malformed("a pattern is neither a String nor a Regex")),
        }
    }

    /// A text to look for.
    pub(crate) fn literal(text: &str) -> Result<Self, Error> {
        match text {
            "" => Err(Error::malformed("a pattern is an empty text, which is everywhere and nowhere")),
            text => Ok(Pattern::Literal(text.to_owned())),
        }
    }

    /// A regular expression to look for.
    pub(crate) fn regex(regex: &str) -> Result<Self, Error> {
        if regex.len() > PATTERN_BYTES_MAX {
            let message =
                format!("a pattern has {} bytes; at most {PATTERN_BYTES_MAX} are compiled", regex.len());
            return Err(Error::malformed(message));
        }
        let compiled = RegexBuilder::new(regex)
            .backtrack_limit(BACKTRACKS_MAX)
            .delegate_size_limit(COMPILED_BYTES_MAX)
            .build();
        let wrong = |error: fancy_regex::Error| {
            let (regex, error) = (clip(regex), error.to_string());
            Error::malformed(format!("the pattern {regex:?} cannot be compiled: {}", clip(&error)))
        };
        compiled.map(|regex| Pattern::Regex(Box::new(regex))).map_err(wrong)
    }

    /// Calls `found` for each match, from left to right.
    pub(crate) fn each(
        &self,
        text: &str,
        meter: &Meter,
        mut found: impl FnMut(Range<usize>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Pattern::Literal(literal) => {
                for (start, part) in text.match_indices(literal.as_str()) {
                    found(start..start + part.len())?;
                }
            }
            Pattern::Regex(regex) => {
                for part in regex.find_iter(text) {
                    meter.tick("a pattern")?;
                    let part = part.map_err(|error| {
                        Error::encode(format!(
                            "a pattern of the tokenizer does not come to an end in this text: {error}"
                        ))
                    })?;
                    found(part.range())?;
                }
            }
        }
        Ok(())
    }

    /// `text` with every match replaced.
    pub(crate) fn replace(&self, text: &str, content: &str, meter: &Meter) -> Result<String, Error> {
        let (mut replaced, mut end) = (String::with_capacity(text.len()), 0);
        self.each(text, meter, |part| {
            replaced.push_str(text.get(end..part.start).unwrap_or_default());
            replaced.push_str(content);
            end = part.end;
            meter.fits(replaced.len())
        })?;
        replaced.push_str(text.get(end..).unwrap_or_default());
        meter.fits(replaced.len())?;
        Ok(replaced)
    }
}
