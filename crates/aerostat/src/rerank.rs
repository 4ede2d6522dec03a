//! How well documents answer a query: models with a head that scores a pair of texts, and causal models that say yes or no.

use aerostat_arch::ModelSpec;
use aerostat_checkpoint::{Catalog, Config};
use serde_json::Value;

use crate::embedding::{activated, broken};
use crate::engine::Engine;
use crate::layers::{Activated, Layers};
use crate::need::Need;
use crate::observe::Observer;
use crate::request::{Hidden, Layer, Outcome, Pooling, Request, Want};
use crate::{Error, ErrorKind, ModelFiles, Tokenizer};

/// What causal models are asked, as Qwen's rerankers were taught to be.
const BEFORE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the \
                      Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n";
const AFTER: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
/// What a document is to do, where nobody says it.
pub const INSTRUCTION: &str = "Given a web search query, retrieve relevant passages that answer the query";

/// Scores documents for a query.
#[derive(Debug)]
pub struct Reranker {
    way: Way,
    /// Tokens of a pair at most.
    tokens_max: usize,
}

#[derive(Debug)]
enum Way {
    /// A head over one vector of both texts.
    Head {
        pooling: Pooling,
        layers: Layers,
        last: Activated,
        /// The texts are written as Qwen's rerankers know them.
        asked: bool,
    },
    /// The tokens of yes and no.
    Words([u32; 2]),
}

/// A query with a document, as requests of which each is computed.
#[derive(Debug)]
pub struct Pair {
    /// One, or one for each of yes and no.
    pub requests: Vec<Request>,
    /// Tokens that were cut off.
    pub cut: usize,
}

impl ModelFiles {
    /// What scores documents with this model.
    ///
    /// # Errors
    /// [`ErrorKind::Model`]: it is no model that does, and why.
    pub fn reranker(&self, tokenizer: &Tokenizer) -> Result<Reranker, Error> {
        let tokens_max = self.embedding()?.tokens_max;
        let refuse = |why: &str| Error::new(ErrorKind::Model, format!("{}: {why}", self.path().display()));
        if let Some((pooling, layers, width)) = head(self)? {
            if width != 1 {
                let message = format!(
                    "the model's head gives {width} scores, not one of how well a document answers a query"
                );
                return Err(refuse(&message));
            }
            let asked = !self.spec.looks_ahead();
            return Ok(Reranker {
                way: Way::Head { pooling, layers, last: self.last_activation()?, asked },
                tokens_max,
            });
        }
        if self.spec.head.absent || self.spec.looks_ahead() {
            return Err(refuse(
                "the model has neither a head that scores pairs of texts nor one that gives tokens",
            ));
        }
        let word = |text: &str| match tokenizer.encode(text, false)?.as_slice() {
            [one] => Ok(*one),
            _ => Err(refuse(&format!(
                "`{text}` is not one token of the model, which scoring by yes and no needs"
            ))),
        };
        Ok(Reranker { way: Way::Words([word("yes")?, word("no")?]), tokens_max })
    }

    /// What is done to the score of a pair in the end, as sentence-transformers does it.
    fn last_activation(&self) -> Result<Activated, Error> {
        let Config::HuggingFace(hf) = &self.checkpoint.config else { return Ok(Activated::No) };
        let own = hf.config.get("sentence_transformers").and_then(|own| own.get("activation_fn"));
        let old = hf.config.get("sbert_ce_default_activation_function");
        match own.or(old).and_then(Value::as_str) {
            Some(name) => activated(name)
                .ok_or_else(|| broken(&hf.path, &format!("the activation `{name}` is not supported"))),
            None => Ok(Activated::By(aerostat_backend::Activation::Sigmoid)),
        }
    }
}

