//! Requests and options as the Python half writes them: JSON, with every member checked there already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use aerostat::{
    Constraint, Draft, Hidden, KvType, Layer, ModelFiles, Options, Pooling, Request, Sampling, SharedHook,
    Stores, TokenRules, Want,
};
use aerostat_openai::Shape;

use crate::error::{raised, usage};
use crate::hook::{Gathering, Hand};
use crate::model::Model;

/// A request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    tokens: Vec<u32>,
    /// The position from which on tokens are of a second part.
    #[serde(default)]
    second: Option<usize>,
    #[serde(default)]
    want: GivenWant,
    #[serde(default)]
    max_new_tokens: usize,
    #[serde(default)]
    sampling: Option<GivenSampling>,
    /// Number of this answer among several to the same prompt.
    #[serde(default)]
    stream: u64,
    #[serde(default)]
    end_tokens: Vec<u32>,
    #[serde(default)]
    stop: Vec<String>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    stop_token_ids: Vec<u32>,
    #[serde(default)]
    include_stop: bool,
    #[serde(default)]
    keep_special_tokens: bool,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    prompt_logprobs: Option<usize>,
    #[serde(default)]
    rules: Option<GivenRules>,
    /// Logits that are gathered.
    #[serde(default)]
    collect: Collect,
    /// Layers whose hidden states are gathered: blocks before them, `None` after the final norm.
    #[serde(default)]
    layers: Vec<Option<usize>>,
    #[serde(default)]
    shape: Option<GivenShape>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collect {
    logits: bool,
    processed: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GivenRules {
    min_tokens: usize,
    allowed_token_ids: Option<Vec<u32>>,
    suppress_tokens: Vec<u32>,
    begin_suppress_tokens: Vec<u32>,
    bad_words: Vec<Vec<u32>>,
    bad_words_ids: Vec<Vec<u32>>,
    no_repeat_ngram_size: usize,
    forced_bos: Option<u32>,
    forced_eos: Vec<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GivenWant {
    #[default]
    Generate,
    Score {
        from: usize,
        logits_last: bool,
    },
    Topk {
        k: usize,
        from: usize,
    },
    Logits {
        from: usize,
    },
    Hidden {
        /// Blocks before it; `None`: after the final norm.
        layer: Option<usize>,
        pooling: Option<String>,
        dimensions: Option<usize>,
        normalize: bool,
    },
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenSampling {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    logit_bias: Vec<(u32, f32)>,
    seed: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GivenShape {
    Json(Value),
    JsonObject,
    Regex(String),
    Choice(Vec<String>),
    Grammar(String),
}

/// Options of the engine.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenOptions {
    memory_bytes: Option<u64>,
    threads: Option<usize>,
    io: Option<String>,
    kv: Option<String>,
    rows_max: Option<usize>,
    spill: Option<PathBuf>,
    expert_use: Option<PathBuf>,
    /// `auto`, `texts`, `none`, or where a small model lies.
    draft: Option<String>,
    /// The folder of models that are no Hub's, for `auto`.
    own_cache: Option<PathBuf>,
}

/// What of a caller's own is asked at each token of a request: what changes its logits, and what ends it.
pub(crate) type Asked = (Option<Py<PyAny>>, Option<Py<PyAny>>);

/// The requests of a JSON list, and what will be gathered of them. Their ids are their places. `asked` has one for each of
/// them, or is empty.
pub(crate) fn requests(model: &Model, json: &str, asked: Vec<Asked>) -> PyResult<(Vec<Request>, Gathering)> {
    let given: Vec<Given> = serde_json::from_str(json).map_err(|e| usage(format!("request: {e}")))?;
    let (mut asked, mut gathered) = (asked.into_iter(), Gathering::new());
    let mut requests = Vec::with_capacity(given.len());
    for (id, given) in given.into_iter().enumerate() {
        let (process, stops) = asked.next().unwrap_or_default();
        let Collect { logits, processed } = given.collect;
        let hand = Hand { gathered: Arc::default(), rows: given.rows(), logits, processed, process, stops };
        let gathers = logits || processed || !given.layers.is_empty();
        if gathers {
            gathered.insert(id as u64, Arc::clone(&hand.gathered));
        }
        let hook = (gathers || hand.process.is_some() || hand.stops.is_some()).then(|| SharedHook::new(hand));
        requests.push(Request { hook, ..given.request(id as u64, model)? });
    }
    Ok((requests, gathered))
}

/// The options of a JSON object, for a model.
pub(crate) fn engine_options(json: &str, files: &ModelFiles) -> PyResult<Options> {
    let given: GivenOptions = serde_json::from_str(json).map_err(|e| usage(format!("options: {e}")))?;
    let io = match given.io.as_deref() {
        None | Some("auto") => aerostat::IoChoice::Auto,
        Some("direct") => aerostat::IoChoice::Direct,
        Some("buffered") => aerostat::IoChoice::Buffered,
        Some("uring") => aerostat::IoChoice::Uring,
        Some(other) => {
            return Err(usage(format!("io is '{other}'; expected auto, direct, uring or buffered")));
        }
    };
    let kv = match given.kv.as_deref() {
        None => files.usual_kv(),
        Some(name) => {
            let named = KvType::ALL.iter().find(|kv| kv.name() == name).copied();
            named.ok_or_else(|| usage(format!("kv is '{name}'; expected f16, bf16, f32, q8 or q8-all")))?
        }
    };
    let draft = match given.draft.as_deref() {
        None | Some("texts" | "auto") => Draft::Texts,
        Some("none") => Draft::None,
        Some(path) => Draft::Model(Arc::new(ModelFiles::open(Path::new(path)).map_err(|e| raised(&e))?)),
    };
    let finds = given.draft.as_deref() == Some("auto");
    let GivenOptions { memory_bytes, threads, rows_max, spill, expert_use, own_cache, .. } = given;
    let options =
        Options { memory_bytes, threads, io, kv, rows_max, spill, expert_use, draft, ..Options::default() };
    let draft = if finds { best_draft(files, &options, own_cache)? } else { None };
    Ok(Options { draft: draft.unwrap_or(options.draft), ..options })
}

/// The best of the models on this machine that can guess for this one, if one is worth its memory.
fn best_draft(files: &ModelFiles, options: &Options, own_cache: Option<PathBuf>) -> PyResult<Option<Draft>> {
    let stores = Stores::from_environment(own_cache).map_err(|e| raised(&e.into()))?;
    let found = stores.list().into_iter().filter(|found| found.complete);
    let paths: Vec<PathBuf> = found.map(|found| found.path).collect();
    let small = aerostat::best_draft(files, options, None, &paths).map_err(|e| raised(&e))?;
    Ok(small.map(Draft::Model))
}

impl Given {
    /// Rows of logits or hidden states that come of it at least, where they are gathered.
    fn rows(&self) -> usize {
        match self.want {
            GivenWant::Logits { from } => self.tokens.len().saturating_sub(from).max(1),
            GivenWant::Generate if self.layers.is_empty() => 1,
            _ => self.tokens.len(),
        }
    }

    fn request(self, id: u64, model: &Model) -> PyResult<Request> {
        let mut sampling = self.sampling.map_or_else(Sampling::default, Sampling::from);
        sampling.rules = self.rules.map(|rules| Arc::new(rules.into())).unwrap_or_default();
        let layer = |layer: Option<usize>| layer.map_or(Layer::Final, Layer::After);
        let constraint = self.shape.map(|shape| model.grammar(&shape.into())).transpose()?;
        Ok(Request {
            id,
            token_ids: self.tokens,
            second: self.second,
            max_new_tokens: self.max_new_tokens,
            sampling,
            stream: self.stream,
            end_tokens: self.end_tokens,
            stop: self.stop,
            ignore_eos: self.ignore_eos,
            stop_token_ids: self.stop_token_ids,
            include_stop: self.include_stop,
            keep_special_tokens: self.keep_special_tokens,
            top_logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            layers: self.layers.into_iter().map(layer).collect(),
            constraint: constraint.map(|grammar| Box::new(grammar) as Box<dyn Constraint>),
            want: self.want.want()?,
            ..Request::default()
        })
    }
}

impl GivenWant {
    fn want(self) -> PyResult<Want> {
        Ok(match self {
            Self::Generate => Want::Generate,
            Self::Score { from, logits_last } => Want::Score { from, logits_last },
            Self::Topk { k, from } => Want::TopK { k, from },
            Self::Logits { from } => Want::Logits { from },
            Self::Hidden { layer, pooling, dimensions, normalize } => Want::Hidden(Hidden {
                layer: layer.map_or(Layer::Final, Layer::After),
                pooling: pooling.as_deref().map(pooled).transpose()?,
                dimensions,
                normalize,
            }),
        })
    }
}

fn pooled(name: &str) -> PyResult<Pooling> {
    match name {
        "mean" => Ok(Pooling::Mean),
        "last" => Ok(Pooling::LastToken),
        "cls" => Ok(Pooling::Cls),
        "weighted" => Ok(Pooling::WeightedMean),
        "max" => Ok(Pooling::Max),
        "mean_sqrt" => Ok(Pooling::MeanSqrt),
        _ => Err(usage(format!("pooling is '{name}'; expected mean, last, cls, weighted, max or mean_sqrt"))),
    }
}

impl From<GivenSampling> for Sampling {
    fn from(given: GivenSampling) -> Self {
        let GivenSampling { temperature, top_k, top_p, min_p, repetition_penalty, .. } = given;
        let GivenSampling { frequency_penalty, presence_penalty, logit_bias, seed, .. } = given;
        Self {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            frequency_penalty,
            presence_penalty,
            logit_bias: logit_bias.into(),
            seed,
            ..Self::default()
        }
    }
}

impl From<GivenRules> for TokenRules {
    fn from(given: GivenRules) -> Self {
        let GivenRules { min_tokens, allowed_token_ids, suppress_tokens, begin_suppress_tokens, .. } = given;
        let GivenRules { bad_words, bad_words_ids, no_repeat_ngram_size, forced_bos, forced_eos, .. } = given;
        Self {
            min_tokens,
            allowed_token_ids,
            suppress_tokens,
            begin_suppress_tokens,
            bad_words,
            bad_words_ids,
            no_repeat_ngram_size,
            forced_bos,
            forced_eos,
            ..Self::default()
        }
    }
}

impl From<GivenShape> for Shape {
    fn from(given: GivenShape) -> Self {
        match given {
            GivenShape::Json(schema) => Self::Schema(schema),
            GivenShape::JsonObject => Self::JsonObject,
            GivenShape::Regex(regex) => Self::Regex(regex),
            GivenShape::Choice(choices) => Self::Choice(choices),
            GivenShape::Grammar(lark) => Self::Lark(lark),
        }
    }
}
