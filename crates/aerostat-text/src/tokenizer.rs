//! Text to token ids and back.

use std::collections::HashSet;
use std::path::Path;

use crate::added::{Added, AddedToken};
use crate::around::Around;
use crate::bytes::{byte_token, from_byte_level};
use crate::decode::Decoders;
use crate::detokenize::Detokenizer;
use crate::error::{Error, ErrorKind, guarded};
use crate::gguf::GgufVocab;
use crate::hugging_face::{TokenizerConfig, TokenizerJson};
use crate::meter::Meter;
use crate::model::TextModel;
use crate::normalize::Normalizers;
use crate::pair::Pair;
use crate::read::read_json;
use crate::split::Splitters;

/// What is wrong with a file on which the library panics.
pub(crate) const CONTRADICTION: &str = "the tokenizer contradicts itself (the tokenizers library gave up)";

/// A tokenizer, whatever file it came from. It is immutable, `Send` and `Sync`.
pub struct Tokenizer {
    model: TextModel,
    normalizers: Normalizers,
    splitters: Splitters,
    decoders: Decoders,
    added: Added,
    around: Around,
    pair: Pair,
    ids: usize,
    bos: Option<u32>,
    eos: Option<u32>,
}

/// What a tokenizer is made of.
pub(crate) struct Parts {
    pub(crate) model: TextModel,
    pub(crate) normalizers: Normalizers,
    pub(crate) splitters: Splitters,
    pub(crate) decoders: Decoders,
    /// Lists of added tokens, each of which numbers new ones after all before it.
    pub(crate) added: Vec<Vec<AddedToken>>,
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
        let context = |error: Error| error.within(&tokenizer_json.display().to_string());
        guarded(ErrorKind::Malformed, CONTRADICTION, || {
            let file = TokenizerJson::read(tokenizer_json)?;
            Self::assemble(file, config).map_err(context)
        })
        .and_then(|tokenizer| tokenizer.probed().map_err(context))
    }

    /// Builds the tokenizer that the metadata of a GGUF file describes.
    ///
    /// # Errors
    /// `Unsupported` for a model or splitter this crate does not know, `Malformed` for one that contradicts itself.
    pub fn from_gguf(vocab: GgufVocab) -> Result<Self, Error> {
        guarded(ErrorKind::Malformed, CONTRADICTION, || {
            let (parts, ends) = vocab.into_parts()?;
            let ids = parts.model.vocab().ids() as u32;
            let [bos, eos] = [ends.bos, ends.eos].map(|id| id.filter(|id| *id < ids));
            let around = Around::tokens(bos.filter(|_| ends.add_bos), eos.filter(|_| ends.add_eos));
            Self::new(parts, around, |_| [bos, eos])
        })
        .and_then(Self::probed)
    }

    /// The token ids of `text`. Special tokens written out in the text are recognised; with `add_special`, those the
    /// model wants around a text (such as BOS) are added.
    ///
    /// # Errors
    /// `Encode`, if the model has no token for a character and no unknown token, or if what the file of the tokenizer says
    /// takes seconds for a short text, or makes a book of it.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        guarded(ErrorKind::Encode, CONTRADICTION, || {
            let (meter, mut ids) = (Meter::new(text.len()), Vec::new());
            self.added.each_raw(text, &meter, |text, part, id| match id {
                Some(id) => {
                    ids.push(id);
                    Ok(())
                }
                None => {
                    let at_start = part.start == 0;
                    self.encode_part(text.get(part).unwrap_or_default(), at_start, &mut ids, &meter)
                }
            })?;
            if add_special {
                self.around.apply(&mut ids);
            }
            Ok(ids)
        })
    }

    /// Appends the ids of a part of a text without added tokens, but for those that are looked for in normalised text.
    fn encode_part(
        &self,
        text: &str,
        at_start: bool,
        ids: &mut Vec<u32>,
        meter: &Meter,
    ) -> Result<(), Error> {
        let text = self.normalizers.apply(text, meter)?;
        self.added.each_normalized(&text, meter, |text, part, id| {
            if let Some(id) = id {
                ids.push(id);
                return Ok(());
            }
            let at_start = at_start && part.start == 0;
            let pieces = self.splitters.apply(text.get(part).unwrap_or_default(), at_start, meter)?;
            pieces.iter().try_for_each(|piece| self.model.tokenize(piece, ids, meter))
        })
    }

    /// The text of `ids`, without the special tokens if `skip_special`. Ids outside the vocabulary give no text; bytes
    /// that are not UTF-8 give U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let shown = |token: &String| !skip_special || !self.added.is_special(token);
        let tokens: Vec<String> = ids.iter().filter_map(|id| self.token_text(*id)).filter(shown).collect();
        guarded(ErrorKind::Malformed, CONTRADICTION, || self.decoders.apply(tokens)).unwrap_or_default()
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
        self.added.id(token).or_else(|| self.model.vocab().id(token))
    }

    /// A token as the vocabulary writes it (`Ġthe`, `▁the`, `<0x0A>`).
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.added.text(id).map(str::to_owned).or_else(|| self.model.vocab().text(id))
    }

    /// The bytes that a token stands for inside a text; `None` for special tokens and ids outside the vocabulary. Where a
    /// vocabulary marks the beginning of a word (`▁the`), that is a space.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if self.is_special(id) {
            return None;
        }
        let text = self.token_text(id)?;
        if self.is_byte_level() {
            return Some(from_byte_level(&text).unwrap_or_else(|| text.into_bytes()));
        }
        match byte_token(&text).filter(|_| self.decode(&[id], false) != text) {
            Some(byte) => Some(vec![byte]),
            None => Some(text.replace('\u{2581}', " ").into_bytes()),
        }
    }

    /// Whether `id` is a special (control) token, which `decode` can skip.
    pub fn is_special(&self, id: u32) -> bool {
        self.added.text(id).is_some_and(|token| self.added.is_special(token))
    }

    /// The id that begins a text, if the files name one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id that ends a text, if the files name one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether tokens spell bytes as characters.
    pub(crate) fn is_byte_level(&self) -> bool {
        self.decoders.is_byte_level()
    }

    /// Puts a tokenizer together; `ends` finds BOS and EOS.
    pub(crate) fn new(
        parts: Parts,
        around: Around,
        ends: impl FnOnce(&Self) -> [Option<u32>; 2],
    ) -> Result<Self, Error> {
        let Parts { model, normalizers, splitters, decoders, added: tokens } = parts;
        let mut added = Added::default();
        for list in tokens {
            added.add(list, &model);
        }
        added.finish(&normalizers)?;
        let ids = model.vocab().ids().max(added.ids());
        let mut tokenizer =
            Tokenizer {
            model,
            normalizers,
            splitters,
            decoders,
            added,
            around,
            pair: Pair::default(),
            ids,
            bos: None,
            eos: None,
        };
        [tokenizer.bos, tokenizer.eos] = ends(&tokenizer);
        Ok(tokenizer)
    }

    /// What is put around two texts.
    pub(crate) fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Puts BOS before and EOS after every text, as far as they are wanted and known.
    pub(crate) fn put_around(&mut self, bos: bool, eos: bool) {
        self.around = Around::tokens(self.bos.filter(|_| bos), self.eos.filter(|_| eos));
    }

    fn assemble(file: TokenizerJson, config: TokenizerConfig) -> Result<Self, Error> {
        let within = |part: &'static str| move |error: Error| error.within(part);
        let tokens = file.added_tokens.0;
        let written: HashSet<&str> = tokens.iter().map(|token| token.content.as_str()).collect();
        let listed =
            config.added_tokens_decoder.0.iter().filter(|token| !written.contains(token.content.as_str()));
        let listed: Vec<AddedToken> = listed.cloned().collect();
        let special = tokens.iter().chain(&listed).filter(|token| token.special);
        let special: HashSet<&str> = special.map(|token| token.content.as_str()).collect();
        let named = config.specials().into_iter().filter(|token| !special.contains(token.as_str()));
        let named: Vec<AddedToken> = named.map(|token| AddedToken::raw(&token, true)).collect();
        let parts = Parts {
            model: file.model,
            normalizers: Normalizers::read(&file.normalizer.0).map_err(within("normalizer"))?,
            splitters: Splitters::read(&file.pre_tokenizer.0).map_err(within("pre_tokenizer"))?,
            decoders: Decoders::read(&file.decoder.0).map_err(within("decoder"))?,
            added: vec![tokens, listed, named],
        };
        let ends = |tokenizer: &Self| {
            [&config.bos_token, &config.eos_token].map(|token| tokenizer.token_id(token.text()?))
        };
        let tokenizer = Self::new(parts, Around::read(&file.post_processor.0)?, ends)?;
        Ok(Self { pair: Pair::read(&file.post_processor.0)?, ..tokenizer })
    }

    /// The tokenizer, if it can encode anything at all: some contradictions show only then.
    pub(crate) fn probed(self) -> Result<Self, Error> {
        self.encode("", true).map_err(|error| Error::malformed(error.to_string()))?;
        Ok(self)
    }
}
