//! How a model's makers make vectors of texts: what a folder of sentence-transformers says beside the weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use aerostat_checkpoint::Config;
use aerostat_checkpoint::gguf::Metadata;

use crate::layers::{Activated, Layers};
use crate::request::{Hidden, Layer, Pooling};
use crate::{Error, ErrorKind, KvType, ModelFiles, Tokenizer};

/// A file of settings beyond which it is not read.
const SETTINGS_BYTES_MAX: u64 = 4 << 20;
/// More modules are in no folder.
const MODULES_MAX: usize = 32;
/// Names that the settings of the first module have had, by what the model was made of.
const FIRST_SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// How vectors are made of texts, as the folder of a model states it (`modules.json` and what that names), else by mean pooling,
/// scaled to a length of 1.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// How the hidden states of a text become one vector.
    pub pooling: Pooling,
    /// Vectors are scaled to a length of 1 in the end.
    pub normalize: bool,
    /// Texts that are too long are cut at their end: of encoders, and where the folder states how vectors are made.
    pub cuts: bool,
    /// Texts that are put before a text, by name: such as `query` and `document`.
    pub prompts: BTreeMap<String, String>,
    /// The one that is meant where none is named.
    pub default_prompt: Option<String>,
    /// Tokens of a text at most, special tokens included.
    pub tokens_max: usize,
    /// Texts are written in small letters first.
    pub lower_case: bool,
    /// How two vectors are compared (`cosine`, `dot`, …), where that is said.
    pub similarity: Option<String>,
    /// Elements of a vector.
    pub width: usize,
    /// The tokens of prompts do not count in pooling.
    without_prompts: bool,
    /// Layers behind pooling.
    pub(crate) layers: Layers,
}

/// A text as a model sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddingText {
    /// Its tokens, special ones included.
    pub token_ids: Vec<u32>,
    /// Tokens that were cut off its end.
    pub cut: usize,
}

impl Embedding {
    /// What is asked of the model for a vector.
    pub fn hidden(&self) -> Hidden {
        let normalize = self.normalize;
        Hidden { layer: Layer::Final, pooling: Some(self.pooling), dimensions: None, normalize }
    }

    /// The text that is put before a text: that of the name, which must be there, else the default.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]: there is none of that name, with those that there are.
    pub fn prompt(&self, name: Option<&str>) -> Result<&str, Error> {
        let Some(wanted) = name.or(self.default_prompt.as_deref()) else { return Ok("") };
        if self.without_prompts && self.prompts.get(wanted).is_some_and(|prompt| !prompt.is_empty()) {
            let message = format!(
                "the prompt `{wanted}` cannot be used: the model leaves the tokens of prompts out of its vectors (`include_prompt` \
                 is false), which is not supported"
            );
            return Err(Error::new(ErrorKind::Usage, message));
        }
        self.prompts.get(wanted).map(String::as_str).ok_or_else(|| {
            let known: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::new(ErrorKind::Usage, format!("the model has no prompt `{wanted}`; it has: {known}"))
        })
    }

    /// A text behind a prompt as the model sees it, cut at its end where it is too long.
    ///
    /// # Errors
    /// [`ErrorKind::Text`]: the tokenizer cannot write it.
    pub fn encode(&self, tokenizer: &Tokenizer, prompt: &str, text: &str) -> Result<EmbeddingText, Error> {
        let mut whole = [prompt, text].concat();
        if self.lower_case {
            whole = whole.to_lowercase();
        }
        let mut token_ids = tokenizer.encode(&whole, true)?;
        let cut = token_ids.len().saturating_sub(self.tokens_max);
        if cut > 0 {
            let own = tokenizer.encode(&whole, false)?;
            let before = token_ids.windows(own.len().max(1)).position(|part| part == own).unwrap_or(0);
            let end = (before + own.len()).min(token_ids.len());
            token_ids.drain(end.saturating_sub(cut).max(before)..end);
        }
        Ok(EmbeddingText { token_ids, cut })
    }
}

impl ModelFiles {
    /// The type of keys and values where none is named: f32 for models that make vectors or scores of texts, whose cache lives
    /// no longer than a text is read, so that they are what the model's makers compute; f16 for others.
    pub fn usual_kv(&self) -> KvType {
        let makes_vectors = self.spec().head.absent
            || self.scores_texts()
            || self.embedding().is_ok_and(|embedding| embedding.cuts);
        if makes_vectors { KvType::F32 } else { KvType::F16 }
    }

