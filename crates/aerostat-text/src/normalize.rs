//! What a text goes through before it is split: normalizers of a tokenizer, one after the other.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer as _, NormalizerWrapper};

use crate::error::{Error, library};
use crate::meter::Meter;
use crate::pattern::Pattern;
use crate::read::parts;

/// The most bytes that a table of characters may make of one.
const CHARACTER_BYTES_MAX: usize = 256;

/// One step.
pub(crate) enum Normalizer {
    /// Puts a text before one that is not empty.
    Prepend(String),
    /// Replaces each match.
    Replace(Pattern, String),
    /// Puts one space for runs of them, and none at the ends, where marks count as spaces behind the text.
    SingleSpaces,
    /// Replaces what a table of SentencePiece lists, the longest first.
    Table(crate::charsmap::CharsMap),
    /// A step of the library that has bounds of its own: it makes a few characters of each.
    Library(Box<NormalizerWrapper>),
}

/// All steps of a tokenizer, in order.
#[derive(Default)]
pub(crate) struct Normalizers(pub(crate) Vec<Normalizer>);

impl Normalizers {
    /// The field `normalizer` of `tokenizer.json`.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        parts(value, "normalizers")?.into_iter().map(Normalizer::read).collect::<Result<_, _>>().map(Self)
    }

    /// The text as the next part of the tokenizer sees it.
    pub(crate) fn apply(&self, text: &str, meter: &Meter) -> Result<String, Error> {
        let mut text = text.to_owned();
        for step in &self.0 {
            text = step.apply(text, meter)?;
            meter.fits(text.len())?;
            meter.check("the steps that normalise texts")?;
        }
        meter.take(text.len())?;
        Ok(text)
    }
}

impl Normalizer {
    fn read(value: &Value) -> Result<Self, Error> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        match text("type") {
            Some("Replace") => {
                let pattern = value.get("pattern").ok_or_else(|| Error::malformed("no pattern"))?;
                let content = text("content").ok_or_else(|| Error::malformed("no content"))?;
                Ok(Normalizer::Replace(Pattern::read(pattern)?, content.to_owned()))
            }
            Some("Prepend") => {
                let text = text("prepend").ok_or_else(|| Error::malformed("nothing to prepend"))?;
                Ok(Normalizer::Prepend(text.to_owned()))
            }
            Some(kind) => {
                if kind == "Precompiled" {
                    check_table(text("precompiled_charsmap").unwrap_or_default())?;
                }
                let step = NormalizerWrapper::deserialize(value).map_err(|error| library(error.into()))?;
                match step {
                    NormalizerWrapper::Replace(_) | NormalizerWrapper::Sequence(_) => {
                        Err(Error::malformed(format!("{kind:?} is no normalizer")))
                    }
                    step => Ok(Normalizer::Library(Box::new(step))),
                }
            }
            None => Err(Error::malformed("a normalizer has no type")),
        }
    }

    fn apply(&self, text: String, meter: &Meter) -> Result<String, Error> {
        match self {
            Normalizer::Prepend(_) if text.is_empty() => Ok(text),
            Normalizer::Prepend(before) => Ok([before, text.as_str()].concat()),
            Normalizer::Replace(pattern, content) => pattern.replace(&text, content, meter),
            Normalizer::SingleSpaces => {
                let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
                Ok(words.join(" ").trim_end_matches([' ', '\u{2581}']).to_owned())
            }
            Normalizer::Table(table) => table.apply(&text, meter),
            Normalizer::Library(step) => {
                let mut normalized = NormalizedString::from(text);
                step.normalize(&mut normalized).map_err(library)?;
                Ok(normalized.get().to_owned())
            }
        }
    }
}

/// Looks at a table of characters before the library does, which believes the lengths that it names.
fn check_table(base64: &str) -> Result<(), Error> {
    let wrong = |what: &str| Error::malformed(format!("the table precompiled_charsmap {what}"));
    let table =
        base64::engine::general_purpose::STANDARD.decode(base64).map_err(|_| wrong("is not base64"))?;
    let (length, rest) = table.split_first_chunk::<4>().ok_or_else(|| wrong("is empty"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let texts = rest.get(length..).ok_or_else(|| wrong("is shorter than it says"))?;
    if length < 4 {
        return Err(wrong("is empty"));
    }
    if texts.split(|byte| *byte == 0).any(|text| text.len() > CHARACTER_BYTES_MAX) {
        return Err(wrong("makes more than 256 bytes of a character"));
    }
    Ok(())
}
