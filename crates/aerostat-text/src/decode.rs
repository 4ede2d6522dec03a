//! From the texts of tokens to the text: decoders, one after the other.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{Decoder as _, DecoderWrapper};

use crate::error::{Error, library};
use crate::meter::Meter;
use crate::pattern::Pattern;
use crate::read::parts;

/// One step.
pub(crate) enum Decoder {
    /// Replaces each match within a token.
    Replace(Pattern, String),
    /// Takes a character off the start and the end of each token, as often as said.
    Strip { letter: char, start: usize, end: usize },
    /// A step of the library that has bounds of its own.
    Library(Box<DecoderWrapper>),
}

/// All steps of a tokenizer, in order; without any, tokens are words.
#[derive(Default)]
pub(crate) struct Decoders(pub(crate) Vec<Decoder>);

impl Decoders {
    /// The field `decoder` of `tokenizer.json`.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        parts(value, "decoders")?.into_iter().map(Decoder::read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether tokens spell bytes as characters.
    pub(crate) fn is_byte_level(&self) -> bool {
        let is = |step: &Decoder| matches!(step, Decoder::Library(step) if matches!(**step, DecoderWrapper::ByteLevel(_)));
        self.0.len() == 1 && self.0.iter().any(is)
    }

    /// The text of tokens.
    pub(crate) fn apply(&self, mut tokens: Vec<String>) -> Result<String, Error> {
        // Some decoders of the library fail on nothing.
        if tokens.is_empty() {
            return Ok(String::new());
        }
        if self.0.is_empty() {
            return Ok(tokens.join(" "));
        }
        let meter = Meter::new(tokens.iter().map(String::len).sum());
        for step in &self.0 {
            if tokens.is_empty() {
                return Ok(String::new());
            }
            tokens = step.apply(tokens, &meter)?;
            meter.fits(tokens.iter().map(String::len).sum())?;
        }
        Ok(tokens.concat())
    }
}

impl Decoder {
    fn read(value: &Value) -> Result<Self, Error> {
        let missing = |name: &str| Error::malformed(format!("a decoder without {name}"));
        let text = |name: &str| value.get(name).and_then(Value::as_str).ok_or_else(|| missing(name));
        match text("type")? {
            "Replace" => {
                let pattern = Pattern::read(value.get("pattern").ok_or_else(|| missing("a pattern"))?)?;
                Ok(Decoder::Replace(pattern, text("content")?.to_owned()))
            }
            "Strip" => {
                let mut letters = text("content")?.chars();
                let count = |name: &str| value.get(name).and_then(Value::as_u64).map_or(0, |n| n as usize);
                match (letters.next(), letters.next()) {
                    (Some(letter), None) => {
                        Ok(Decoder::Strip { letter, start: count("start"), end: count("stop") })
                    }
                    _ => Err(missing("one character to strip")),
                }
            }
            kind => {
                let step = DecoderWrapper::deserialize(value).map_err(|error| library(error.into()))?;
                match step {
                    DecoderWrapper::Replace(_) | DecoderWrapper::Sequence(_) | DecoderWrapper::Strip(_) => {
                        Err(Error::malformed(format!("{kind:?} is no decoder")))
                    }
                    step => Ok(Decoder::Library(Box::new(step))),
                }
            }
        }
    }

    fn apply(&self, tokens: Vec<String>, meter: &Meter) -> Result<Vec<String>, Error> {
        match self {
            Decoder::Replace(pattern, content) => {
                tokens.iter().map(|token| pattern.replace(token, content, meter)).collect()
            }
            Decoder::Strip { letter, start, end } => {
                Ok(tokens.iter().map(|token| strip(token, *letter, *start, *end).to_owned()).collect())
            }
            Decoder::Library(step) => step.decode_chain(tokens).map_err(library),
        }
    }
}

/// Without up to `start` letters at the front and `end` at the back.
fn strip(token: &str, letter: char, start: usize, end: usize) -> &str {
    let front = token.chars().take(start).take_while(|other| *other == letter).count() * letter.len_utf8();
    let token = token.get(front..).unwrap_or_default();
    let back = token.chars().rev().take(end).take_while(|other| *other == letter).count() * letter.len_utf8();
    token.get(..token.len() - back).unwrap_or_default()
}
