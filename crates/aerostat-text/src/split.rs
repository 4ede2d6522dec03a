//! How a text is split before a model sees it: pre-tokenizers, one after the other.

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper};

use crate::bytes::to_byte_level;
use crate::error::{Error, library};
use crate::meter::Meter;
use crate::pattern::Pattern;
use crate::read::parts;

/// What GPT-2 splits at.
pub(crate) const WORDS_GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What becomes of a match and of what lies between two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// Matches are dropped.
    Removed,
    /// Each match is a piece.
    Isolated,
    /// A match belongs to the piece before it.
    WithPrevious,
    /// A match belongs to the piece after it.
    WithNext,
    /// Matches that touch are one piece.
    Contiguous,
}

/// When a mark stands for a space before a text that has none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepend {
    /// Before every piece.
    Always,
    /// At the start of the whole text.
    First,
    /// Nowhere.
    Never,
}

/// One step.
pub(crate) enum Splitter {
    /// At the matches of a pattern, or with `invert` at what lies between them.
    Matches { pattern: Pattern, behavior: Behavior, invert: bool },
    /// Spells bytes as characters, perhaps after a space and after a split into words.
    ByteLevel { prefix_space: bool, words: Option<Pattern> },
    /// Writes a mark for spaces, and perhaps splits at it.
    Metaspace { mark: char, prepend: Prepend, split: bool },
    /// Into so many characters each.
    Length(usize),
    /// A step of the library that looks at each character alone.
    Library(Box<PreTokenizerWrapper>),
}

/// All steps of a tokenizer, in order.
#[derive(Default)]
pub(crate) struct Splitters(pub(crate) Vec<Splitter>);

/// A text in pieces.
pub(crate) struct Pieces {
    text: String,
    ends: Vec<usize>,
    /// Whether the first piece begins where the whole text begins.
    at_start: bool,
}

impl Pieces {
    fn whole(text: &str, at_start: bool) -> Self {
        Pieces { text: text.to_owned(), ends: vec![text.len()], at_start }
    }

    fn like(other: &Pieces) -> Self {
        let (text, ends) = (String::with_capacity(other.text.len()), Vec::with_capacity(other.ends.len()));
        Pieces { text, ends, at_start: other.at_start }
    }

    /// The pieces in order; none is empty.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.text.get(start..*end)).filter(|p| !p.is_empty())
    }

    fn push(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.text.push_str(piece);
            self.ends.push(self.text.len());
        }
    }

    /// Notes that the piece comes to nothing.
    fn drop_piece(&mut self) {
        self.at_start &= !self.ends.is_empty();
    }
}

impl Splitters {
    /// The field `pre_tokenizer` of `tokenizer.json`.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        parts(value, "pretokenizers")?.into_iter().map(Splitter::read).collect::<Result<_, _>>().map(Self)
    }

    /// The pieces of a text; `at_start` says that it is the start of the whole one.
    pub(crate) fn apply(&self, text: &str, at_start: bool, meter: &Meter) -> Result<Pieces, Error> {
        let mut pieces = Pieces::whole(text, at_start);
        for step in &self.0 {
            let mut next = Pieces::like(&pieces);
            for (at, piece) in pieces.iter().enumerate() {
                meter.tick("the steps that split texts")?;
                step.split(piece, at == 0 && pieces.at_start, &mut next, meter)?;
                meter.fits(next.text.len())?;
            }
            pieces = next;
        }
        Ok(pieces)
    }
}

impl Splitter {
    /// Splits at the matches of a regular expression, each a piece of its own.
    pub(crate) fn regex(regex: &str) -> Result<Self, Error> {
        let pattern = Pattern::regex(regex)?;
        Ok(Splitter::Matches { pattern, behavior: Behavior::Isolated, invert: false })
    }

    fn read(value: &Value) -> Result<Self, Error> {
        let missing = |name: &str| Error::malformed(format!("a splitter without {name}"));
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        let kind = value.get("type").and_then(Value::as_str).ok_or_else(|| missing("a type"))?;
        match kind {
            "Split" => Ok(Splitter::Matches {
                pattern: Pattern::read(value.get("pattern").ok_or_else(|| missing("a pattern"))?)?,
                behavior: behavior(value)?.ok_or_else(|| missing("a behavior"))?,
                invert: flag("invert").unwrap_or(false),
            }),
            "ByteLevel" => Ok(Splitter::ByteLevel {
                prefix_space: flag("add_prefix_space").unwrap_or(true),
                words: flag("use_regex").unwrap_or(true).then(|| Pattern::regex(WORDS_GPT2)).transpose()?,
            }),
            "Metaspace" => metaspace(value),
            "FixedLength" => {
                let length = value.get("length").map_or(Some(5), Value::as_u64).filter(|length| *length > 0);
                Ok(Splitter::Length(length.ok_or_else(|| missing("a length"))? as usize))
            }
            kind => {
                let step = PreTokenizerWrapper::deserialize(value).map_err(|error| library(error.into()))?;
                match step {
                    PreTokenizerWrapper::Split(_) | PreTokenizerWrapper::Sequence(_) => {
                        Err(Error::malformed(format!("{kind:?} is no splitter")))
                    }
                    step => Ok(Splitter::Library(Box::new(step))),
                }
            }
        }
    }

