//! Tokenizers in the files that models were released with, where there is no `tokenizer.json`.

use std::path::Path;

use tokenizers::NormalizerWrapper;
use tokenizers::decoders::bpe::BPEDecoder;
use tokenizers::normalizers::{BertNormalizer, NFC};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::added::AddedToken;
use crate::around::Around;
use crate::bpe::{Bpe, Settings, Vocab};
use crate::decode::{Decoder, Decoders};
use crate::error::{Error, ErrorKind, clip, guarded};
use crate::gguf::ranked;
use crate::hugging_face::{NamedToken, ReadVocab, TokenizerConfig};
use crate::model::TextModel;
use crate::normalize::{Normalizer, Normalizers};
use crate::pre_tokenizers::PreTokenizer;
use crate::read::{Small, TOKENIZER_BYTES_MAX, open, read_bytes, read_json};
use crate::split::{Splitter, Splitters};
use crate::strings::Strings;
use crate::tokenizer::{CONTRADICTION, Parts, Tokenizer};
use crate::{sentence_piece, tiktoken};

impl Tokenizer {
    /// Loads a tokenizer from whatever file a model was released with: `tokenizer.json`, `tokenizer.model` (SentencePiece,
    /// or ranks as tiktoken has them), `tekken.json`, `*.tiktoken`, or `vocab.json` with `merges.txt` beside it.
    /// `tokenizer_config.json`, where there is one, names special tokens and what is put around a text.
    ///
    /// # Errors
    /// `Io`, `Malformed` or `Unsupported`, naming the file.
    pub fn from_file(file: &Path, tokenizer_config: Option<&Path>) -> Result<Self, Error> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let by_ranks = name.ends_with(".tiktoken") || name == "tiktoken.model";
        let is_json = name.ends_with(".json");
        if is_json && name != "tekken.json" && name != "vocab.json" {
            return Self::from_hugging_face(file, tokenizer_config);
        }
        let mut config: TokenizerConfig =
            tokenizer_config.map_or_else(|| Ok(Default::default()), read_json)?;
        config.listed_beside = listed_beside(file)?;
        let read = || {
            if name == "vocab.json" {
                return vocab_and_merges(file, config);
            }
            let bytes = read_bytes(file, TOKENIZER_BYTES_MAX)?;
            match name {
                "tekken.json" => tiktoken::read_tekken(&bytes, &config),
                // Text is ranks: a SentencePiece model begins with a control byte.
                _ if by_ranks || bytes.first().is_some_and(u8::is_ascii_graphic) => {
                    tiktoken::read(&bytes, name, &config)
                }
                _ => sentence_piece::read(&bytes, &config),
            }
        };
        let tokenizer = guarded(ErrorKind::Malformed, CONTRADICTION, read).and_then(Self::probed);
        tokenizer.map_err(|error| match error.kind() {
            ErrorKind::Io => error,
            _ => error.within(&file.display().to_string()),
        })
    }
}

/// The tokens of `added_tokens.json` beside a file, where older versions of transformers listed them, by their ids.
fn listed_beside(file: &Path) -> Result<Vec<AddedToken>, Error> {
    let path = file.with_file_name("added_tokens.json");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let listed: Small = read_json(&path)?;
    let ids = listed.0.as_object().into_iter().flatten();
    let mut ids: Vec<(u64, &String)> = ids.filter_map(|(text, id)| Some((id.as_u64()?, text))).collect();
    ids.sort_unstable();
    Ok(ids.into_iter().map(|(_, text)| AddedToken::raw(text, false)).collect())
}