impl Reranker {
    /// A query with a document. `instruction` says what a document is to do, to models that are told.
    ///
    /// # Errors
    /// [`ErrorKind::Text`]: the tokenizer cannot write them. [`ErrorKind::Usage`]: the model is told nothing, or the query leaves
    /// no room.
    pub fn pair(
        &self,
        tokenizer: &Tokenizer,
        query: &str,
        document: &str,
        instruction: Option<&str>,
    ) -> Result<Pair, Error> {
        let asked = |instruction: Option<&str>| self.asked(tokenizer, query, document, instruction);
        match &self.way {
            Way::Head { asked: false, .. } if instruction.is_some() => Err(Error::new(
                ErrorKind::Usage,
                "this model takes a query and a document, and no instruction",
            )),
            Way::Head { pooling, asked: false, .. } => {
                let pair = tokenizer.encode_pair(query, document, self.tokens_max)?;
                let request = Request { second: pair.second, ..self.vector(*pooling, pair.token_ids) };
                Ok(Pair { requests: vec![request], cut: pair.cut })
            }
            Way::Head { pooling, .. } => {
                let (token_ids, cut) = asked(instruction)?;
                Ok(Pair { requests: vec![self.vector(*pooling, token_ids)], cut })
            }
            Way::Words(words) => {
                let (before, cut) = asked(instruction)?;
                let request = |word: &u32| Request {
                    want: Want::Score { from: before.len(), logits_last: false },
                    token_ids: before.iter().chain([word]).copied().collect(),
                    ..Request::default()
                };
                Ok(Pair { requests: words.iter().map(request).collect(), cut })
            }
        }
    }

    fn vector(&self, pooling: Pooling, token_ids: Vec<u32>) -> Request {
        let hidden = Hidden { layer: Layer::Final, pooling: Some(pooling), ..Hidden::default() };
        Request { token_ids, want: Want::Hidden(hidden), ..Request::default() }
    }

    /// Query and document as Qwen's rerankers know them, the document cut at its end where it is too long.
    fn asked(
        &self,
        tokenizer: &Tokenizer,
        query: &str,
        document: &str,
        instruction: Option<&str>,
    ) -> Result<(Vec<u32>, usize), Error> {
        let instruction = instruction.unwrap_or(INSTRUCTION);
        let body = format!("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}");
        let (mut ids, mut body) = (tokenizer.encode(BEFORE, false)?, tokenizer.encode(&body, false)?);
        let after = tokenizer.encode(AFTER, false)?;
        let room = self.tokens_max.saturating_sub(ids.len() + after.len() + 1);
        let cut = body.len().saturating_sub(room);
        body.truncate(room);
        ids.extend(body);
        ids.extend(after);
        Ok((ids, cut))
    }

    /// The score of a pair, of what became of its requests; between 0 and 1 as a rule.
    pub fn score(&self, outcomes: &[Outcome]) -> Option<f32> {
        match (&self.way, outcomes) {
            (Way::Head { layers, last, .. }, [Outcome::Hidden(vectors)]) => {
                let score = *layers.apply(vectors.first()?.clone()).first()?;
                Some(last.of(score))
            }
            (Way::Words(_), [Outcome::Score(yes), Outcome::Score(no)]) => {
                let last = |score: &crate::Score| score.logprobs.last().copied().flatten();
                let (yes, no) = (f64::from(last(yes)?), f64::from(last(no)?));
                Some((1.0 / (1.0 + (no - yes).exp())) as f32)
            }
            _ => None,
        }
    }

    /// What the plan must provide for these pairs.
    pub fn need(&self, pairs: &[Pair]) -> Need {
        let mut need = Need::none();
        pairs.iter().flat_map(|pair| &pair.requests).for_each(|request| need.add(request));
        need
    }

