//! Vocabularies of tiktoken: `*.tiktoken`, `tiktoken.model` and older `tokenizer.model` (a token in base64 and its rank on
//! each line), and `tekken.json` of Mistral.
//!
//! Neither of the first says how texts are split, nor which special tokens there are: code beside them does. Here it is
//! told from the class that `tokenizer_config.json` names, from the name of the file, or from the number of tokens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::added::AddedToken;
use crate::around::Around;
use crate::bpe::{Bpe, Merges, Settings, Vocab};
use crate::bytes::to_byte_level;
use crate::decode::{Decoder, Decoders};
use crate::error::{Error, ErrorKind};
use crate::hugging_face::{ID_MAX, NamedToken, TokenizerConfig};
use crate::model::TextModel;
use crate::normalize::{Normalizer, Normalizers};
use crate::pre_tokenizers::PreTokenizer;
use crate::split::{Splitter, Splitters};
use crate::strings::Strings;
use crate::tokenizer::{Parts, Tokenizer};

/// What a file of ranks does not say.
struct Kind {
    /// Classes of tokenizers that mean it.
    classes: &'static [&'static str],
    /// The number of tokens without special ones.
    tokens: usize,
    /// How texts are split, by a name of [`PreTokenizer`].
    split: &'static str,
    /// Whether texts are put into Unicode's composed form first.
    composed: bool,
    /// The special tokens after the others; the last stands for as many as are left, with its number from 0.
    special: &'static [&'static str],
    special_count: usize,
    add_bos: bool,
}

const QWEN: Kind = Kind {
    classes: &["QWenTokenizer"],
    tokens: 151_643,
    split: "qwen2",
    composed: true,
    special: &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_{}|>"],
    special_count: 208,
    add_bos: false,
};

const KINDS: [Kind; 4] = [
    QWEN,
    Kind {
        classes: &["TikTokenTokenizer"],
        tokens: 163_584,
        split: "kimi-k2",
        composed: false,
        special: &[],
        special_count: 0,
        add_bos: false,
    },
    Kind {
        classes: &["ChatGLM4Tokenizer"],
        tokens: 151_329,
        split: "chatglm-bpe",
        composed: false,
        special: &[],
        special_count: 0,
        add_bos: false,
    },
    Kind {
        classes: &[],
        tokens: 128_000,
        split: "llama-bpe",
        composed: false,
        special: &[
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|reserved_special_token_0|>",
            "<|reserved_special_token_1|>",
            "<|finetune_right_pad_id|>",
            "<|step_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
            "<|python_tag|>",
            "<|reserved_special_token_{+2}|>",
        ],
        special_count: 256,
        add_bos: true,
    },
];

/// The tokenizer of a file of ranks; `name` is the file's.
pub(crate) fn read(bytes: &[u8], name: &str, config: &TokenizerConfig) -> Result<Tokenizer, Error> {
    let texts = ranks(bytes)?;
    let class = config.tokenizer_class.as_deref().unwrap_or_default();
    let kind = match name {
        "qwen.tiktoken" => Some(&QWEN),
        _ => KINDS
            .iter()
            .find(|kind| kind.classes.contains(&class))
            .or_else(|| KINDS.iter().find(|kind| kind.tokens == texts.len())),
    };
    let kind = kind.ok_or_else(|| {
        let message = format!(
            "a file of {} ranks does not say how texts are split, and no known model has it; \
             a tokenizer.json beside it does (transformers' save_pretrained writes one)",
            texts.len()
        );
        Error::new(ErrorKind::Unsupported, message)
    })?;
    let way = PreTokenizer::named(kind.split).ok_or_else(|| Error::malformed("no such way to split"))?;
    let special = special_tokens(kind, texts.len());
    let (texts, special) = with_special(texts, special);
    let composed = kind.composed.then(|| Normalizer::Library(Box::new(NormalizerWrapper::NFC(NFC))));
    let normalizers = Normalizers(composed.into_iter().collect());
    let add_bos = config.add_bos_token.unwrap_or(kind.add_bos);
    build(texts, special, normalizers, way.splitters()?, config, add_bos)
}

/// The tokens in the order of their ranks; their texts as a byte-level vocabulary writes them.
fn ranks(bytes: &[u8]) -> Result<Strings, Error> {
    let mut tokens: Vec<(u32, String)> = Vec::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let wrong = || Error::malformed(format!("line {}: not a token in base64 and its rank", at + 1));
        let (token, rank) = line.split_at(line.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?);
        let token = STANDARD.decode(token).map_err(|_| wrong())?;
        let rank = std::str::from_utf8(rank).ok().and_then(|rank| rank.trim().parse::<u64>().ok());
        let rank = u32::try_from(rank.ok_or_else(wrong)?).ok().filter(|rank| *rank <= ID_MAX);
        let rank = rank.ok_or_else(|| {
            Error::malformed(format!("line {}: a rank above {ID_MAX}, the most that is read", at + 1))
        })?;
        tokens.push((rank, to_byte_level(&token)));
    }
    tokens.sort_unstable_by_key(|(rank, _)| *rank);
    let mut texts = Strings::new();
    for (rank, token) in tokens {
        if texts.len() > rank as usize {
            return Err(Error::malformed(format!("two tokens have the rank {rank}")));
        }
        while texts.len() < rank as usize && texts.push(b"") {}
        if !texts.push(token.as_bytes()) {
            return Err(Error::malformed("more bytes than can be"));
        }
    }
    if texts.is_empty() {
        return Err(Error::malformed("the file has no ranks"));
    }
    Ok(texts)
}

