//! Models that look up words: WordPiece takes the longest token again and again, WordLevel whole words.

use crate::bpe::Vocab;
use crate::error::Error;
use crate::meter::Meter;

/// A vocabulary of words, or of parts of them.
pub(crate) struct Words {
    vocab: Vocab,
    unknown: Option<u32>,
    parts: Option<Parts>,
}

/// How WordPiece takes words apart.
pub(crate) struct Parts {
    /// What parts other than the first of a word begin with.
    pub(crate) prefix: String,
    /// Longer words are unknown.
    pub(crate) characters_max: usize,
}

impl Words {
    /// A model of words, or with `parts` of parts of words.
    pub(crate) fn new(vocab: Vocab, unknown: &str, parts: Option<Parts>) -> Self {
        let unknown = vocab.id(unknown);
        Words { vocab, unknown, parts }
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// Appends the ids of a word.
    pub(crate) fn tokenize(&self, word: &str, ids: &mut Vec<u32>, meter: &Meter) -> Result<(), Error> {
        let known = ids.len();
        let whole = match &self.parts {
            None => self.vocab.id(word).map(|id| ids.push(id)).is_some(),
            Some(parts) if word.chars().count() > parts.characters_max => false,
            Some(parts) => self.take_apart(word, &parts.prefix, ids, meter)?,
        };
        if !whole {
            ids.truncate(known);
            let unknown = self.unknown;
            ids.push(unknown.ok_or_else(|| {
                Error::encode("the model lacks a word of this text, and has no unknown token")
            })?);
        }
        Ok(())
    }

    fn take_apart(&self, word: &str, prefix: &str, ids: &mut Vec<u32>, meter: &Meter) -> Result<bool, Error> {
        let mut start = 0;
        let mut spelled = String::new();
        while start < word.len() {
            let rest = word.get(start..).unwrap_or_default();
            let mut found = None;
            for end in rest.char_indices().rev().map(|(at, letter)| at + letter.len_utf8()) {
                meter.tick("the search for its tokens")?;
                let part = rest.get(..end).unwrap_or_default();
                spelled.clear();
                spelled.push_str(if start > 0 { prefix } else { "" });
                spelled.push_str(part);
                if let Some(id) = self.vocab.id(&spelled) {
                    found = Some((id, end));
                    break;
                }
            }
            let Some((id, end)) = found else { return Ok(false) };
            ids.push(id);
            start += end;
        }
        Ok(true)
    }
}
