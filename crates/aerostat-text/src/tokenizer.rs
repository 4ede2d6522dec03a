//! Text to token ids and back.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, Decoder, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerBuilder, TokenizerImpl,
};

use crate::detokenize::{Detokenizer, token_bytes};
use crate::error::{Error, ErrorKind, guarded};
use crate::gguf::GgufVocab;
use crate::hugging_face::{TokenizerConfig, TokenizerJson, read_json};
use crate::model::TextModel;

/// What is wrong with a file on which the library panics.
const CONTRADICTION: &str = "the tokenizer contradicts itself (the tokenizers library gave up)";

type Inner =
    TokenizerImpl<TextModel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer, whatever file it came from. It is immutable, `Send` and `Sync`.
pub struct Tokenizer {
    inner: Inner,
    ids: usize,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Loads a Hugging Face `tokenizer.json`; `tokenizer_config.json`, where there is one, names the special tokens. What
    /// is added around a text is for `tokenizer.json` to say: like `transformers`, this ignores `add_bos_token` and
    /// `add_eos_token` beside it.
    ///
    /// # Errors
    /// `Io` or `Malformed`, naming the file.
    pub fn from_hugging_face(tokenizer_json: &Path, tokenizer_config: Option<&Path>) -> Result<Self, Error> {
        let config: TokenizerConfig = tokenizer_config.map_or_else(|| Ok(Default::default()), read_json)?;
        let file = TokenizerJson::read(tokenizer_json)?;
        let context = |error: Error| error.within(&tokenizer_json.display().to_string());
        guarded(ErrorKind::Malformed, CONTRADICTION, || Self::assemble(file, &config))
            .and_then(Self::probed)
            .map_err(context)
    }

    /// Builds the tokenizer that the metadata of a GGUF file describes.
    ///
    /// # Errors
    /// `Unsupported` for a model or splitter this crate does not know, `Malformed` for one that contradicts itself.
    pub fn from_gguf(vocab: GgufVocab) -> Result<Self, Error> {
        guarded(ErrorKind::Malformed, CONTRADICTION, || {
            let parts = vocab.into_parts()?;
            let ids = parts.model.ids() as u32;
            let [bos, eos] = [parts.bos, parts.eos].map(|id| id.filter(|id| *id < ids));
            let mut inner = TokenizerBuilder::new()
                .with_model(parts.model)
                .with_normalizer(parts.normalizer)
                .with_pre_tokenizer(parts.pre_tokenizer)
                .with_post_processor(None)
                .with_decoder(Some(parts.decoder))
                .build()
                .map_err(library)?;
            inner.add_tokens(parts.added).map_err(library)?;
            let around = [parts.add_bos.then_some(bos).flatten(), parts.add_eos.then_some(eos).flatten()];
            let post_processor = surround(&inner, around)?;
            inner.with_post_processor(Some(post_processor));
            Ok(Tokenizer::new(inner, bos, eos))
        })
        .and_then(Self::probed)
    }

