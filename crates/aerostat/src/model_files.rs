//! A model as it lies on disk: headers, family, tokenizer, template, defaults.

use std::path::{Path, PathBuf};

use aerostat_arch::ModelSpec;
use aerostat_checkpoint::{Adapter, Catalog, Checkpoint, Config, TextFiles, gguf::Metadata};
use aerostat_text::{ChatTemplate, GgufVocab, Strings, Tokenizer};

use crate::{Error, ErrorKind, Sampling, makers};

/// A checkpoint whose headers have been read and understood.
#[derive(Debug)]
pub struct ModelFiles {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) spec: ModelSpec,
}

/// What a checkpoint holds, whether or not it can run.
#[derive(Debug)]
pub struct Inspection {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is, or why it cannot run.
    pub spec: Result<ModelSpec, Error>,
    /// Name, format, shape, bytes and file of each tensor in the order of the files.
    pub tensors: Vec<(String, &'static str, Vec<u64>, u64, PathBuf)>,
    /// The codec, if it is packed.
    pub codec: Option<String>,
    /// The tensors as `aerostat-pack` asks for them.
    pub catalog: Catalog,
    /// Whether a tokenizer is there.
    pub tokenizer: bool,
    /// Whether a chat template is there.
    pub chat_template: bool,
}

impl ModelFiles {
    /// Reads the headers of a folder or GGUF file.
    ///
    /// # Errors
    /// [`ErrorKind::Model`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let checkpoint = Checkpoint::open(path)?;
        let spec = aerostat_arch::describe(&checkpoint)?;
        Ok(Self { checkpoint, spec })
    }

    /// The same with an adapter, a folder that PEFT saved: its low-rank updates (LoRA) are added to what the model's matrices
    /// give, in f32. Nothing is merged, and the adapter's matrices stay in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Model`], also for adapters of another kind or of another model.
    pub fn open_with_adapter(path: &Path, adapter: &Path) -> Result<Self, Error> {
        let Self { mut checkpoint, mut spec } = Self::open(path)?;
        let adapter = Adapter::open(adapter)?;
        checkpoint.catalog = checkpoint.catalog.with(adapter.catalog.clone())?;
        aerostat_arch::adapt(&mut spec, &adapter, &checkpoint.catalog)?;
        Ok(Self { checkpoint, spec })
    }

    /// Everything that can be said about a checkpoint, of a known family or not.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the headers themselves are broken.
    pub fn inspect(path: &Path) -> Result<Inspection, Error> {
        let checkpoint = Checkpoint::open(path)?;
        let spec = aerostat_arch::describe(&checkpoint).map_err(Error::from);
        let catalog = &checkpoint.catalog;
        let tensors = catalog
            .tensors()
            .map(|t| {
                (
                    t.name.clone(),
                    t.dtype.name(),
                    t.shape.clone(),
                    t.extent.bytes,
                    catalog.file_of(t).to_owned(),
                )
            })
            .collect();
        let tokenizer = has_tokenizer(&checkpoint);
        let chat_template = chat_template(&checkpoint, None).is_ok_and(|t| t.is_some());
        let codec = catalog.codec().map(str::to_owned);
        let Checkpoint { path, catalog, .. } = checkpoint;
        Ok(Inspection { path, spec, tensors, codec, catalog, tokenizer, chat_template })
    }

    /// Where the model lies.
    pub fn path(&self) -> &Path {
        &self.checkpoint.path
    }

    /// Its tensors.
    pub fn catalog(&self) -> &Catalog {
        &self.checkpoint.catalog
    }

    /// The same files described in another way, for plans of what is not there yet.
    pub fn with_spec(&self, spec: ModelSpec) -> Self {
        let Checkpoint { path, catalog, config, text } = &self.checkpoint;
        let (path, catalog, config, text) = (path.clone(), catalog.clone(), config.clone(), text.clone());
        Self { checkpoint: Checkpoint { path, catalog, config, text }, spec }
    }