    /// The score of each pair; one that cannot be scored has an error in its place.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] if the observer asked to stop; those of reading and computing.
    pub fn scores(
        &self,
        engine: &mut Engine,
        pairs: &[Pair],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Result<f32, Error>>, Error> {
        let requests: Vec<&Request> = pairs.iter().flat_map(|pair| &pair.requests).collect();
        let request = |i: usize| requests[i].clone();
        let found = engine.results(requests.len(), &request, observer, Some)?;
        let mut found = found.into_iter();
        let lost = || Error::new(ErrorKind::Defect, "a pair of texts has no score");
        let score = |pair: &Pair| -> Result<f32, Error> {
            // All of them, so that the next ones begin at the right place.
            let outcomes: Vec<_> = found.by_ref().take(pair.requests.len()).collect();
            let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.score(&outcomes).ok_or_else(lost)
        };
        Ok(pairs.iter().map(score).collect())
    }
}

impl ModelFiles {
    /// Whether its configuration says that it has a head that scores texts, or pairs of them.
    pub fn scores_texts(&self) -> bool {
        let Config::HuggingFace(hf) = &self.checkpoint.config else { return false };
        let architecture =
            hf.config.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        architecture.is_some_and(|name| name.contains("ForSequenceClassification"))
    }
}

/// The head of a model that scores texts: which vector it reads, its layers, and the number of its scores.
fn head(files: &ModelFiles) -> Result<Option<(Pooling, Layers, usize)>, Error> {
    let Config::HuggingFace(hf) = &files.checkpoint.config else { return Ok(None) };
    if !files.scores_texts() {
        return Ok(None);
    }
    let (catalog, spec) = (&files.checkpoint.catalog, &files.spec);
    let text = |key: &str| hf.config.get(key).and_then(Value::as_str);
    let has = |name: &str| catalog.get(&format!("{name}.weight")).is_some();
    let mut layers = Layers::default();
    let width = spec.hidden;
    let tanh = Activated::Tanh;
    let pooler = pooler(catalog);
    let (pooling, width) = if has("score") {
        (Pooling::LastToken, layers.dense(catalog, "score", width, Activated::No)?)
    } else if has("head.dense") {
        let name = text("classifier_activation").unwrap_or("gelu");
        let activation = activated(name)
            .ok_or_else(|| broken(&hf.path, &format!("the activation `{name}` is not supported")))?;
        let width = layers.dense(catalog, "head.dense", width, activation)?;
        let eps = final_eps(spec);
        layers.layer_norm(catalog, "head.norm", width, eps)?;
        let mean = text("classifier_pooling") == Some("mean");
        let pooling = if mean { Pooling::Mean } else { Pooling::Cls };
        (pooling, layers.dense(catalog, "classifier", width, Activated::No)?)
    } else if has("classifier.out_proj") {
        let width = layers.dense(catalog, "classifier.dense", width, tanh)?;
        (Pooling::Cls, layers.dense(catalog, "classifier.out_proj", width, Activated::No)?)
    } else if has("pre_classifier") {
        let relu = Activated::By(aerostat_backend::Activation::Relu);
        let width = layers.dense(catalog, "pre_classifier", width, relu)?;
        (Pooling::Cls, layers.dense(catalog, "classifier", width, Activated::No)?)
    } else if let Some(name) = pooler.filter(|_| has("classifier")) {
        let width = layers.dense(catalog, &name, width, tanh)?;
        (Pooling::Cls, layers.dense(catalog, "classifier", width, Activated::No)?)
    } else {
        let why = "the head of this model is not one that is known: it is not supported";
        return Err(broken(&hf.path, why));
    };
    Ok(Some((pooling, layers, width)))
}

/// The name of the matrix that BERT and its kin read the first vector with.
fn pooler(catalog: &Catalog) -> Option<String> {
    const NAME: &str = "pooler.dense.weight";
    let found = catalog.tensors().find(|t| t.name == NAME || t.name.ends_with(&format!(".{NAME}")))?;
    found.name.strip_suffix(".weight").map(str::to_owned)
}

/// What norms add to the mean of squares.
fn final_eps(spec: &ModelSpec) -> f32 {
    spec.final_norm.as_ref().map_or(1e-5, |norm| norm.eps)
}