    /// The token ids of `text`. Special tokens written out in the text are recognised; with `add_special`, those the
    /// model wants around a text (such as BOS) are added.
    ///
    /// # Errors
    /// `Encode`, if the model has no token for a character and no unknown token.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        guarded(ErrorKind::Encode, CONTRADICTION, || {
            let encoding = self.inner.encode_fast(text, add_special);
            Ok(encoding.map_err(|error| Error::encode(error.to_string()))?.get_ids().to_vec())
        })
    }

    /// The text of `ids`, without the special tokens if `skip_special`. Ids outside the vocabulary give no text; bytes
    /// that are not UTF-8 give U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let added = self.inner.get_added_vocabulary();
        let shown = |token: &String| !skip_special || !added.is_special_token(token);
        let tokens: Vec<String> = ids.iter().filter_map(|id| self.token_text(*id)).filter(shown).collect();
        // Some decoders of the library fail on nothing.
        if tokens.is_empty() {
            return String::new();
        }
        let decode = || match self.inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(library),
            None => Ok(tokens.join(" ")),
        };
        guarded(ErrorKind::Malformed, CONTRADICTION, decode).unwrap_or_default()
    }

    /// Starts decoding ids one by one into whole characters, without the special tokens if `skip_special`.
    pub fn stream(&self, skip_special: bool) -> Detokenizer<'_> {
        Detokenizer::new(self, skip_special)
    }

    /// One more than the greatest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.ids
    }

    /// The id of a token given as the vocabulary writes it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as the vocabulary writes it (`Ġthe`, `▁the`, `<0x0A>`).
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token stands for inside a text; `None` for special tokens and ids outside the vocabulary. Where a
    /// vocabulary marks the beginning of a word (`▁the`), that is a space.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if self.is_special(id) {
            return None;
        }
        Some(token_bytes(self, id, &self.token_text(id)?))
    }

    /// Whether `id` is a special (control) token, which `decode` can skip.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        added.simple_id_to_token(id).is_some_and(|token| added.is_special_token(&token))
    }

    /// The id that begins a text, if the files name one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id that ends a text, if the files name one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    pub(crate) fn decoder(&self) -> Option<&DecoderWrapper> {
        self.inner.get_decoder()
    }

    fn new(inner: Inner, bos: Option<u32>, eos: Option<u32>) -> Self {
        let added = inner.get_added_vocabulary().get_added_tokens_decoder().keys().max();
        let ids = inner.get_model().ids().max(added.map_or(0, |id| *id as usize + 1));
        Tokenizer { inner, ids, bos, eos }
    }

    fn assemble(file: TokenizerJson, config: &TokenizerConfig) -> Result<Self, Error> {
        let mut inner = TokenizerBuilder::new()
            .with_model(file.model)
            .with_normalizer(part("normalizer", file.normalizer)?)
            .with_pre_tokenizer(part("pre_tokenizer", file.pre_tokenizer)?)
            .with_post_processor(part("post_processor", file.post_processor)?)
            .with_decoder(part("decoder", file.decoder)?)
            .build()
            .map_err(library)?;
        inner.add_tokens(file.added_tokens).map_err(library)?;
        let is_added =
            |inner: &Inner, text: &str| inner.get_added_vocabulary().get_vocab().contains_key(text);
        let listed = config.added_tokens_decoder.values().filter(|token| !is_added(&inner, &token.content));
        inner.add_tokens(listed.cloned().collect::<Vec<_>>()).map_err(library)?;
        let is_special = |text: &str| inner.get_added_vocabulary().is_special_token(text);
        let named = config.specials().into_iter().filter(|token| !is_special(token));
        let named: Vec<AddedToken> = named.map(|token| AddedToken::from(token, true)).collect();
        inner.add_special_tokens(named).map_err(library)?;

        let [bos, eos] = [&config.bos_token, &config.eos_token]
            .map(|token| token.text().and_then(|text| inner.token_to_id(text)));
        Ok(Tokenizer::new(inner, bos, eos))
    }

    /// The tokenizer, if it can encode nothing at all: a post-processor without its tokens shows only then.
    fn probed(self) -> Result<Self, Error> {
        self.encode("", true).map_err(|error| Error::malformed(error.to_string()))?;
        Ok(self)
    }
}

/// Puts up to one token before and up to one after a text.
fn surround(inner: &Inner, around: [Option<u32>; 2]) -> Result<PostProcessorWrapper, Error> {
    let [before, after] = around.map(|id| Some((inner.id_to_token(id?)?, id?)));
    let piece = |token: &Option<(String, u32)>| {
        token
            .as_ref()
            .map(|(_, id)| serde_json::json!({"SpecialToken": {"id": id.to_string(), "type_id": 0}}))
    };
    let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> = piece(&before).into_iter().chain([text]).chain(piece(&after)).collect();
    let mut tokens = serde_json::Map::new();
    for (token, id) in [before, after].into_iter().flatten() {
        tokens.insert(
            id.to_string(),
            serde_json::json!({"id": id.to_string(), "ids": [id], "tokens": [token]}),
        );
    }
    let template = serde_json::json!({"single": single, "pair": single, "special_tokens": tokens});
    let template: TemplateProcessing =
        serde_json::from_value(template).map_err(|error| library(error.into()))?;
    Ok(template.into())
}

/// A small part of `tokenizer.json`, or `None` for null.
fn part<T: DeserializeOwned>(name: &str, value: Value) -> Result<Option<T>, Error> {
    serde_json::from_value(value).map_err(|error| Error::malformed(format!("{name}: {error}")))
}

fn library(error: tokenizers::Error) -> Error {
    Error::malformed(error.to_string())
}
