//! Tokens that are recognised as a whole in a text, before a model sees it: special ones, and others that were added.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use fancy_regex::Regex;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::bpe::Vocab;
use crate::error::Error;
use crate::meter::Meter;
use crate::model::TextModel;
use crate::normalize::Normalizers;
use crate::strings::Strings;

/// The most added tokens that are read; vocabularies have some thousand at most.
pub(crate) const ADDED_MAX: usize = 1 << 17;

/// The most bytes of all of them.
const ADDED_BYTES_MAX: usize = 8 << 20;

/// An added token. Flags that a file leaves out are those of Python's class: off, and `normalized` unless it is special.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AddedToken {
    pub(crate) content: String,
    /// It is skipped in texts that are shown.
    pub(crate) special: bool,
    /// It is looked for in normalised text.
    pub(crate) normalized: bool,
    /// It counts only between what is no part of words.
    pub(crate) single_word: bool,
    /// It takes white space before it.
    pub(crate) lstrip: bool,
    /// It takes white space after it.
    pub(crate) rstrip: bool,
    /// It is written as normalised text is, and looked for there.
    pub(crate) verbatim: bool,
}

impl AddedToken {
    /// A token that is looked for as it stands.
    pub(crate) fn raw(content: &str, special: bool) -> Self {
        AddedToken { content: content.to_owned(), special, ..AddedToken::default() }
    }
}

impl<'de> Deserialize<'de> for AddedToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            content: String,
            special: Option<bool>,
            normalized: Option<bool>,
            single_word: Option<bool>,
            lstrip: Option<bool>,
            rstrip: Option<bool>,
        }
        let token = Written::deserialize(deserializer)?;
        let special = token.special.unwrap_or(false);
        let flag = |flag: Option<bool>| flag.unwrap_or(false);
        Ok(AddedToken {
            content: token.content,
            special,
            normalized: token.normalized.unwrap_or(!special),
            single_word: flag(token.single_word),
            lstrip: flag(token.lstrip),
            rstrip: flag(token.rstrip),
            verbatim: false,
        })
    }
}

/// The tokens of `added_tokens`, a list, or of `added_tokens_decoder`, an object by id.
#[derive(Default)]
pub(crate) struct AddedList(pub(crate) Vec<AddedToken>);