    /// How vectors are made of texts with this model.
    ///
    /// # Errors
    /// [`ErrorKind::Model`]: what the folder states cannot be read, or asks for what is not supported.
    pub fn embedding(&self) -> Result<Embedding, Error> {
        let spec = self.spec();
        let learned = spec.positions.as_ref().map(|p| p.rows.saturating_sub(p.offset));
        let tokens_max = learned.map_or(spec.context_max, |learned| learned.min(spec.context_max)).max(1);
        let mut embedding = Embedding {
            pooling: Pooling::Mean,
            normalize: true,
            cuts: spec.looks_ahead(),
            prompts: BTreeMap::new(),
            default_prompt: None,
            tokens_max,
            lower_case: false,
            similarity: None,
            width: spec.hidden,
            without_prompts: false,
            layers: Layers::default(),
        };
        match &self.checkpoint.config {
            Config::HuggingFace(_) if self.path().is_dir() => embedding.read(self.path())?,
            Config::HuggingFace(_) => {}
            Config::Gguf(meta) => embedding.read_gguf(meta)?,
        }
        Ok(embedding)
    }
}

impl Embedding {
    /// Reads what a folder states.
    fn read(&mut self, folder: &Path) -> Result<(), Error> {
        self.read_prompts(folder)?;
        let modules = folder.join("modules.json");
        let Some(list) = settings(&modules)? else { return self.read_lengths(folder, folder) };
        let list = list.as_array().filter(|list| list.len() <= MODULES_MAX);
        let list = list.ok_or_else(|| broken(&modules, "it is no list of modules"))?;
        self.cuts = true;
        self.normalize = false;
        for module in list {
            let text = |key: &str| module.get(key).and_then(Value::as_str);
            let kind = text("type").ok_or_else(|| broken(&modules, "a module has no type"))?;
            let at = inside(folder, text("path").unwrap_or_default())
                .ok_or_else(|| broken(&modules, "the path of a module leads out of the folder"))?;
            // A length of 1 is the last thing that happens to a vector, or a step among others.
            if std::mem::take(&mut self.normalize) {
                self.layers.push_norm();
            }
            match kind.rsplit('.').next().unwrap_or(kind) {
                "Transformer" => self.read_lengths(&at, folder)?,
                "Pooling" => self.read_pooling(&at.join("config.json"))?,
                "Normalize" => self.normalize = true,
                "Dense" => self.width = self.layers.push_dense(&at, self.width)?,
                "LayerNorm" => self.layers.push_layer_norm(&at, self.width)?,
                "Dropout" => {}
                other => {
                    let message = format!("modules of type `{other}` are not supported");
                    return Err(broken(&modules, &message));
                }
            }
        }
        Ok(())
    }

    /// What GGUF metadata states of pooling, by the numbers of llama.cpp.
    fn read_gguf(&mut self, meta: &Metadata) -> Result<(), Error> {
        let architecture = meta.str("general.architecture").unwrap_or("");
        let Some(stated) = meta.u64(&format!("{architecture}.pooling_type")) else { return Ok(()) };
        self.pooling = match stated {
            0 => return Ok(()),
            1 => Pooling::Mean,
            2 => Pooling::Cls,
            3 => Pooling::LastToken,
            4 => {
                let why = "it scores pairs of texts (`pooling_type` is 4), which is supported of Hugging Face folders alone";
                return Err(broken(meta.path(), why));
            }
            other => return Err(broken(meta.path(), &format!("`pooling_type` {other} is not supported"))),
        };
        self.cuts = true;
        Ok(())
    }

