//! A model's headers, tokenizer and template.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use serde_json::{Map, Value, json};

use aerostat::{ChatTemplate, Message, ModelFiles, Tokenizer};
use aerostat_openai::{Grammar, Grammars, Shape};

use crate::error::{exception, raised, usage};

/// A model whose headers and tokenizer have been read.
#[pyclass(frozen, module = "aerostat._aerostat")]
pub(crate) struct Model {
    pub(crate) files: Arc<ModelFiles>,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    /// Why there is no tokenizer although there are files of one.
    broken: Option<String>,
    template: Option<ChatTemplate>,
    end_tokens: Vec<u32>,
    grammars: Mutex<Option<Grammars>>,
}

#[pymethods]
impl Model {
    /// Reads the headers of a folder or GGUF file.
    #[new]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| {
            let files = ModelFiles::open(&path)?;
            let (tokenizer, broken) = match files.tokenizer() {
                Ok(tokenizer) => (tokenizer, None),
                Err(e) => (None, Some(e.to_string())),
            };
            let template = files.chat_template(tokenizer.as_ref()).unwrap_or_default();
            let end_tokens = files.end_tokens(tokenizer.as_ref());
            let (files, tokenizer) = (Arc::new(files), tokenizer.map(Arc::new));
            Ok(Self { files, tokenizer, broken, template, end_tokens, grammars: Mutex::default() })
        })
        .map_err(|e: aerostat::Error| raised(&e))
    }

    /// What it is, as JSON.
    fn describe(&self) -> String {
        let (spec, catalog) = (self.files.spec(), self.files.catalog());
        let mut by_dtype = std::collections::BTreeMap::<&str, u64>::new();
        for matrix in spec.matrices() {
            *by_dtype.entry(matrix.dtype.name()).or_default() += matrix.bytes();
        }
        let sampling = self.files.sampling();
        json!({
            "path": self.files.path(),
            "family": spec.family,
            "hidden": spec.hidden,
            "vocab": spec.vocab,
            "blocks": spec.blocks.len(),
            "context_max": spec.context_max,
            "parameters": spec.parameters,
            "weight_bytes": spec.matrix_bytes(),
            "dtype": by_dtype.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(name, _)| name),
            "quantised": spec.matrices().any(|matrix| matrix.scales.is_some()),
            "codec": catalog.codec(),
            "experts": spec.blocks.iter().any(|block| block.experts.is_some()),
            "bos": self.tokenizer.as_ref().and_then(|t| t.bos()).or(spec.bos),
            "eos": self.tokenizer.as_ref().and_then(|t| t.eos()),
            "end_tokens": self.end_tokens,
            "tokenizer": self.tokenizer.is_some(),
            "tokenizer_error": self.broken,
            "template": self.template.is_some(),
            "sampling": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repetition_penalty,
            },
        })
        .to_string()
    }

    /// A digest of its files, by which a journal knows the model.
    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        let path = self.files.path().to_owned();
        py.detach(|| aerostat_jobs::model_digest(Path::new(&path))).map_err(|e| exception("ModelError", e))
    }

    /// The token ids of a text.
    #[pyo3(signature = (text, add_special=true))]
    fn encode(&self, py: Python<'_>, text: &str, add_special: bool) -> PyResult<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        py.detach(|| tokenizer.encode(text, add_special)).map_err(|e| exception("TextError", e))
    }

    /// The text of token ids.
    #[pyo3(signature = (ids, skip_special=false))]
    fn decode(&self, ids: Vec<u32>, skip_special: bool) -> PyResult<String> {
        Ok(self.tokenizer()?.decode(&ids, skip_special))
    }

    /// One more than the greatest id of the tokenizer.
    fn vocab_size(&self) -> PyResult<usize> {
        Ok(self.tokenizer()?.vocab_size())
    }

    /// The id of a token as the vocabulary writes it.
    fn token_id(&self, token: &str) -> PyResult<Option<u32>> {
        Ok(self.tokenizer()?.token_id(token))
    }

    /// A token as the vocabulary writes it.
    fn token_text(&self, id: u32) -> PyResult<Option<String>> {
        Ok(self.tokenizer()?.token_text(id))
    }

    /// Whether a token is a special one.
    fn is_special(&self, id: u32) -> PyResult<bool> {
        Ok(self.tokenizer()?.is_special(id))
    }

    /// A conversation as text: `messages` is a JSON list, `extra` a JSON object of further variables, `template` another
    /// template than the model's.
    #[pyo3(signature = (messages, add_generation_prompt, extra, template=None))]
    fn render(
        &self,
        py: Python<'_>,
        messages: &str,
        add_generation_prompt: bool,
        extra: &str,
        template: Option<&str>,
    ) -> PyResult<String> {
        let messages: Vec<Message> =
            serde_json::from_str(messages).map_err(|e| usage(format!("messages: {e}")))?;
        let extra: Map<String, Value> =
            serde_json::from_str(extra).map_err(|e| usage(format!("variables of the template: {e}")))?;
        let failed = |e| exception("TextError", e);
        let own = match template {
            // Its special tokens are among the variables.
            Some(source) => Some(ChatTemplate::new(source, Default::default()).map_err(failed)?),
            None => None,
        };
        let template = own.as_ref().or(self.template.as_ref());
        let template = template.ok_or_else(|| {
            exception("TextError", "the model has no chat template; give one: chat_template=\"…\"")
        })?;
        py.detach(|| template.render(&messages, add_generation_prompt, extra)).map_err(failed)
    }
}

impl Model {
    fn tokenizer(&self) -> PyResult<&Arc<Tokenizer>> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let why = self.broken.as_deref().unwrap_or("the model has no tokenizer");
            exception("TextError", format!("{why}; give the prompt as token ids"))
        })
    }

    /// The grammar of a shape, at its beginning.
    pub(crate) fn grammar(&self, shape: &Shape) -> PyResult<Grammar> {
        let mut grammars = self.grammars.lock().unwrap_or_else(PoisonError::into_inner);
        let unusable = |e: String| usage(format!("the grammar cannot be used: {e}"));
        if grammars.is_none() {
            let tokenizer = Arc::clone(self.tokenizer()?);
            let built = Grammars::new(tokenizer, &self.end_tokens, self.files.spec().vocab);
            *grammars = Some(built.map_err(unusable)?);
        }
        let grammars = grammars.as_mut().ok_or_else(|| unusable(String::new()))?;
        grammars.constraint(shape).map_err(unusable)
    }
}