impl AddedList {
    fn push<E: de::Error>(&mut self, token: AddedToken, bytes: &mut usize) -> Result<(), E> {
        *bytes += token.content.len();
        self.0.push(token);
        if self.0.len() > ADDED_MAX || *bytes > ADDED_BYTES_MAX {
            return Err(E::custom(format!(
                "more than {ADDED_MAX} added tokens, or more than {ADDED_BYTES_MAX} bytes of them"
            )));
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for AddedList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = AddedList;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("added tokens")
            }

            fn visit_unit<E: de::Error>(self) -> Result<AddedList, E> {
                Ok(AddedList::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AddedList, A::Error> {
                let (mut tokens, mut bytes) = (AddedList::default(), 0);
                while let Some(token) = list.next_element()? {
                    tokens.push(token, &mut bytes)?;
                }
                Ok(tokens)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AddedList, A::Error> {
                let (mut tokens, mut bytes) = (Vec::new(), 0);
                let mut list = AddedList::default();
                while let Some(id) = map.next_key::<String>()? {
                    let id: u32 = id.parse().map_err(|_| A::Error::custom("an id that is no number"))?;
                    list.push(map.next_value()?, &mut bytes)?;
                    tokens.push(id);
                }
                let mut all: Vec<(u32, AddedToken)> = tokens.into_iter().zip(list.0).collect();
                all.sort_by_key(|(id, _)| *id);
                Ok(AddedList(all.into_iter().map(|(_, token)| token).collect()))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

/// The added tokens of a tokenizer, with their ids.
#[derive(Default)]
pub(crate) struct Added {
    by_text: HashMap<String, u32>,
    by_id: HashMap<u32, AddedToken>,
    special: HashSet<String>,
    /// How tokens read that normalizers change.
    normalized: HashMap<u32, String>,
    in_raw: Matcher,
    in_normalized: Matcher,
}

impl Added {
    /// Adds tokens. One that the model knows keeps its id, others get the next ones.
    pub(crate) fn add(&mut self, tokens: impl IntoIterator<Item = AddedToken>, model: &TextModel) {
        let count = model.vocab().count() as u32;
        let after = self.by_id.keys().max().map_or(0, |id| id.saturating_add(1));
        let mut next = count.max(after);
        for token in tokens.into_iter().filter(|token| !token.content.is_empty()) {
            let known =
                self.by_text.get(&token.content).copied().or_else(|| model.vocab().id(&token.content));
            let id = known.unwrap_or_else(|| {
                let id = next;
                next = next.saturating_add(1);
                id
            });
            if token.special {
                self.special.insert(token.content.clone());
            }
            self.by_text.insert(token.content.clone(), id);
            self.by_id.insert(id, token);
        }
    }

    /// Makes ready what finds the tokens in texts.
    pub(crate) fn finish(&mut self, normalizers: &Normalizers) -> Result<(), Error> {
        let mut tokens: Vec<(u32, &AddedToken)> = self.by_id.iter().map(|(id, token)| (*id, token)).collect();
        tokens.sort_unstable_by_key(|(id, _)| *id);
        let meter = Meter::new(tokens.iter().map(|(_, token)| token.content.len()).sum());
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        for (id, token) in tokens {
            meter.tick("its added tokens")?;
            if token.verbatim {
                normalized.push((token.content.clone(), id));
                continue;
            }
            if !token.normalized {
                raw.push((token.content.clone(), id));
                continue;
            }
            let text = normalizers.apply(&token.content, &meter)?;
            if text != token.content {
                self.normalized.insert(id, text.clone());
            }
            normalized.push((text, id));
        }
        self.in_raw = Matcher::new(&raw);
        self.in_normalized = Matcher::new(&normalized);
        Ok(())
    }

    /// One more than the greatest id; 0 without any.
    pub(crate) fn ids(&self) -> usize {
        self.by_id.keys().max().map_or(0, |id| *id as usize + 1)
    }

    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    /// How a token reads.
    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        let token = self.by_id.get(&id)?;
        Some(self.normalized.get(&id).unwrap_or(&token.content))
    }

    pub(crate) fn is_special(&self, text: &str) -> bool {
        self.special.contains(text)
    }

    /// Calls `take` for each part of a text that has not been normalised, with the id if it is a token.
    pub(crate) fn each_raw<'a>(
        &self,
        text: &'a str,
        meter: &Meter,
        take: impl FnMut(&'a str, Range<usize>, Option<u32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.each(&self.in_raw, text, meter, take)
    }

    /// The same for a text that has been normalised.
    pub(crate) fn each_normalized<'a>(
        &self,
        text: &'a str,
        meter: &Meter,
        take: impl FnMut(&'a str, Range<usize>, Option<u32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.each(&self.in_normalized, text, meter, take)
    }

    fn each<'a>(
        &self,
        matcher: &Matcher,
        text: &'a str,
        meter: &Meter,
        mut take: impl FnMut(&'a str, Range<usize>, Option<u32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut end, mut at) = (0, 0);
        while let Some((found, id)) = matcher.next(text, at, meter)? {
            at = found.end;
            let Some(token) = self.by_id.get(&id) else { continue };
            if token.single_word && !stands_alone(text, &found) {
                continue;
            }
            let (mut start, mut stop) = (found.start.max(end), found.end);
            if token.lstrip {
                start = end + text.get(end..start).unwrap_or_default().trim_end().len();
            }
            if token.rstrip {
                let rest = text.get(stop..).unwrap_or_default();
                stop += rest.len() - rest.trim_start().len();
            }
            if end < start {
                take(text, end..start, None)?;
            }
            // All of it may be in the spaces that the token before took.
            if !token.lstrip || start < stop {
                take(text, start..stop, Some(id))?;
            }
            end = stop;
        }
        if end < text.len() { take(text, end..text.len(), None) } else { Ok(()) }
    }
}

/// Whether what is beside a match is no part of a word.
fn stands_alone(text: &str, found: &Range<usize>) -> bool {
    static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\w$").ok());
    let is_word = |letter: Option<char>| {
        let letter = letter.map(String::from);
        letter.is_some_and(|l| WORD.as_ref().is_some_and(|word| word.is_match(&l).unwrap_or(false)))
    };
    let before = text.get(..found.start).and_then(|before| before.chars().next_back());
    let after = text.get(found.end..).and_then(|after| after.chars().next());
    !is_word(before) && !is_word(after)
}

/// Finds the longest of many texts at the leftmost place.
#[derive(Default)]
struct Matcher {
    texts: Vocab,
    ids: Vec<u32>,
    /// The lengths of texts by their first byte, the longest first.
    lengths: Vec<Vec<u32>>,
}

impl Matcher {
    fn new(tokens: &[(String, u32)]) -> Self {
        if tokens.is_empty() {
            return Matcher::default();
        }
        let mut lengths = vec![Vec::new(); 256];
        for (text, _) in tokens {
            if let Some(list) = text.bytes().next().and_then(|first| lengths.get_mut(usize::from(first))) {
                list.push(text.len() as u32);
            }
        }
        for list in &mut lengths {
            list.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
            list.dedup();
        }
        let texts: Strings = tokens.iter().map(|(text, _)| text).collect();
        Matcher { texts: Vocab::new(texts), ids: tokens.iter().map(|(_, id)| *id).collect(), lengths }
    }

    /// The first match at or after `at`.
    fn next(&self, text: &str, at: usize, meter: &Meter) -> Result<Option<(Range<usize>, u32)>, Error> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        for (start, byte) in text.bytes().enumerate().skip(at) {
            for length in self.lengths.get(usize::from(byte)).into_iter().flatten() {
                meter.tick("its added tokens")?;
                let end = start + *length as usize;
                let id = text.get(start..end).and_then(|part| self.texts.id(part));
                if let Some(id) = id.and_then(|index| self.ids.get(index as usize)) {
                    return Ok(Some((start..end, *id)));
                }
            }
        }
        Ok(None)
    }
}
