//! What requests are read against: one model's tokenizer, chat template, limits and defaults.

use std::sync::{Arc, OnceLock};

use aerostat::{ChatTemplate, Embedding, Error, ModelFiles, Reranker, Sampling, Tokenizer};

use crate::dialect::Dialect;
use crate::part::PARTS_MAX;
use crate::refusal::Refusal;

/// A token is rarely longer than some dozen bytes: what is far too long need not be tokenised to know it.
pub(crate) const TOKEN_BYTES_MAX: usize = 512;
/// Reading one request may take this part of the memory,
const MEMORY_PER_REQUEST: u64 = 4;
/// or so many bytes, where that is little.
const REQUEST_BYTES_MIN: u64 = 4 << 20;

/// Memory that reading a request may take where there is so much in all, in bytes.
pub fn request_bytes_within(memory_bytes: u64) -> u64 {
    (memory_bytes / MEMORY_PER_REQUEST).max(REQUEST_BYTES_MIN)
}

/// How requests are read, and what holds where they do not say.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Tokens of a sequence at most, prompt and answer; `None`: what the model was made for.
    pub context: Option<usize>,
    /// Tokens of a chat's answer at most, where the request does not say.
    pub max_new_tokens: usize,
    /// What seeds of requests without one are made from: the number of the request is added.
    pub seed: u64,
    /// Take what vLLM takes and OpenAI refuses: any temperature from 0, and members that are not known, which are
    /// ignored and noted in [`ApiRequest::ignored`](crate::ApiRequest::ignored).
    pub lenient: bool,
}

/// What requests are read against: the model's tokenizer, template, limits and defaults.
pub struct Setting {
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) end_tokens: Vec<u32>,
    /// What the model's makers recommend.
    pub(crate) sampling: Sampling,
    /// Tokens that the model knows.
    pub(crate) vocab: usize,
    /// How vectors are made of texts, or why that cannot be known.
    pub(crate) embedding: Result<Embedding, String>,
    /// The head that scores pairs of texts, or why it cannot; `None` if the model has none.
    pub(crate) scorer: Option<Result<Arc<Reranker>, String>>,
    /// Tokens of a sequence at most.
    pub(crate) context_max: usize,
    pub(crate) rules: Rules,
    /// Memory that reading a request may take.
    request_bytes_max: u64,
    /// What the process may take.
    memory_bytes: u64,
    /// Found when it is first asked for.
    pub(crate) dialect: OnceLock<Dialect>,
    model: String,
    /// What requests may call it; empty: anything.
    names: Vec<String>,
}

impl Setting {
    /// The setting of a model. `name` is what responses call it where requests do not.
    ///
    /// # Errors
    /// A broken tokenizer or template.
    pub fn new(files: &ModelFiles, name: &str, rules: impl Into<Rules>) -> Result<Self, Error> {
        let rules = rules.into();
        let tokenizer = files.tokenizer()?;
        let template = files.chat_template(tokenizer.as_ref())?;
        let end_tokens = files.end_tokens(tokenizer.as_ref());
        let spec = files.spec();
        let scorer = files.scores_texts().then(|| match &tokenizer {
            Some(tokenizer) => files.reranker(tokenizer).map(Arc::new).map_err(|error| error.to_string()),
            None => {
                Err("the model has a head that scores texts, and no tokenizer to read them with".to_owned())
            }
        });
        Ok(Self {
            tokenizer: tokenizer.map(Arc::new),
            template,
            end_tokens,
            sampling: files.sampling(),
            vocab: spec.vocab,
            embedding: files.embedding().map_err(|error| error.to_string()),
            scorer,
            context_max: rules.context.unwrap_or(spec.context_max).max(1),
            rules,
            request_bytes_max: u64::MAX,
            memory_bytes: u64::MAX,
            dialect: OnceLock::new(),
            model: name.to_owned(),
            names: Vec::new(),
        })
    }

    /// The same setting under other rules; what is large is shared.
    pub fn with_rules(&self, rules: impl Into<Rules>) -> Self {
        let rules = rules.into();
        Self {
            tokenizer: self.tokenizer.clone(),
            template: self.template.clone(),
            end_tokens: self.end_tokens.clone(),
            sampling: self.sampling.clone(),
            embedding: self.embedding.clone(),
            scorer: self.scorer.clone(),
            context_max: rules.context.unwrap_or(self.context_max).max(1),
            rules,
            dialect: self.dialect.clone(),
            model: self.model.clone(),
            names: self.names.clone(),
            ..*self
        }
    }

    /// The same setting within so much memory: a request whose reading would take much of it is refused, before it is read.
    pub fn within(self, memory_bytes: u64) -> Self {
        Self { request_bytes_max: request_bytes_within(memory_bytes), memory_bytes, ..self }
    }

    /// The same in a process that may take so much memory, of which requests may take what [`Setting::within`] was told.
    pub fn of_process(self, memory_bytes: u64) -> Self {
        Self { memory_bytes, ..self }
    }

    /// Memory that the process may take, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The same for a model that goes by these names: a request for another is refused. Without any, each is for this one.
    pub fn only(self, names: &[String]) -> Self {
        Self { names: names.to_vec(), ..self }
    }

    /// Refuses the name of another model.
    ///
    /// # Errors
    /// It is another's; the error's code is `model_not_found`.
    pub fn check_model(&self, name: &str) -> Result<(), Refusal> {
        match self.names.first() {
            Some(own) if self.names.iter().all(|own| own != name) => {
                let shown: String = name.chars().take(100).collect();
                let message = format!("there is no model {shown:?} here; this server has {own:?}");
                Err(Refusal::new("model_not_found", message))
            }
            _ => Ok(()),
        }
    }

    /// Memory that reading a request may take, in bytes.
    pub fn request_bytes_max(&self) -> u64 {
        self.request_bytes_max
    }

    /// Bytes of text that no context holds more than: a token is rarely longer than some dozen.
    pub fn text_bytes_max(&self) -> usize {
        self.context_max.saturating_mul(TOKEN_BYTES_MAX)
    }

    /// Stops the clock that templates may look at, in seconds since 1970, so that a prompt is the same whenever it is
    /// rendered again.
    pub fn stop_clock(&mut self, seconds: u64) {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        self.template = self.template.take().map(|template| template.at(seconds));
    }

    /// Elements of a list at most, in a request that is served: tokens of a prompt that fits the context, or texts of a
    /// request.
    pub fn list_max(&self) -> usize {
        self.context_max.max(PARTS_MAX)
    }

    /// What responses call the model where requests do not.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The tokenizer; `None` if the model has none and takes token ids only.
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// Whether texts are scored by a head of the model's own, so that scores are no log-probabilities.
    pub fn has_scorer(&self) -> bool {
        self.scorer.is_some()
    }

    /// The chat template as it is written, if the model has one.
    pub fn template_source(&self) -> Option<&str> {
        self.template.as_ref().map(ChatTemplate::source)
    }

    /// Whether requests are read leniently: see [`Rules::lenient`].
    pub fn lenient(&self) -> bool {
        self.rules.lenient
    }
}