    /// Appends the pieces of a piece; `first` says that it begins the whole text.
    fn split(&self, piece: &str, first: bool, out: &mut Pieces, meter: &Meter) -> Result<(), Error> {
        match self {
            Splitter::Matches { pattern, behavior, invert } => {
                at_matches(piece, pattern, *behavior, *invert, out, meter)
            }
            Splitter::ByteLevel { prefix_space, words } => {
                let spaced = (*prefix_space && !piece.starts_with(' ')).then(|| format!(" {piece}"));
                let piece = spaced.as_deref().unwrap_or(piece);
                let Some(words) = words else {
                    out.push(&to_byte_level(piece.as_bytes()));
                    return Ok(());
                };
                let mut parts = Pieces::whole("", false);
                at_matches(piece, words, Behavior::Isolated, false, &mut parts, meter)?;
                parts.iter().for_each(|part| out.push(&to_byte_level(part.as_bytes())));
                Ok(())
            }
            Splitter::Metaspace { mark, prepend, split } => {
                mark_spaces(piece, first, *mark, *prepend, *split, out);
                Ok(())
            }
            Splitter::Length(length) => {
                let starts: Vec<usize> =
                    piece.char_indices().step_by(*length).map(|(at, _)| at).chain([piece.len()]).collect();
                starts.windows(2).for_each(|ends| out.push(piece.get(ends[0]..ends[1]).unwrap_or_default()));
                Ok(())
            }
            Splitter::Library(step) => {
                let mut pieces = PreTokenizedString::from(piece);
                step.pre_tokenize(&mut pieces).map_err(library)?;
                let pieces = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
                if pieces.first().is_none_or(|(text, ..)| !piece.starts_with(text)) {
                    out.drop_piece();
                }
                pieces.into_iter().for_each(|(text, ..)| out.push(text));
                Ok(())
            }
        }
    }
}

/// Splits a piece at the matches of a pattern.
fn at_matches(
    piece: &str,
    pattern: &Pattern,
    behavior: Behavior,
    invert: bool,
    out: &mut Pieces,
    meter: &Meter,
) -> Result<(), Error> {
    let mut joiner = Joiner { piece, behavior, held: None, previous: false, out };
    let mut end = 0;
    pattern.each(piece, meter, |found| {
        if end < found.start {
            joiner.take(end..found.start, invert);
        }
        end = found.end;
        joiner.take(found, !invert);
        Ok(())
    })?;
    if end < piece.len() {
        joiner.take(end..piece.len(), invert);
    }
    joiner.flush();
    Ok(())
}

/// Puts matches and what lies between them together to pieces.
struct Joiner<'a> {
    piece: &'a str,
    behavior: Behavior,
    /// The piece that may still grow.
    held: Option<Range<usize>>,
    /// Whether the last part was a match.
    previous: bool,
    out: &'a mut Pieces,
}

impl Joiner<'_> {
    fn take(&mut self, part: Range<usize>, is_match: bool) {
        let grows = match self.behavior {
            Behavior::Removed if is_match => {
                self.flush();
                if !part.is_empty() {
                    self.out.drop_piece();
                }
                return;
            }
            Behavior::Removed | Behavior::Isolated => false,
            Behavior::Contiguous => is_match == self.previous,
            Behavior::WithPrevious => is_match && !self.previous,
            // What follows a match, but for another one.
            Behavior::WithNext => !is_match && self.previous,
        };
        self.previous = is_match;
        match &mut self.held {
            Some(held) if grows => held.end = part.end,
            _ => {
                self.flush();
                self.held = Some(part);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(part) = self.held.take() {
            self.out.push(self.piece.get(part).unwrap_or_default());
        }
    }
}

fn mark_spaces(piece: &str, first: bool, mark: char, prepend: Prepend, split: bool, out: &mut Pieces) {
    let mut marked = piece.replace(' ', mark.encode_utf8(&mut [0; 4]));
    let wanted = match prepend {
        Prepend::Always => true,
        Prepend::First => first,
        Prepend::Never => false,
    };
    if wanted && !marked.starts_with(mark) {
        marked.insert(0, mark);
    }
    if !split {
        return out.push(&marked);
    }
    let mut start = 0;
    for (at, _) in marked.match_indices(mark).filter(|(at, _)| *at > 0) {
        out.push(marked.get(start..at).unwrap_or_default());
        start = at;
    }
    out.push(marked.get(start..).unwrap_or_default());
}

fn metaspace(value: &Value) -> Result<Splitter, Error> {
    let wrong = |name: &str| Error::malformed(format!("Metaspace: {name} is wrong"));
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let mut letters = text("replacement").unwrap_or_default().chars();
    let (Some(mark), None) = (letters.next(), letters.next()) else { return Err(wrong("replacement")) };
    let prepend = match text("prepend_scheme") {
        None if flag("add_prefix_space") == Some(false) => Prepend::Never,
        None | Some("always") => Prepend::Always,
        Some("first") => Prepend::First,
        Some("never") => Prepend::Never,
        Some(_) => return Err(wrong("prepend_scheme")),
    };
    if flag("add_prefix_space") == Some(false) && prepend != Prepend::Never {
        return Err(wrong("add_prefix_space"));
    }
    Ok(Splitter::Metaspace { mark, prepend, split: flag("split").unwrap_or(true) })
}

fn behavior(value: &Value) -> Result<Option<Behavior>, Error> {
    let Some(name) = value.get("behavior") else { return Ok(None) };
    Ok(Some(match name.as_str() {
        Some("Removed") => Behavior::Removed,
        Some("Isolated") => Behavior::Isolated,
        Some("MergedWithPrevious") => Behavior::WithPrevious,
        Some("MergedWithNext") => Behavior::WithNext,
        Some("Contiguous") => Behavior::Contiguous,
        _ => return Err(Error::malformed("a splitter whose behavior is unknown")),
    }))
}
