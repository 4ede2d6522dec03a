//! Tokenizers out of GGUF metadata.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as Splitters;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
};

use crate::bpe::{Bpe, Merges, Settings, Vocab, rank_of_score};
use crate::error::{Error, ErrorKind};
use crate::hugging_face::merge_ids;
use crate::model::TextModel;
use crate::strings::Strings;

/// The `tokenizer.ggml.*` metadata of a GGUF file, as it stands there.
///
/// `tokens` becomes the vocabulary as it is, so it is held once; the rest is given back after use.
#[derive(Debug, Clone, Default)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece); others are refused by name.
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
    /// `tokenizer.ggml.add_bos_token`; absent means the habit of the model kind.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`; absent means no.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`; absent means yes for SentencePiece.
    pub add_space_prefix: Option<bool>,
}

/// A GGUF vocabulary as parts of a tokenizer.
pub(crate) struct Parts {
    pub(crate) model: TextModel,
    pub(crate) normalizer: Option<NormalizerWrapper>,
    pub(crate) pre_tokenizer: Option<PreTokenizerWrapper>,
    pub(crate) decoder: DecoderWrapper,
    pub(crate) added: Vec<AddedToken>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
}

const TYPE_UNKNOWN: i32 = 2;
const TYPE_CONTROL: i32 = 3;
const TYPE_USER_DEFINED: i32 = 4;

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

impl GgufVocab {
    pub(crate) fn into_parts(self) -> Result<Parts, Error> {
        let count = self.tokens.len();
        let lengths = [self.scores.as_ref().map(Vec::len), self.types.as_ref().map(Vec::len)];
        if count == 0 || lengths.into_iter().flatten().any(|length| length != count) {
            let [scores, types] = lengths.map(|length| length.map_or("none".to_owned(), |n| n.to_string()));
            let message = format!("GGUF vocabulary: {count} tokens, {scores} scores, {types} token types");
            return Err(Error::malformed(message));
        }
        match self.model.as_str() {
            "gpt2" => self.into_byte_level(),
            "llama" => self.into_sentence_piece(),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!("GGUF tokenizer model {other:?} is not supported, only \"gpt2\" and \"llama\""),
            )),
        }
    }

    fn into_byte_level(self) -> Result<Parts, Error> {
        let pre = self.pre.as_deref().unwrap_or("default");
        let splitter = SPLITTERS.iter().find(|splitter| splitter.names.contains(&pre)).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("GGUF pre-tokenizer {pre:?} is not supported"))
        })?;
        let pre_tokenizer = splitter.build()?;
        let added = self.added_tokens();
        let vocab = Vocab::new(self.tokens);
        let merges =
            self.merges.ok_or_else(|| Error::malformed("GGUF vocabulary: no tokenizer.ggml.merges"))?;
        let mut pairs = Vec::with_capacity(merges.len());
        for (rank, merge) in merges.iter().enumerate() {
            let merge = String::from_utf8_lossy(merge);
            let ids = merge.split_once(' ').and_then(|(left, right)| merge_ids(&vocab, left, right, 0));
            let wrong =
                || Error::malformed(format!("GGUF vocabulary: merge {rank}, {merge:?}, is not of tokens"));
            pairs.push(ids.ok_or_else(wrong)?);
        }
        drop(merges);
        let settings = Settings { ignore_merges: splitter.ignore_merges, ..Settings::default() };
        Ok(Parts {
            model: TextModel::Compact(Bpe::new(vocab, Merges::ranked(pairs), settings)?),
            normalizer: None,
            pre_tokenizer: Some(pre_tokenizer),
            decoder: ByteLevel::new(false, true, true).into(),
            added,
            bos: self.bos,
            eos: self.eos,
            add_bos: self.add_bos.unwrap_or(splitter.add_bos),
            add_eos: self.add_eos.unwrap_or(false),
        })
    }

    fn into_sentence_piece(mut self) -> Result<Parts, Error> {
        let scores = self
            .scores
            .take()
            .ok_or_else(|| Error::malformed("GGUF vocabulary: no tokenizer.ggml.scores"))?;
        let mut ranks: Vec<u32> = scores.into_iter().map(rank_of_score).collect();
        self.respell_spaces(&mut ranks);
        let added = self.added_tokens();
        let vocab = Vocab::new(self.tokens);
        // The ids of the original Llama, where the file names none.
        let unknown = vocab.text(self.unknown.unwrap_or(0));
        let settings = Settings {
            unknown,
            fuse_unknown: true,
            byte_fallback: vocab.id("<0x00>").is_some(),
            ..Settings::default()
        };
        let to_marks = Replace::new(" ", SPACE).map_err(|error| Error::malformed(error.to_string()))?;
        let to_spaces = Replace::new(SPACE, " ").map_err(|error| Error::malformed(error.to_string()))?;
        let mut normalizers: Vec<NormalizerWrapper> = vec![to_marks.into()];
        let mut decoders: Vec<DecoderWrapper> =
            vec![to_spaces.into(), ByteFallback::new().into(), Fuse::new().into()];
        if self.add_space_prefix.unwrap_or(true) {
            normalizers.insert(0, Prepend::new(SPACE.to_owned()).into());
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        Ok(Parts {
            model: TextModel::Compact(Bpe::new(vocab, Merges::Scored(ranks), settings)?),
            normalizer: Some(Normalizers::new(normalizers).into()),
            pre_tokenizer: None,
            decoder: Decoders::new(decoders).into(),
            added,
            bos: self.bos.or(Some(1)),
            eos: self.eos.or(Some(2)),
            add_bos: self.add_bos.unwrap_or(true),
            add_eos: self.add_eos.unwrap_or(false),
        })
    }

    /// Writes the user-defined tokens that are runs of spaces as SentencePiece writes spaces, and lets them merge
    /// before all others: as Gemma has them in its `tokenizer.json`.
    fn respell_spaces(&mut self, ranks: &mut [u32]) {
        let is_run = |token: &[u8]| token.len() > 1 && token.iter().all(|byte| *byte == b' ');
        let Some(types) = self.types.as_mut().filter(|_| self.tokens.iter().any(is_run)) else { return };
        let mut respelled = Strings::new();
        for (id, ((token, kind), rank)) in self.tokens.iter().zip(types).zip(ranks).enumerate() {
            let fits = if is_run(token) && *kind == TYPE_USER_DEFINED {
                (*kind, *rank) = (1, id as u32);
                respelled.push(SPACE.repeat(token.len()).as_bytes())
            } else {
                respelled.push(token)
            };
            if !fits {
                return;
            }
        }
        self.tokens = respelled;
    }

    /// The tokens that are recognised as a whole in text.
    fn added_tokens(&self) -> Vec<AddedToken> {
        let types = self.types.iter().flatten();
        let whole = |(token, kind): (&[u8], &i32)| {
            let special = [TYPE_UNKNOWN, TYPE_CONTROL].contains(kind);
            let text = std::str::from_utf8(token).ok().filter(|_| special || *kind == TYPE_USER_DEFINED)?;
            Some(AddedToken::from(text, special).normalized(false))
        };
        self.tokens.iter().zip(types).filter_map(whole).collect()
    }
}

