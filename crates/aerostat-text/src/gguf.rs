//! Tokenizers out of GGUF metadata.

use tokenizers::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::added::{ADDED_MAX, AddedToken};
use crate::bpe::{Bpe, Merges, Settings, Vocab, rank_of_score};
use crate::decode::{Decoder, Decoders};
use crate::ends::TURN_ENDS;
use crate::error::{Error, ErrorKind, clip};
use crate::hugging_face::merge_ids;
use crate::model::TextModel;
use crate::normalize::{Normalizer, Normalizers};
use crate::pattern::Pattern;
use crate::pre_tokenizers::PreTokenizer;
use crate::split::{Splitter, Splitters};
use crate::strings::Strings;
use crate::tokenizer::Parts;

/// The `tokenizer.ggml.*` metadata of a GGUF file, as it stands there.
///
/// `tokens` becomes the vocabulary as it is, so it is held once; the rest is given back after use.
#[derive(Debug, Clone, Default)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE), `llama` (SentencePiece) or `gemma4` (BPE over pieces of
    /// SentencePiece), `bert` (WordPiece) or `t5` (SentencePiece's Unigram); others are refused by name.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is split before merging, such as `llama-bpe`; absent means `default`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the text of each id.
    pub tokens: Strings,
    /// `tokenizer.ggml.scores`: one per token (SentencePiece: the greater score merges first).
    pub scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub types: Option<Vec<i32>>,
    /// `tokenizer.ggml.merges`: `left right`, the earlier first (BPE).
    pub merges: Option<Strings>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.cls_token_id`: what begins a text (WordPiece); absent means that of BOS.
    pub cls: Option<u32>,
    /// `tokenizer.ggml.seperator_token_id` (so spelled): what ends a text (WordPiece); absent means that of EOS.
    pub separator: Option<u32>,
    /// `tokenizer.ggml.precompiled_charsmap`: the table by which SentencePiece normalises characters (Unigram).
    pub characters: Option<Vec<u8>>,
    /// `tokenizer.ggml.remove_extra_whitespaces`: one space for runs of them (Unigram); absent means yes.
    pub single_spaces: Option<bool>,
    /// `tokenizer.ggml.add_bos_token`; absent means the habit of the model kind.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`; absent means no.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`; absent means yes for SentencePiece.
    pub add_space_prefix: Option<bool>,
}

/// The tokens at the ends of a text, and whether they are put there.
pub(crate) struct Ends {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
}

pub(crate) const TYPE_UNKNOWN: i32 = 2;
pub(crate) const TYPE_CONTROL: i32 = 3;
const TYPE_USER_DEFINED: i32 = 4;

/// What SentencePiece writes for a space.
pub(crate) const SPACE: &str = "\u{2581}";

impl GgufVocab {
    pub(crate) fn into_parts(mut self) -> Result<(Parts, Ends), Error> {
        let count = self.tokens.len();
        let lengths = [self.scores.as_ref().map(Vec::len), self.types.as_ref().map(Vec::len)];
        if count == 0 || lengths.into_iter().flatten().any(|length| length < count) {
            let [scores, types] = lengths.map(|length| length.map_or("none".to_owned(), |n| n.to_string()));
            let message = format!("GGUF vocabulary: {count} tokens, {scores} scores, {types} token types");
            return Err(Error::malformed(message));
        }
        if let Some(scores) = &mut self.scores {
            scores.truncate(count);
        }
        match self.model.as_str() {
            "gpt2" => self.into_byte_level(),
            "llama" => self.into_sentence_piece(),
            "gemma4" => self.into_ranked_pieces(),
            "bert" => self.into_word_pieces(),
            "t5" => self.into_unigram(),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "GGUF tokenizer model {:?} is not supported, only \"gpt2\", \"llama\", \"gemma4\", \"bert\" and \"t5\"",
                    clip(other)
                ),
            )),
        }
    }

    fn into_byte_level(mut self) -> Result<(Parts, Ends), Error> {
        let pre = self.pre.as_deref().unwrap_or("default");
        if pre == "gemma4" {
            return self.into_ranked_pieces();
        }
        let pre_tokenizer = PreTokenizer::named(pre).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("GGUF pre-tokenizer {:?} is not supported", clip(pre)))
        })?;
        let splitters = pre_tokenizer.splitters()?;
        let added = self.added_tokens()?;
        let merges = self.merges.take();
        let vocab = Vocab::new(std::mem::take(&mut self.tokens));
        let merges = match merges {
            Some(merges) => ranked(merges, &vocab)?,
            // Vocabularies of tiktoken have no merges: each pair that is a token merges, the lesser id first.
            None if pre_tokenizer.without_merges => Merges::Scored((0..vocab.ids() as u32).collect()),
            None => return Err(Error::malformed("GGUF vocabulary: no tokenizer.ggml.merges")),
        };
        let settings = Settings { ignore_merges: pre_tokenizer.ignore_merges, ..Settings::default() };
        let parts = Parts {
            model: TextModel::Bpe(Bpe::new(vocab, merges, settings)?),
            normalizers: Normalizers::default(),
            splitters,
            decoders: Decoders(vec![Decoder::Library(Box::new(ByteLevel::new(false, true, true).into()))]),
            added: vec![added],
        };
        let ends = Ends {
            bos: self.bos,
            eos: self.eos,
            add_bos: self.add_bos.unwrap_or(pre_tokenizer.add_bos),
            add_eos: self.add_eos.unwrap_or(false),
        };
        Ok((parts, ends))
    }

    fn into_sentence_piece(mut self) -> Result<(Parts, Ends), Error> {
        let scores = self
            .scores
            .take()
            .ok_or_else(|| Error::malformed("GGUF vocabulary: no tokenizer.ggml.scores"))?;
        let ranks = scores.into_iter().map(rank_of_score).collect();
        let added = self.added_tokens()?;
        let vocab = Vocab::new(std::mem::take(&mut self.tokens));
        // The ids of the original Llama, where the file names none.
        let unknown = vocab.text(self.unknown.unwrap_or(0));
        let settings = Settings {
            unknown,
            fuse_unknown: true,
            // Of each character whose bytes all have tokens, whichever others there are.
            byte_fallback: true,
            ..Settings::default()
        };
        let prefix = self.add_space_prefix.unwrap_or(true);
        let parts = Parts {
            model: TextModel::Bpe(Bpe::new(vocab, Merges::Scored(ranks), settings)?),
            normalizers: spaces_to_marks(prefix)?,
            splitters: Splitters::default(),
            decoders: marks_to_spaces(prefix)?,
            added: vec![added],
        };
        let ends = Ends {
            bos: self.bos.or(Some(1)),
            eos: self.eos.or(Some(2)),
            add_bos: self.add_bos.unwrap_or(true),
            add_eos: self.add_eos.unwrap_or(false),
        };
        Ok((parts, ends))
    }

    /// Gemma 4: pieces as SentencePiece writes them, merged in the order of a list.
    fn into_ranked_pieces(mut self) -> Result<(Parts, Ends), Error> {
        let added = self.added_tokens()?;
        let merges = self.merges.take();
        let vocab = Vocab::new(std::mem::take(&mut self.tokens));
        let merges = merges.ok_or_else(|| Error::malformed("GGUF vocabulary: no tokenizer.ggml.merges"))?;
        let merges = ranked(merges, &vocab)?;
        let unknown = self.unknown.and_then(|id| vocab.text(id));
        let settings = Settings { unknown, fuse_unknown: true, byte_fallback: true, ..Settings::default() };
        let parts = Parts {
            model: TextModel::Bpe(Bpe::new(vocab, merges, settings)?),
            normalizers: spaces_to_marks(false)?,
            splitters: Splitters(vec![Splitter::regex(r"[^\n]+|\n+")?]),
            decoders: marks_to_spaces(false)?,
            added: vec![added],
        };
        let (bos, eos, add_eos) = (self.bos, self.eos, self.add_eos.unwrap_or(false));
        Ok((parts, Ends { bos, eos, add_bos: true, add_eos }))
    }

    /// The tokens that are recognised as a whole in text: by their types, and those that end a turn whatever their type.
    pub(crate) fn added_tokens(&self) -> Result<Vec<AddedToken>, Error> {
        let types = self.types.iter().flatten().copied().chain(std::iter::repeat(1));
        let mut added = Vec::new();
        for (token, kind) in self.tokens.iter().zip(types) {
            let Ok(text) = std::str::from_utf8(token) else { continue };
            let special = [TYPE_UNKNOWN, TYPE_CONTROL].contains(&kind) || TURN_ENDS.contains(&text);
            if special || kind == TYPE_USER_DEFINED {
                added.push(AddedToken::raw(text, special));
            }
        }
        if added.len() > ADDED_MAX {
            let message = format!("GGUF vocabulary: {} added tokens, more than {ADDED_MAX}", added.len());
            return Err(Error::malformed(message));
        }
        Ok(added)
    }
}

/// Merges as `left right`, the first first.
pub(crate) fn ranked(merges: Strings, vocab: &Vocab) -> Result<Merges, Error> {
    let mut pairs = Vec::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        let merge = String::from_utf8_lossy(merge);
        // The first character may be a space of its own.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let space = merge.get(first..).and_then(|rest| rest.find(' ')).map(|at| at + first);
        let sides = space.and_then(|at| Some((merge.get(..at)?, merge.get(at + 1..)?)));
        let ids = sides.and_then(|(left, right)| merge_ids(vocab, left, right, 0));
        pairs.push(ids.ok_or_else(|| {
            let merge = clip(&merge);
            Error::malformed(format!("merge {rank}, {merge:?}, is not of tokens of the vocabulary"))
        })?);
    }
    Ok(Merges::ranked(pairs))
}

/// Marks for spaces, and with `prefix` one before the text.
pub(crate) fn spaces_to_marks(prefix: bool) -> Result<Normalizers, Error> {
    let marks = Normalizer::Replace(Pattern::literal(" ")?, SPACE.to_owned());
    let prefix = prefix.then(|| Normalizer::Prepend(SPACE.to_owned()));
    Ok(Normalizers(prefix.into_iter().chain([marks]).collect()))
}

/// Spaces for marks, bytes for their tokens, and with `prefix` without a space before the text.
pub(crate) fn marks_to_spaces(prefix: bool) -> Result<Decoders, Error> {
    let library = |step: DecoderWrapper| Decoder::Library(Box::new(step));
    let mut steps = vec![
        Decoder::Replace(Pattern::literal(SPACE)?, " ".to_owned()),
        library(ByteFallback::new().into()),
        library(Fuse::new().into()),
    ];
    if prefix {
        steps.push(Decoder::Strip { letter: ' ', start: 1, end: 0 });
    }
    Ok(Decoders(steps))
}
