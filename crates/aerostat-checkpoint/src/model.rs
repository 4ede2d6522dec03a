//! A model on disk, as it is opened: tensors, configuration, and where the text files are.

use std::path::PathBuf;

use crate::{Catalog, gguf};

/// A model on disk: where its tensors lie, its configuration, and where its tokenizer is.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The folder or `.gguf` file that was opened (for a split set: its first part).
    pub path: PathBuf,
    /// Every tensor of every file.
    pub catalog: Catalog,
    /// The model's configuration as stored.
    pub config: Config,
    /// Tokenizer and chat template files: located, not read.
    pub text: TextFiles,
    /// An adapter that lies beside the weights, and is not part of them.
    pub adapter: Option<AdapterBeside>,
}

/// An adapter in the layout of PEFT (`adapter_config.json`): what is added to the weights of another model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterBeside {
    /// The path of `adapter_config.json`.
    pub path: PathBuf,
    /// What kind it is, as `peft_type` says (`LORA` and others).
    pub kind: Option<String>,
    /// The model it was made for, as `base_model_name_or_path` says.
    pub base: Option<String>,
}

/// The configuration of a model, as its format stores it.
#[derive(Clone, Debug)]
pub enum Config {
    /// `config.json` of a Hugging Face folder.
    HuggingFace(HfConfig),
    /// The key-value section of a GGUF file.
    Gguf(gguf::Metadata),
}

/// The JSON files that describe a model in a Hugging Face folder.
#[derive(Clone, Debug)]
pub struct HfConfig {
    /// The path of `config.json`.
    pub path: PathBuf,
    /// The content of `config.json`, an object.
    pub config: serde_json::Value,
    /// The content of `generation_config.json`, an object, if there is one.
    pub generation: Option<serde_json::Value>,
}

/// Where the tokenizer and the chat template are.
#[derive(Clone, Debug)]
pub enum TextFiles {
    /// Files of a Hugging Face folder, each if present.
    HuggingFace {
        /// `tokenizer.json`.
        tokenizer_json: Option<PathBuf>,
        /// The tokenizer as the model was released: `tekken.json`, `tokenizer.model` (SentencePiece or tiktoken),
        /// `tiktoken.model`, `*.tiktoken`, or `vocab.json` with `merges.txt` beside it.
        tokenizer_model: Option<PathBuf>,
        /// `tokenizer_config.json`.
        tokenizer_config: Option<PathBuf>,
        /// `chat_template.jinja`, else `chat_template.json`.
        chat_template: Option<PathBuf>,
        /// `special_tokens_map.json`.
        special_tokens_map: Option<PathBuf>,
    },
    /// The vocabulary is in the metadata of [`Config::Gguf`].
    Gguf,
}
