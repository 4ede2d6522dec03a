//! GGUF vocabularies of encoders: WordPiece (`bert`), and the Unigram model of SentencePiece (`t5`), which XLM-RoBERTa has.

use serde_json::json;

use crate::bpe::Vocab;
use crate::charsmap::CharsMap;
use crate::decode::Decoders;
use crate::error::Error;
use crate::gguf::{Ends, GgufVocab, SPACE, TYPE_CONTROL, TYPE_UNKNOWN, marks_to_spaces, spaces_to_marks};
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

impl GgufVocab {
    /// WordPiece. The file writes a mark before what begins a word, and nothing before what goes on with one.
    pub(crate) fn into_word_pieces(mut self) -> Result<(Parts, Ends), Error> {
        let added = self.added_tokens()?;
        let types = self.types.take().unwrap_or_default();
        let mut tokens = Strings::new();
        // Models that tell large letters from small ones have tokens with large ones.
        let mut is_cased = false;
        for (id, token) in std::mem::take(&mut self.tokens).iter().enumerate() {
            let is_whole = types.get(id).is_some_and(|kind| [TYPE_CONTROL, TYPE_UNKNOWN].contains(kind))
                || token.len() > 2 && token.starts_with(b"[") && token.ends_with(b"]");
            let pushed = match token.strip_prefix(SPACE.as_bytes()) {
                _ if is_whole => tokens.push(token),
                Some(word) => {
                    // Special and unused ones stand in brackets, and newer files mark these too.
                    is_cased |= word.iter().any(u8::is_ascii_uppercase) && !word.starts_with(b"[");
                    tokens.push(word)
                }
                None => tokens.push(&[CONTINUED.as_bytes(), token].concat()),
            };
            if !pushed {
                return Err(Error::malformed("GGUF vocabulary: more text than can be"));
            }
        }
        let vocab = Vocab::new(tokens);
        let unknown = vocab.text(self.unknown.unwrap_or(UNKNOWN)).unwrap_or_else(|| "[UNK]".to_owned());
        let parts = WordParts { prefix: CONTINUED.to_owned(), characters_max: WORD_CHARACTERS_MAX };
        let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": !is_cased});
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