/// `vocab.json` and the `merges.txt` beside it: byte-level BPE as GPT-2 has it, or as the class that the configuration
/// names or that goes with the model's type; of an OpenAI GPT, whose vocabulary marks the ends of words, where neither says.
fn vocab_and_merges(file: &Path, mut config: TokenizerConfig) -> Result<Tokenizer, Error> {
    let wrong = |error: serde_json::Error| Error::malformed(clip(&error.to_string()));
    let vocab: ReadVocab = serde_json::from_reader(open(file, TOKENIZER_BYTES_MAX)?).map_err(wrong)?;
    let merges = read_bytes(&file.with_file_name("merges.txt"), TOKENIZER_BYTES_MAX)?;
    let lines = merges.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines
        .enumerate()
        .filter(|(at, line)| !line.is_empty() && (*at > 0 || !line.starts_with(b"#version")));
    let merges: Strings = lines.map(|(_, line)| line).collect();
    let class = match config.tokenizer_class.clone() {
        Some(class) => class,
        None if vocab.tokens.id(&format!("e{WORD_END}")).is_some() => "OpenAIGPTTokenizer".to_owned(),
        None => class_of_model(file)?.to_owned(),
    };
    match class.strip_suffix("Fast").unwrap_or(&class) {
        "Qwen2Tokenizer" => {
            ends_of_class(&mut config, &vocab.tokens, false);
            byte_level(vocab, merges, &config, "qwen2", true)
        }
        name @ ("GPT2Tokenizer" | "CodeGenTokenizer" | "GPTNeoXTokenizer" | "PreTrainedTokenizer") => {
            ends_of_class(&mut config, &vocab.tokens, true);
            byte_level(vocab, merges, &config, "gpt-2", name == "GPTNeoXTokenizer")
        }
        "OpenAIGPTTokenizer" => words(vocab, merges, &config),
        other => {
            let message = format!(
                "vocab.json and merges.txt of a {:?} are not supported; \
                 a tokenizer.json beside them is (transformers' save_pretrained writes one)",
                clip(other)
            );
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// The class of tokenizers that goes with the type of the model beside a file.
fn class_of_model(file: &Path) -> Result<&'static str, Error> {
    let path = file.with_file_name("config.json");
    if !path.is_file() {
        return Ok("GPT2Tokenizer");
    }
    let model: Small = read_json(&path)?;
    let kind = model.0.get("model_type").and_then(|kind| kind.as_str()).unwrap_or_default();
    Ok(match kind {
        "gpt_neox" => "GPTNeoXTokenizer",
        _ if kind.starts_with("qwen2") || kind.starts_with("qwen3") => "Qwen2Tokenizer",
        _ => "GPT2Tokenizer",
    })
}

/// The token that ends texts in all these classes, and begins them in some, unless the configuration names others.
fn ends_of_class(config: &mut TokenizerConfig, tokens: &Vocab, begins: bool) {
    const END: &str = "<|endoftext|>";
    if tokens.id(END).is_none() {
        return;
    }
    for (token, has) in
        [(&mut config.bos_token, begins), (&mut config.eos_token, true), (&mut config.unk_token, true)]
    {
        if has && token.text().is_none() {
            *token = NamedToken::from(Small(END.into()));
        }
    }
}

/// What OpenAI GPT's tokens end with at the end of a word.
const WORD_END: &str = "</w>";

/// BPE over bytes spelled as characters, whose words are split in a way of GGUF; of texts that are composed first, or not.
fn byte_level(
    vocab: ReadVocab,
    merges: Strings,
    config: &TokenizerConfig,
    split: &str,
    composed: bool,
) -> Result<Tokenizer, Error> {
    let merges = ranked(merges, &vocab.tokens)?;
    let unknown = known(&config.unk_token, &vocab.tokens);
    let settings = Settings { unknown, ..Settings::default() };
    let composed = composed.then(|| Normalizer::Library(Box::new(NormalizerWrapper::NFC(NFC))));
    let way = PreTokenizer::named(split).ok_or_else(|| Error::malformed("no such way to split"))?;
    let mut splitters = way.splitters()?;
    if let Some(Splitter::ByteLevel { .. }) = splitters.0.last()
        && config.add_prefix_space == Some(true)
    {
        let words = Some(crate::pattern::Pattern::regex(crate::split::WORDS_GPT2)?);
        splitters = Splitters(vec![Splitter::ByteLevel { prefix_space: true, words }]);
    }
    let parts = Parts {
        model: TextModel::Bpe(Bpe::new(vocab.tokens, merges, settings)?),
        normalizers: Normalizers(composed.into_iter().collect()),
        splitters,
        decoders: Decoders(vec![Decoder::Library(Box::new(ByteLevel::new(false, true, true).into()))]),
        added: config.added(),
    };
    let mut tokenizer = Tokenizer::new(parts, Around::default(), |tokenizer| ends(tokenizer, config))?;
    tokenizer.put_around(config.add_bos_token.unwrap_or(false), config.add_eos_token.unwrap_or(false));
    Ok(tokenizer)
}

/// BPE over the characters of words in lower case, as BERT has them, the last token of each of which is marked: OpenAI GPT.
fn words(vocab: ReadVocab, merges: Strings, config: &TokenizerConfig) -> Result<Tokenizer, Error> {
    let merges = ranked(merges, &vocab.tokens)?;
    let unknown = known(&config.unk_token, &vocab.tokens);
    let unknown = unknown.or_else(|| vocab.tokens.id("<unk>").map(|_| "<unk>".to_owned()));
    let settings = Settings { unknown, suffix: WORD_END.to_owned(), ..Settings::default() };
    let lower = BertNormalizer::new(true, true, None, true);
    let parts = Parts {
        model: TextModel::Bpe(Bpe::new(vocab.tokens, merges, settings)?),
        normalizers: Normalizers(vec![Normalizer::Library(Box::new(lower.into()))]),
        splitters: Splitters(vec![Splitter::Library(Box::new(BertPreTokenizer.into()))]),
        decoders: Decoders(vec![Decoder::Library(Box::new(BPEDecoder::new(WORD_END.to_owned()).into()))]),
        added: config.added(),
    };
    Tokenizer::new(parts, Around::default(), |tokenizer| ends(tokenizer, config))
}

/// A special token, where the vocabulary has it.
fn known(token: &NamedToken, tokens: &Vocab) -> Option<String> {
    token.text().filter(|text| tokens.id(text).is_some()).map(str::to_owned)
}

/// The ids of the tokens at the ends of a text.
fn ends(tokenizer: &Tokenizer, config: &TokenizerConfig) -> [Option<u32>; 2] {
    [&config.bos_token, &config.eos_token].map(|token| tokenizer.token_id(token.text()?))
}