    /// What the model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The tokenizer; `None` if the checkpoint has none.
    ///
    /// # Errors
    /// [`ErrorKind::Text`] if it is broken.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, Error> {
        match (&self.checkpoint.text, &self.checkpoint.config) {
            (TextFiles::HuggingFace { tokenizer_json: Some(json), tokenizer_config, .. }, _) => {
                Ok(Some(Tokenizer::from_hugging_face(json, tokenizer_config.as_deref())?))
            }
            (TextFiles::HuggingFace { tokenizer_model: Some(model), .. }, _) => Err(Error::new(
                ErrorKind::Text,
                format!(
                    "{}: this tokenizer format is not supported yet; \
                     a `tokenizer.json` beside it is (transformers' save_pretrained writes one)",
                    model.display()
                ),
            )),
            (_, Config::Gguf(meta)) if meta.get("tokenizer.ggml.tokens").is_some() => {
                Ok(Some(Tokenizer::from_gguf(gguf_vocab(meta)?)?))
            }
            _ => Ok(None),
        }
    }

    /// The chat template; `None` if the checkpoint has none.
    ///
    /// # Errors
    /// [`ErrorKind::Text`] if it is broken.
    pub fn chat_template(&self, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>, Error> {
        chat_template(&self.checkpoint, tokenizer)
    }

    /// The tokens that end a sequence: those the configuration names and, in GGUF files, which often name one only,
    /// the tokens that families use to end a turn.
    pub fn end_tokens(&self, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
        const TURN_ENDS: &[&str] =
            &["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>", "<|eom_id|>", "<|endoftext|>"];
        let mut ends = self.spec.eos.clone();
        if let (Config::Gguf(_), Some(t)) = (&self.checkpoint.config, tokenizer) {
            ends.extend(TURN_ENDS.iter().filter_map(|text| t.token_id(text)).filter(|id| t.is_special(*id)));
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Refuses a prompt that is empty or holds token ids outside the vocabulary; `index` is its name in the message.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`].
    pub fn check_tokens(&self, index: u64, tokens: &[u32]) -> Result<(), Error> {
        check_tokens(&self.spec, index, tokens, 0)
    }

    /// How the model's makers sample and which tokens they rule out: `generation_config.json`, else greedy.
    pub fn sampling(&self) -> Sampling {
        self.makers().0
    }

    /// What of `generation_config.json` changes what transformers answers and is not followed here, a sentence each.
    pub fn sampling_notes(&self) -> Vec<String> {
        self.makers().1
    }

    fn makers(&self) -> (Sampling, Vec<String>) {
        match &self.checkpoint.config {
            Config::HuggingFace(hf) => {
                hf.generation.as_ref().map(|g| makers::sampling(g, self.spec.vocab)).unwrap_or_default()
            }
            _ => <_>::default(),
        }
    }
}

/// Refuses a prompt that cannot be run with `new_tokens` after it.
pub(crate) fn check_tokens(
    spec: &ModelSpec,
    index: u64,
    tokens: &[u32],
    new_tokens: usize,
) -> Result<(), Error> {
    let vocab = spec.vocab;
    let refuse = |why: String| Err(Error::new(ErrorKind::Usage, format!("prompt {index}{why}")));
    if tokens.is_empty() {
        return refuse(" is empty: at least one token is needed".to_owned());
    }
    // The last new token is not computed with.
    let positions = tokens.len() + new_tokens.saturating_sub(1);
    if let Some(p) = spec.positions.as_ref().filter(|p| positions > p.rows.saturating_sub(p.offset)) {
        let have = p.rows.saturating_sub(p.offset);
        return refuse(format!(" and its answer take {positions} positions; this model has learned {have}"));
    }
    match tokens.iter().find(|t| **t as usize >= vocab) {
        Some(t) => refuse(format!(": token id {t} is outside the vocabulary of {vocab} tokens")),
        None => Ok(()),
    }
}

fn has_tokenizer(checkpoint: &Checkpoint) -> bool {
    match (&checkpoint.text, &checkpoint.config) {
        (TextFiles::HuggingFace { tokenizer_json, tokenizer_model, .. }, _) => {
            tokenizer_json.is_some() || tokenizer_model.is_some()
        }
        (_, Config::Gguf(meta)) => meta.get("tokenizer.ggml.tokens").is_some(),
        _ => false,
    }
}

fn chat_template(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Tokenizer>,
) -> Result<Option<ChatTemplate>, Error> {
    match (&checkpoint.text, &checkpoint.config) {
        (TextFiles::HuggingFace { tokenizer_config, chat_template, special_tokens_map, .. }, _) => {
            let path = |p: &Option<PathBuf>| p.clone();
            let (config, template, specials) =
                (path(tokenizer_config), path(chat_template), path(special_tokens_map));
            Ok(ChatTemplate::from_hugging_face(config.as_deref(), template.as_deref(), specials.as_deref())?)
        }
        (_, Config::Gguf(meta)) => {
            let Some(source) = meta.str("tokenizer.chat_template") else { return Ok(None) };
            let text = |key: &str| {
                let id = u32::try_from(meta.u64(key)?).ok()?;
                tokenizer?.token_text(id)
            };
            let specials = aerostat_text::Specials {
                bos_token: text("tokenizer.ggml.bos_token_id"),
                eos_token: text("tokenizer.ggml.eos_token_id"),
                unk_token: text("tokenizer.ggml.unknown_token_id"),
                pad_token: text("tokenizer.ggml.padding_token_id"),
                additional: Vec::new(),
            };
            Ok(Some(ChatTemplate::new(source, specials)?))
        }
        _ => Ok(None),
    }
}

/// The vocabulary inside a GGUF file.
fn gguf_vocab(meta: &Metadata) -> Result<GgufVocab, Error> {
    let wrong = |key: &str| {
        let message =
            format!("{}: `{key}` is missing or not a list of the right type", meta.path().display());
        Error::new(ErrorKind::Text, message)
    };
    let strings = |key: &str| -> Result<Option<Strings>, Error> {
        let Some(array) = meta.array(key) else { return Ok(None) };
        let bytes = array.strings().ok_or_else(|| wrong(key))?.map(<[u8]>::len).sum();
        let mut list = Strings::with_capacity(array.len(), bytes);
        let whole = array.strings().ok_or_else(|| wrong(key))?.all(|s| list.push(s));
        if whole { Ok(Some(list)) } else { Err(wrong(key)) }
    };
    let id = |key: &str| meta.u64(key).and_then(|n| u32::try_from(n).ok());
    let types =
        meta.array("tokenizer.ggml.token_type").and_then(|a| Some(a.ints()?.map(|t| t as i32).collect()));
    Ok(GgufVocab {
        model: meta.str("tokenizer.ggml.model").unwrap_or_default().to_owned(),
        pre: meta.str("tokenizer.ggml.pre").map(str::to_owned),
        tokens: strings("tokenizer.ggml.tokens")?.ok_or_else(|| wrong("tokenizer.ggml.tokens"))?,
        scores: meta.array("tokenizer.ggml.scores").and_then(|a| Some(a.f32s()?.collect())),
        types,
        merges: strings("tokenizer.ggml.merges")?,
        bos: id("tokenizer.ggml.bos_token_id"),
        eos: id("tokenizer.ggml.eos_token_id"),
        unknown: id("tokenizer.ggml.unknown_token_id"),
        add_bos: meta.bool("tokenizer.ggml.add_bos_token"),
        add_eos: meta.bool("tokenizer.ggml.add_eos_token"),
        add_space_prefix: meta.bool("tokenizer.ggml.add_space_prefix"),
    })
}