/// How byte-level text is split before merging.
struct Splitter {
    /// The values of `tokenizer.ggml.pre` that mean it.
    names: &'static [&'static str],
    /// Splits into words, or the one of GPT-2.
    words: Option<&'static str>,
    /// Whether each digit is split off before.
    digits: bool,
    ignore_merges: bool,
    add_bos: bool,
}

impl Splitter {
    fn build(&self) -> Result<PreTokenizerWrapper, Error> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        if self.digits {
            steps.push(Digits::new(true).into());
        }
        if let Some(words) = self.words {
            let pattern = SplitPattern::Regex(words.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(split.map_err(|error| Error::malformed(error.to_string()))?.into());
        }
        steps.push(ByteLevel::new(false, true, self.words.is_none()).into());
        Ok(Splitters::new(steps).into())
    }
}

const WORDS_LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const WORDS_QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const WORDS_QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const WORDS_TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const WORDS_GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The splitters by name, with the habits that come with them.
const SPLITTERS: [Splitter; 8] = [
    Splitter {
        names: &["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        words: Some(WORDS_LLAMA3),
        digits: false,
        ignore_merges: true,
        add_bos: true,
    },
    Splitter {
        names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"],
        words: Some(WORDS_LLAMA3),
        digits: false,
        ignore_merges: false,
        add_bos: false,
    },
    Splitter {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
            "kormo",
        ],
        words: Some(WORDS_QWEN2),
        digits: false,
        ignore_merges: false,
        add_bos: false,
    },
    Splitter {
        names: &["qwen35"],
        words: Some(WORDS_QWEN35),
        digits: false,
        ignore_merges: false,
        add_bos: false,
    },
    Splitter {
        names: &["tekken"],
        words: Some(WORDS_TEKKEN),
        digits: false,
        ignore_merges: true,
        add_bos: true,
    },
    Splitter {
        names: &["gpt-4o", "llama4", "kanana2", "minimax-m2"],
        words: Some(WORDS_GPT4O),
        digits: false,
        ignore_merges: false,
        add_bos: false,
    },
    Splitter {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        words: None,
        digits: true,
        ignore_merges: false,
        add_bos: false,
    },
    Splitter {
        names: &[
            "default",
            "gpt-2",
            "gpt2",
            "phi-2",
            "olmo",
            "mpt",
            "jais",
            "trillion",
            "exaone4",
            "granite-docling",
        ],
        words: None,
        digits: false,
        ignore_merges: false,
        add_bos: false,
    },
];