fn special_tokens(kind: &Kind, first: usize) -> Vec<(u32, String)> {
    let listed = kind.special.len().saturating_sub(1);
    let text = |at: usize| match kind.special.get(at).filter(|_| at < listed) {
        Some(text) => (*text).to_owned(),
        None => {
            let number = at - listed;
            let last = kind.special.last().copied().unwrap_or_default();
            last.replace("{}", &number.to_string()).replace("{+2}", &(number + 2).to_string())
        }
    };
    (0..kind.special_count).map(|at| ((first + at) as u32, text(at))).collect()
}

/// Puts special tokens at their ids.
fn with_special(mut texts: Strings, special: Vec<(u32, String)>) -> (Strings, Vec<AddedToken>) {
    for (id, text) in &special {
        while texts.len() < *id as usize && texts.push(b"") {}
        let _ = texts.push(text.as_bytes());
    }
    let tokens = special.iter().map(|(_, text)| AddedToken::raw(text, true)).collect();
    (texts, tokens)
}

/// The pair whose text has the lowest rank merges first.
fn build(
    texts: Strings,
    special: Vec<AddedToken>,
    normalizers: Normalizers,
    splitters: Splitters,
    config: &TokenizerConfig,
    add_bos: bool,
) -> Result<Tokenizer, Error> {
    let ranks = (0..texts.len() as u32).collect();
    let settings = Settings { ignore_merges: true, ..Settings::default() };
    let model = TextModel::Bpe(Bpe::new(Vocab::new(texts), Merges::Scored(ranks), settings)?);
    let parts = Parts {
        model,
        normalizers,
        splitters,
        decoders: Decoders(vec![Decoder::Library(Box::new(ByteLevel::new(false, true, true).into()))]),
        added: [vec![special], config.added()].concat(),
    };
    let named = |tokenizer: &Tokenizer, token: &NamedToken, usual: &[&str]| {
        let named = token.text().and_then(|text| tokenizer.token_id(text));
        named.or_else(|| usual.iter().find_map(|text| tokenizer.token_id(text)))
    };
    let mut tokenizer = Tokenizer::new(parts, Around::default(), |tokenizer| {
        let bos = named(tokenizer, &config.bos_token, &["<|begin_of_text|>", "<s>"]);
        [bos, named(tokenizer, &config.eos_token, &["<|end_of_text|>", "</s>", "<|endoftext|>"])]
    })?;
    tokenizer.put_around(add_bos, config.add_eos_token.unwrap_or(false));
    Ok(tokenizer)
}

/// `tekken.json`.
#[derive(Deserialize)]
struct Tekken {
    config: TekkenConfig,
    vocab: Vec<TekkenToken>,
    #[serde(default)]
    special_tokens: Option<Vec<TekkenSpecial>>,
}

#[derive(Deserialize)]
struct TekkenConfig {
    pattern: String,
    default_vocab_size: usize,
    default_num_special_tokens: usize,
}

#[derive(Deserialize)]
struct TekkenToken {
    rank: u32,
    token_bytes: String,
}

#[derive(Deserialize)]
struct TekkenSpecial {
    rank: u32,
    token_str: String,
}

/// The special tokens of files that list none.
const TEKKEN_SPECIAL: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

/// The tokenizer of a `tekken.json`: special tokens first, then as many of the others as the file says it uses.
pub(crate) fn read_tekken(bytes: &[u8], config: &TokenizerConfig) -> Result<Tokenizer, Error> {
    let wrong = |error: serde_json::Error| Error::malformed(crate::error::clip(&error.to_string()));
    let file: Tekken = serde_json::from_slice(bytes).map_err(wrong)?;
    let specials = file.config.default_num_special_tokens;
    let count = file.config.default_vocab_size;
    if specials > 1 << 16 || count > ID_MAX as usize || count < specials {
        return Err(Error::malformed("tekken.json: the sizes of its vocabulary contradict each other"));
    }
    let mut special: Vec<String> = (0..specials).map(|id| format!("<SPECIAL_{id}>")).collect();
    let mut name = |id: usize, text: &str| {
        if let Some(token) = special.get_mut(id) {
            text.clone_into(token);
        }
    };
    match &file.special_tokens {
        Some(list) => list.iter().for_each(|token| name(token.rank as usize, &token.token_str)),
        None => TEKKEN_SPECIAL.iter().enumerate().for_each(|(id, text)| name(id, text)),
    }
    let mut tokens = vec![None; count - specials];
    for token in &file.vocab {
        if let Some(place) = tokens.get_mut(token.rank as usize) {
            let bytes = STANDARD.decode(&token.token_bytes);
            *place = Some(bytes.map_err(|_| Error::malformed("tekken.json: a token is not base64"))?);
        }
    }
    drop(file.vocab);
    let mut texts: Strings = special.iter().collect();
    for token in tokens {
        if !texts.push(to_byte_level(&token.unwrap_or_default()).as_bytes()) {
            return Err(Error::malformed("tekken.json: more bytes than can be"));
        }
    }
    let special = special.iter().map(|text| AddedToken::raw(text, true)).collect();
    let bytes = Splitter::ByteLevel { prefix_space: false, words: None };
    let splitters = Splitters(vec![Splitter::regex(&file.config.pattern)?, bytes]);
    let add_bos = config.add_bos_token.unwrap_or(true);
    build(texts, special, Normalizers::default(), splitters, config, add_bos)
}