    /// `config_sentence_transformers.json`.
    fn read_prompts(&mut self, folder: &Path) -> Result<(), Error> {
        let path = folder.join("config_sentence_transformers.json");
        let Some(config) = settings(&path)? else { return Ok(()) };
        let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_owned);
        let prompts = config.get("prompts").and_then(Value::as_object);
        let prompts = prompts.into_iter().flatten();
        self.prompts =
            prompts.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect();
        self.default_prompt = text("default_prompt_name");
        self.similarity = text("similarity_fn_name");
        match &self.default_prompt {
            Some(name) if !self.prompts.contains_key(name) => {
                Err(broken(&path, &format!("the default prompt `{name}` is not among the prompts")))
            }
            _ => Ok(()),
        }
    }

    /// The settings of the first module, and what the tokenizer says of lengths.
    fn read_lengths(&mut self, at: &Path, folder: &Path) -> Result<(), Error> {
        let mut found = None;
        for name in FIRST_SETTINGS {
            found = settings(&at.join(name))?;
            if found.is_some() {
                break;
            }
        }
        let found = found.unwrap_or_default();
        let count = |value: Option<&Value>| {
            value.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
        };
        self.lower_case = found.get("do_lower_case").and_then(Value::as_bool).unwrap_or(false);
        let stated = match count(found.get("max_seq_length")) {
            Some(stated) => Some(stated),
            None => {
                let tokenizer = settings(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
                count(tokenizer.get("model_max_length"))
            }
        };
        self.tokens_max = stated.unwrap_or(self.tokens_max).min(self.tokens_max);
        Ok(())
    }

    /// `1_Pooling/config.json`.
    fn read_pooling(&mut self, path: &Path) -> Result<(), Error> {
        let config = settings(path)?.ok_or_else(|| broken(path, "it is not there"))?;
        let empty = Map::new();
        let config = config.as_object().unwrap_or(&empty);
        let old = |(key, value): (&String, &Value)| {
            let name = key.strip_prefix("pooling_mode_").filter(|_| value == &Value::Bool(true));
            name.map(str::to_owned)
        };
        let modes: Vec<String> = match config.get("pooling_mode") {
            Some(Value::String(mode)) => vec![mode.clone()],
            Some(Value::Array(modes)) => {
                modes.iter().filter_map(|mode| mode.as_str().map(str::to_owned)).collect()
            }
            _ => config.iter().filter_map(old).collect(),
        };
        self.pooling = match modes.as_slice() {
            // As the library has it where nothing is said.
            [] => Pooling::Mean,
            [one] => pooling(one)
                .ok_or_else(|| broken(path, &format!("pooling of kind `{one}` is not supported")))?,
            several => {
                let message = format!(
                    "several kinds of pooling in one vector ({}) are not supported",
                    several.join(", ")
                );
                return Err(broken(path, &message));
            }
        };
        self.without_prompts = config.get("include_prompt") == Some(&Value::Bool(false));
        Ok(())
    }
}

/// The pooling of a name in `1_Pooling/config.json`.
fn pooling(name: &str) -> Option<Pooling> {
    Some(match name {
        "cls_token" | "cls" => Pooling::Cls,
        "mean_tokens" | "mean" => Pooling::Mean,
        "max_tokens" | "max" => Pooling::Max,
        "mean_sqrt_len_tokens" | "mean_sqrt_len_tokens_" => Pooling::MeanSqrt,
        "weightedmean_tokens" | "weightedmean" => Pooling::WeightedMean,
        "lasttoken" => Pooling::LastToken,
        _ => return None,
    })
}

/// A file of settings; `None` if it is not there.
pub(crate) fn settings(path: &Path) -> Result<Option<Value>, Error> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        _ => return Ok(None),
    };
    if metadata.len() > SETTINGS_BYTES_MAX {
        return Err(broken(path, "it is too large for a file of settings"));
    }
    let bytes = std::fs::read(path).map_err(|error| broken(path, &error.to_string()))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| broken(path, &error.to_string()))
}

/// A folder inside another one, unless its path leads out of it.
fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let parts = Path::new(path).components();
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    parts.clone().all(plain).then(|| folder.join(path))
}

pub(crate) fn broken(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Model, format!("{}: {what}", path.display()))
}

/// The non-linearity of a name as Python writes it: `torch.nn.modules.activation.Tanh`, `tanh`, …
pub(crate) fn activated(name: &str) -> Option<Activated> {
    use aerostat_backend::Activation;
    let plain = name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
    Some(match plain.as_str() {
        "identity" => Activated::No,
        "tanh" => Activated::Tanh,
        "relu" => Activated::By(Activation::Relu),
        "gelu" => Activated::By(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" => Activated::By(Activation::GeluTanh),
        "sigmoid" => Activated::By(Activation::Sigmoid),
        "silu" | "swish" => Activated::By(Activation::Silu),
        _ => return None,
    })
}
