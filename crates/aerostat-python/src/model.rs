//! A model's headers, tokenizer and template.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pyo3::prelude::*;
use serde_json::{Map, Value, json};

use aerostat::{
    ChatTemplate, Message, ModelFiles, Outcome, Pooling, Request, Reranker, Score, Tokenizer, Want,
};
use aerostat_openai::{Grammar, Grammars, Shape, request_bytes_within};
use numpy::PyReadonlyArray1;

use crate::error::{exception, raised, usage};
use crate::request::GivenShape;
use crate::wait::detached;

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
    /// What its engine may take, of which a grammar may take a part.
    memory_bytes: Option<u64>,
    /// What scores pairs of texts, or why nothing does; found when it is asked for.
    reranker: OnceLock<Result<Reranker, String>>,
}

#[pymethods]
impl Model {
    /// Reads the headers of a folder or GGUF file. `memory_bytes` is what its engine may take.
    #[new]
    #[pyo3(signature = (path, memory_bytes=None))]
    fn open(py: Python<'_>, path: PathBuf, memory_bytes: Option<u64>) -> PyResult<Self> {
        detached(py, || {
            let files = ModelFiles::open(&path)?;
            let (tokenizer, broken) = match files.tokenizer() {
                Ok(tokenizer) => (tokenizer, None),
                Err(e) => (None, Some(e.to_string())),
            };
            let template = files.chat_template(tokenizer.as_ref()).unwrap_or_default();
            let end_tokens = files.end_tokens(tokenizer.as_ref());
            let (files, tokenizer) = (Arc::new(files), tokenizer.map(Arc::new));
            Ok(Self {
                files,
                tokenizer,
                broken,
                template,
                end_tokens,
                grammars: Mutex::default(),
                memory_bytes,
                reranker: OnceLock::new(),
            })
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
            "embedding": self.embedding(),
            "scores_pairs": self.scores_pairs(),
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
        detached(py, || aerostat_jobs::model_digest(Path::new(&path))).map_err(|e| exception("ModelError", e))
    }

    /// The token ids of a text.
    #[pyo3(signature = (text, add_special=true))]
    fn encode(&self, py: Python<'_>, text: &str, add_special: bool) -> PyResult<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        detached(py, || tokenizer.encode(text, add_special)).map_err(|e| exception("TextError", e))
    }

    /// The token ids of a text of which a vector is made, behind the prompt of that name: as the model's makers write it, cut
    /// where it is too long; and how many tokens were cut off. Without a name: as it stands, or with `usual` behind the prompt
    /// that is meant then.
    #[pyo3(signature = (text, prompt_name=None, usual=false))]
    fn encode_for_vector(
        &self,
        py: Python<'_>,
        text: &str,
        prompt_name: Option<&str>,
        usual: bool,
    ) -> PyResult<(Vec<u32>, usize)> {
        let tokenizer = self.tokenizer()?;
        let made = detached(py, || {
            let embedding = self.files.embedding()?;
            let prompt = if usual || prompt_name.is_some() { embedding.prompt(prompt_name)? } else { "" };
            embedding.encode(tokenizer, prompt, text)
        });
        let made = made.map_err(|e| raised(&e))?;
        Ok((made.token_ids, made.cut))
    }

    /// The requests of a query with a document, as a JSON list: one, or one for each of yes and no.
    #[pyo3(signature = (query, document, instruction=None))]
    fn pair(&self, query: &str, document: &str, instruction: Option<&str>) -> PyResult<String> {
        let pair = self.reranker()?.pair(self.tokenizer()?, query, document, instruction);
        let pair = pair.map_err(|e| raised(&e))?;
        let requests: Vec<Value> = pair.requests.iter().map(described).collect();
        Ok(Value::Array(requests).to_string())
    }

    /// The score of a pair: of the vector that its request gave, or of the log-probabilities of yes and no.
    #[pyo3(signature = (vector=None, words=None))]
    fn pair_score(
        &self,
        vector: Option<PyReadonlyArray1<'_, f32>>,
        words: Option<[f32; 2]>,
    ) -> PyResult<f32> {
        let word = |logprob| {
            let logprobs = vec![Some(logprob)];
            Outcome::Score(Score { token_ids: Vec::new(), logprobs, logits_last: None, top: None })
        };
        let outcomes: Vec<Outcome> = match (vector, words) {
            (Some(vector), _) => vec![Outcome::Hidden(vec![vector.as_array().to_vec()])],
            (None, words) => words.into_iter().flatten().map(word).collect(),
        };
        let score = self.reranker()?.score(&outcomes);
        score.ok_or_else(|| usage("a pair of texts has no score"))
    }

    /// The text of token ids.
    #[pyo3(signature = (ids, skip_special=false))]
    fn decode(&self, ids: Vec<u32>, skip_special: bool) -> PyResult<String> {
        Ok(self.tokenizer()?.decode(&ids, skip_special))
    }

    /// Refuses a shape of answers, in JSON, that cannot be followed.
    fn check_shape(&self, py: Python<'_>, shape: &str) -> PyResult<()> {
        let shape: GivenShape = serde_json::from_str(shape).map_err(|e| usage(format!("shape: {e}")))?;
        detached(py, || self.grammar(&shape.into())).map(drop)
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
        detached(py, || template.render(&messages, add_generation_prompt, extra)).map_err(failed)
    }
}

/// A request of a pair as the Python half writes requests.
fn described(request: &Request) -> Value {
    let want = match request.want {
        Want::Score { from, .. } => json!({ "score": { "from": from, "logits_last": false } }),
        Want::Hidden(hidden) => {
            let pooling = hidden.pooling.map(name);
            json!({ "hidden": { "layer": null, "pooling": pooling, "dimensions": null, "normalize": false } })
        }
        _ => Value::Null,
    };
    json!({ "tokens": request.token_ids, "want": want, "second": request.second })
}

/// What a pooling is called.
fn name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::LastToken => "last",
        Pooling::Cls => "cls",
        Pooling::WeightedMean => "weighted",
        Pooling::Max => "max",
        Pooling::MeanSqrt => "mean_sqrt",
    }
}

impl Model {
    /// How vectors are made of texts, or why that is not known.
    fn embedding(&self) -> Value {
        match self.files.embedding() {
            Ok(e) => json!({
                "pooling": name(e.pooling),
                "normalize": e.normalize,
                "cuts": e.cuts,
                "width": e.width,
                "tokens_max": e.tokens_max,
                "prompts": e.prompts,
            }),
            Err(error) => json!({ "error": error.to_string() }),
        }
    }

    /// Whether it has a head that scores pairs of texts.
    fn scores_pairs(&self) -> bool {
        self.files.scores_texts()
    }

    /// What scores pairs of texts.
    fn reranker(&self) -> PyResult<&Reranker> {
        let tokenizer = self.tokenizer()?;
        let found = self.reranker.get_or_init(|| self.files.reranker(tokenizer).map_err(|e| e.to_string()));
        found.as_ref().map_err(|e| exception("ModelError", e))
    }

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
            let built = built.map_err(unusable)?;
            *grammars = Some(match self.memory_bytes {
                Some(bytes) => built.within(request_bytes_within(bytes), bytes),
                None => built,
            });
        }
        let grammars = grammars.as_mut().ok_or_else(|| unusable(String::new()))?;
        grammars.constraint(shape).map_err(unusable)
    }
}
