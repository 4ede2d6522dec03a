//! GGUF vocabularies of encoders: WordPiece (`bert`), and the Unigram model of SentencePiece (`t5`), which XLM-RoBERTa has.

use serde_json::json;

use crate::bpe::Vocab;
use crate::charsmap::CharsMap;
use crate::decode::Decoders;
use crate::error::Error;
use crate::gguf::{Ends, GgufVocab, SPACE, TYPE_CONTROL, TYPE_UNKNOWN, marks_to_spaces, spaces_to_marks};
use crate::meter::Meter;
use crate::model::TextModel;
use crate::normalize::{Normalizer, Normalizers};
use crate::split::Splitters;
use crate::strings::Strings;
use crate::tokenizer::Parts;
use crate::unigram::Unigram;
use crate::words::{Parts as WordParts, Words};

/// What parts of a word other than its first begin with in WordPiece.
const CONTINUED: &str = "##";
/// The ids of the original BERT, where the file names none.
const CLS: u32 = 101;
const SEPARATOR: u32 = 102;
const UNKNOWN: u32 = 100;
/// Longer words are unknown.
const WORD_CHARACTERS_MAX: usize = 100;

/// The letters that are tokens. A file does not say whether texts are put into small letters and their accents taken off, but
/// vocabularies are learnt from such texts: where they were, no large letter is a token, or none with an accent, and where they were
/// not, every letter is. Words are no sign, since some were put in by hand. (llama.cpp makes all texts small.) A tokenizer of a
/// model that keeps large letters which it has no tokens for takes words with them for unknown, and we do not.
#[derive(Default)]
struct Letters(String);

impl Letters {
    fn see(&mut self, token: &[u8]) {
        let text = std::str::from_utf8(token).unwrap_or_default();
        if text.chars().count() == 1 {
            self.0 += text;
            self.0.push('\n');
        }
    }

    fn are_small(&self) -> bool {
        self.0.chars().all(|letter| letter.to_lowercase().eq([letter]))
    }

    fn are_plain(&self) -> Result<bool, Error> {
        let strip = json!({"type": "BertNormalizer", "clean_text": false, "handle_chinese_chars": false,
            "strip_accents": true, "lowercase": false});
        let stripped = Normalizers::read(&strip)?.apply(&self.0, &Meter::new(self.0.len()))?;
        Ok(stripped == self.0)
    }
}

impl GgufVocab {
    /// WordPiece. The file writes a mark before what begins a word, and nothing before what goes on with one.
    pub(crate) fn into_word_pieces(mut self) -> Result<(Parts, Ends), Error> {
        let added = self.added_tokens()?;
        let types = self.types.take().unwrap_or_default();
        let mut tokens = Strings::new();
        let mut letters = Letters::default();
        for (id, token) in std::mem::take(&mut self.tokens).iter().enumerate() {
            let is_whole = types.get(id).is_some_and(|kind| [TYPE_CONTROL, TYPE_UNKNOWN].contains(kind))
                || token.len() > 2 && token.starts_with(b"[") && token.ends_with(b"]");
            let pushed = match token.strip_prefix(SPACE.as_bytes()) {
                _ if is_whole => tokens.push(token),
                Some(word) => {
                    letters.see(word);
                    tokens.push(word)
                }
                None => {
                    letters.see(token);
                    tokens.push(&[CONTINUED.as_bytes(), token].concat())
                }
            };
            if !pushed {
                return Err(Error::malformed("GGUF vocabulary: more text than can be"));
            }
        }
        let vocab = Vocab::new(tokens);
        let unknown = vocab.text(self.unknown.unwrap_or(UNKNOWN)).unwrap_or_else(|| "[UNK]".to_owned());
        let parts = WordParts { prefix: CONTINUED.to_owned(), characters_max: WORD_CHARACTERS_MAX };
        let lowercase = letters.are_small();
        let strip_accents = lowercase && letters.are_plain()?;
        let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": strip_accents, "lowercase": lowercase});
        let parts = Parts {
            model: TextModel::Words(Words::new(vocab, &unknown, Some(parts))),
            normalizers: Normalizers::read(&normalizer)?,
            splitters: Splitters::read(&json!({"type": "BertPreTokenizer"}))?,
            decoders: Decoders::read(&json!({"type": "WordPiece", "prefix": CONTINUED, "cleanup": true}))?,
            added: vec![added],
        };
        let ends = Ends {
            bos: self.cls.or(self.bos).or(Some(CLS)),
            eos: self.separator.or(self.eos).or(Some(SEPARATOR)),
            add_bos: self.add_bos.unwrap_or(true),
            add_eos: self.add_eos.unwrap_or(true),
        };
        Ok((parts, ends))
    }

    /// Unigram: of all ways to cut a text, the one whose scores sum to the most.
    pub(crate) fn into_unigram(mut self) -> Result<(Parts, Ends), Error> {
        let scores = self.scores.take();
        let scores = scores.ok_or_else(|| Error::malformed("GGUF vocabulary: no tokenizer.ggml.scores"))?;
        let added = self.added_tokens()?;
        let by_type = self.types.iter().flatten().position(|kind| *kind == TYPE_UNKNOWN);
        let unknown = self.unknown.or(by_type.map(|id| id as u32));
        let vocab = Vocab::new(std::mem::take(&mut self.tokens));
        let prefix = self.add_space_prefix.unwrap_or(true);
        let table = self.characters.as_deref().filter(|table| !table.is_empty());
        let table = table.map(CharsMap::read).transpose()?.map(Normalizer::Table);
        let single = self.single_spaces.unwrap_or(true).then_some(Normalizer::SingleSpaces);
        let marks = spaces_to_marks(prefix)?.0;
        let parts = Parts {
            model: TextModel::Unigram(Unigram::new(vocab, scores, unknown, false)?.in_single_precision()),
            normalizers: Normalizers(table.into_iter().chain(single).chain(marks).collect()),
            splitters: Splitters::default(),
            decoders: marks_to_spaces(prefix)?,
            added: vec![added],
        };
        let ends = Ends {
            bos: self.bos,
            eos: self.eos,
            add_bos: self.add_bos.unwrap_or(false),
            add_eos: self.add_eos.unwrap_or(true),
        };
        Ok((parts, ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `<S>`, which stands in the vocabulary of the Chinese BERT, once made its models keep large letters.
    #[test]
    fn letters_say_how_texts_were_made_alike() {
        let of = |tokens: &[&str]| {
            let mut letters = Letters::default();
            tokens.iter().for_each(|token| letters.see(token.as_bytes()));
            (letters.are_small(), letters.are_plain().unwrap())
        };
        assert_eq!(of(&["[UNK]", "<S>", "[unused1]", "a", "b", "COVID", "か", "и", "ß"]), (true, true));
        assert_eq!(of(&["a", "A", "é"]), (false, false));
        assert_eq!(of(&["a", "о", "О"]), (false, true));
        assert_eq!(of(&["a", "ä", "ö"]), (true, false));
    }
}
