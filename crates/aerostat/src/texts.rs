//! Tokenizers and chat templates: of a model, or of a file of vocabulary alone.

use std::path::{Path, PathBuf};

use aerostat_checkpoint::{
    Checkpoint, Config, TextFiles,
    gguf::{Array, Metadata},
};
use aerostat_text::{ChatTemplate, GgufVocab, Specials, Strings, Tokenizer};

use crate::{Error, ErrorKind};

/// What turns text into token ids and back, without the model that it belongs to: a folder, a GGUF file (also one of
/// vocabulary alone), `tokenizer.json`, `tokenizer.model`, `tekken.json`, `*.tiktoken`, or `vocab.json`.
#[derive(Debug)]
pub struct Vocabulary {
    path: PathBuf,
    files: TextFiles,
    gguf: Option<Metadata>,
}

impl Vocabulary {
    /// Finds the files of a tokenizer; they are read by [`Vocabulary::tokenizer`].
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if there is no tokenizer at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let named = |name: &str| path.file_name().is_some_and(|own| own == name);
        let beside = path.parent().filter(|_| path.is_file() && is_vocabulary(path));
        let files = match beside {
            Some(folder) => {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                let own = Some(path.to_owned());
                let (json, model) = if named("tokenizer.json") { (own, None) } else { (None, own) };
                match TextFiles::in_folder(folder)? {
                    TextFiles::HuggingFace {
                        tokenizer_config, chat_template, special_tokens_map, ..
                    } => TextFiles::HuggingFace {
                        tokenizer_json: json,
                        tokenizer_model: model,
                        tokenizer_config,
                        chat_template,
                        special_tokens_map,
                    },
                    other => other,
                }
            }
            None if path.is_dir() => TextFiles::in_folder(path)?,
            None => TextFiles::Gguf,
        };
        let own = Self { path: path.to_owned(), files, gguf: None };
        if own.texts().has_tokenizer() {
            return Ok(own);
        }
        match Checkpoint::open(path)?.config {
            Config::Gguf(meta) => Ok(Self { files: TextFiles::Gguf, gguf: Some(meta), ..own }),
            Config::HuggingFace(_) => Ok(own),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokenizer; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Text`] if it is broken.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, Error> {
        self.texts().tokenizer()
    }

    /// The chat template; of several the one of that `name`, else the default. `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Text`] if it is broken, or if there is none of that name.
    pub fn chat_template(
        &self,
        tokenizer: Option<&Tokenizer>,
        name: Option<&str>,
    ) -> Result<Option<ChatTemplate>, Error> {
        self.texts().chat_template(tokenizer, name)
    }

    fn texts(&self) -> Texts<'_> {
        Texts { files: &self.files, gguf: self.gguf.as_ref() }
    }
}

/// The files of a Hugging Face folder, or the metadata of a GGUF file.
pub(crate) struct Texts<'a> {
    files: &'a TextFiles,
    gguf: Option<&'a Metadata>,
}

impl<'a> Texts<'a> {
    pub(crate) fn of(checkpoint: &'a Checkpoint) -> Self {
        let gguf = match &checkpoint.config {
            Config::Gguf(meta) => Some(meta),
            Config::HuggingFace(_) => None,
        };
        Texts { files: &checkpoint.text, gguf }
    }

    pub(crate) fn has_tokenizer(&self) -> bool {
        match (self.files, self.gguf) {
            (TextFiles::HuggingFace { tokenizer_json, tokenizer_model, .. }, _) => {
                tokenizer_json.is_some() || tokenizer_model.is_some()
            }
            (TextFiles::Gguf, Some(meta)) => meta.get("tokenizer.ggml.tokens").is_some(),
            (TextFiles::Gguf, None) => false,
        }
    }

    pub(crate) fn tokenizer(&self) -> Result<Option<Tokenizer>, Error> {
        match (self.files, self.gguf) {
            (TextFiles::HuggingFace { tokenizer_json, tokenizer_model, tokenizer_config, .. }, _) => {
                let Some(file) = tokenizer_json.as_ref().or(tokenizer_model.as_ref()) else {
                    return Ok(None);
                };
                Ok(Some(Tokenizer::from_file(file, tokenizer_config.as_deref())?))
            }
            (TextFiles::Gguf, Some(meta)) if meta.get("tokenizer.ggml.tokens").is_some() => {
                Ok(Some(Tokenizer::from_gguf(gguf_vocab(meta)?)?))
            }
            (TextFiles::Gguf, _) => Ok(None),
        }
    }

    pub(crate) fn chat_template(
        &self,
        tokenizer: Option<&Tokenizer>,
        name: Option<&str>,
    ) -> Result<Option<ChatTemplate>, Error> {
        match (self.files, self.gguf) {
            (TextFiles::HuggingFace { tokenizer_config, chat_template, special_tokens_map, .. }, _) => {
                let path = |p: &'a Option<PathBuf>| p.as_deref();
                let (config, template) = (path(tokenizer_config), path(chat_template));
                Ok(ChatTemplate::named_from_hugging_face(config, template, path(special_tokens_map), name)?)
            }
            (TextFiles::Gguf, Some(meta)) => gguf_template(meta, tokenizer, name),
            (TextFiles::Gguf, None) => Ok(None),
        }
    }
}

/// Whether a name is one of those that files of vocabulary alone have.
fn is_vocabulary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(".json") || name.ends_with(".tiktoken") || name.contains(".model"))
}

/// The template of a GGUF file; others than the default are under keys that end with their names.
fn gguf_template(
    meta: &Metadata,
    tokenizer: Option<&Tokenizer>,
    name: Option<&str>,
) -> Result<Option<ChatTemplate>, Error> {
    const KEY: &str = "tokenizer.chat_template";
    let source = match name {
        Some(name) if name != "default" => {
            let source = meta.str(&format!("{KEY}.{name}")).ok_or_else(|| {
                let message = format!("{}: there is no chat template of that name", meta.path().display());
                Error::new(ErrorKind::Text, message)
            })?;
            Some(source)
        }
        _ => meta.str(KEY),
    };
    let Some(source) = source else { return Ok(None) };
    let text = |key: &str| {
        let id = u32::try_from(meta.u64(key)?).ok()?;
        tokenizer?.token_text(id)
    };
    let specials = Specials {
        bos_token: text("tokenizer.ggml.bos_token_id"),
        eos_token: text("tokenizer.ggml.eos_token_id"),
        unk_token: text("tokenizer.ggml.unknown_token_id"),
        pad_token: text("tokenizer.ggml.padding_token_id"),
        additional: Vec::new(),
    };
    Ok(Some(ChatTemplate::new(source, specials)?))
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
    // Signed in the files of some converters.
    let bytes = |array: &Array| Some(array.ints()?.map(|byte| byte as u8).collect());
    let tokens = strings("tokenizer.ggml.tokens")?.ok_or_else(|| wrong("tokenizer.ggml.tokens"))?;
    // There may be more scores and types than tokens: of a vocabulary that was cut.
    let count = tokens.len();
    let types = meta.array("tokenizer.ggml.token_type");
    let types = types.and_then(|a| Some(a.ints()?.take(count).map(|t| t as i32).collect()));
    let scores = meta.array("tokenizer.ggml.scores");
    let scores = scores.and_then(|a| Some(a.numbers()?.into_iter().take(count).collect()));
    Ok(GgufVocab {
        model: meta.str("tokenizer.ggml.model").unwrap_or_default().to_owned(),
        pre: meta.str("tokenizer.ggml.pre").map(str::to_owned),
        tokens,
        scores,
        types,
        merges: strings("tokenizer.ggml.merges")?,
        bos: id("tokenizer.ggml.bos_token_id"),
        eos: id("tokenizer.ggml.eos_token_id"),
        unknown: id("tokenizer.ggml.unknown_token_id"),
        cls: id("tokenizer.ggml.cls_token_id"),
        separator: id("tokenizer.ggml.seperator_token_id").or(id("tokenizer.ggml.separator_token_id")),
        characters: meta.array("tokenizer.ggml.precompiled_charsmap").and_then(bytes),
        single_spaces: meta.bool("tokenizer.ggml.remove_extra_whitespaces"),
        add_bos: meta.bool("tokenizer.ggml.add_bos_token"),
        add_eos: meta.bool("tokenizer.ggml.add_eos_token"),
        add_space_prefix: meta.bool("tokenizer.ggml.add_space_prefix"),
    })
}
