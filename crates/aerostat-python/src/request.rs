//! Requests and options as the Python half writes them: JSON, with every member checked there already.

use std::path::PathBuf;

use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use aerostat::{Constraint, Hidden, KvType, Layer, Options, Pooling, Request, Sampling, Want};
use aerostat_openai::Shape;

use crate::error::usage;
use crate::model::Model;

/// A request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    tokens: Vec<u32>,
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
    logprobs: Option<usize>,
    #[serde(default)]
    shape: Option<GivenShape>,
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
enum GivenShape {
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
}

/// The requests of a JSON list. Their ids are their places.
pub(crate) fn requests(model: &Model, json: &str) -> PyResult<Vec<Request>> {
    let given: Vec<Given> = serde_json::from_str(json).map_err(|e| usage(format!("request: {e}")))?;
    given.into_iter().enumerate().map(|(id, given)| given.request(id as u64, model)).collect()
}

/// The options of a JSON object.
pub(crate) fn engine_options(json: &str) -> PyResult<Options> {
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
        None => KvType::default(),
        Some(name) => {
            let named = KvType::ALL.iter().find(|kv| kv.name() == name).copied();
            named.ok_or_else(|| usage(format!("kv is '{name}'; expected f16, bf16, f32 or q8")))?
        }
    };
    let GivenOptions { memory_bytes, threads, rows_max, spill, expert_use, .. } = given;
    Ok(Options { memory_bytes, threads, io, kv, rows_max, spill, expert_use, ..Options::default() })
}

impl Given {
    fn request(self, id: u64, model: &Model) -> PyResult<Request> {
        let constraint = self.shape.map(|shape| model.grammar(&shape.into())).transpose()?;
        Ok(Request {
            id,
            token_ids: self.tokens,
            max_new_tokens: self.max_new_tokens,
            sampling: self.sampling.map_or_else(Sampling::default, Into::into),
            stream: self.stream,
            end_tokens: self.end_tokens,
            stop: self.stop,
            top_logprobs: self.logprobs,
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
        _ => Err(usage(format!("pooling is '{name}'; expected mean, last, cls or weighted"))),
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
            logit_bias,
            seed,
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
