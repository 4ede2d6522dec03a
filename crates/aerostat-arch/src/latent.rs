//! Attention with compressed keys and values (multi-head latent attention), and its choice of positions.
//!
//! A row's keys and values are compressed to `rank` elements that all heads share, beside a part of the key that is rotated;
//! this is what the cache holds. A head's query is taken into the compressed space, and attention's output out of it.

use serde_json::Value;

use crate::error::Error;
use crate::family::Bias;
use crate::keys::{Key, Keys};
use crate::rope::{RopeConfig, Scaling};
use crate::spec::{Linear, Norm, NormKind, RopeStyle, Runs};
use crate::tensors::{Part, Tensors};

const KV_RANK: Key = Key { hugging_face: &["kv_lora_rank"], gguf: "attention.kv_lora_rank" };
const ROPE: Key = Key { hugging_face: &["qk_rope_head_dim"], gguf: "rope.dimension_count" };
const NOPE: Key = Key { hugging_face: &["qk_nope_head_dim"], gguf: "" };
const VALUE: Key = Key { hugging_face: &["v_head_dim"], gguf: "attention.value_length_mla" };
const VALUE_OLD: Key = Key { hugging_face: &[], gguf: "attention.value_length" };
const KEY: Key = Key { hugging_face: &[], gguf: "attention.key_length_mla" };
const KEY_OLD: Key = Key { hugging_face: &[], gguf: "attention.key_length" };
const INDEX_HEADS: Key = Key { hugging_face: &["index_n_heads"], gguf: "attention.indexer.head_count" };
const INDEX_DIM: Key = Key { hugging_face: &["index_head_dim"], gguf: "attention.indexer.key_length" };
const INDEX_COUNT: Key = Key { hugging_face: &["index_topk"], gguf: "attention.indexer.top_k" };

/// Of the norms between two matrices, whatever the configuration says of the others.
const EPS: f32 = 1e-6;

/// Compressed keys and values. The specification's `q` has `heads * (nope + rope)` rows, `k` takes the first `nope`
/// elements of a head to `rank`, and `v` takes `rank` elements to a head's output.
#[derive(Clone, Debug)]
pub struct Latent {
    /// Compresses what queries are made of, and norms it.
    pub q_down: Option<(Linear, Norm)>,
    /// `[rank + rope, hidden]`.
    pub kv_down: Linear,
    /// On the first `rank` elements.
    pub kv_norm: Norm,
    /// Elements of compressed keys and values.
    pub rank: usize,
    /// Elements of a head's query that are not rotated.
    pub nope: usize,
    /// Elements of a head's query, and of the key that all heads share, that are.
    pub rope: usize,
    /// Size of a value head.
    pub value_dim: usize,
    /// `k` has a row for each of a head's `nope` elements, `[heads * nope, rank]`; else `[heads * rank, nope]`.
    pub k_by_rows: bool,
    /// The positions that a row attends to.
    pub selection: Selection,
}

/// The positions that rows attend to.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All they see.
    All,
    /// The best `count`.
    Own {
        /// Positions at most.
        count: usize,
        /// Says which.
        indexer: Box<Indexer>,
    },
    /// Those that the last layer with an indexer chose.
    Previous {
        /// Positions at most.
        count: usize,
    },
}

impl Selection {
    /// Positions at most; 0 for all.
    pub fn count(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Own { count, .. } | Self::Previous { count } => *count,
        }
    }
}

/// Chooses positions: for each, a weighted sum over heads of what is positive of query times key.
#[derive(Clone, Debug)]
pub struct Indexer {
    /// `[heads * dim, rank of queries]`.
    pub q: Linear,
    /// `[dim, hidden]`.
    pub k: Linear,
    /// On the key.
    pub k_norm: Norm,
    /// `[heads, hidden]`.
    pub weights: Linear,
    /// Query heads.
    pub heads: usize,
    /// Size of a head.
    pub dim: usize,
    /// How the first elements of queries and keys are rotated.
    pub style: RopeStyle,
}

impl Latent {
    /// Its indexer, if it has one of its own.
    pub fn indexer(&self) -> Option<&Indexer> {
        match &self.selection {
            Selection::Own { indexer, .. } => Some(indexer),
            _ => None,
        }
    }

    /// Its norms.
    pub(crate) fn norms(&self) -> impl Iterator<Item = &Norm> {
        let q = self.q_down.iter().map(|(_, norm)| norm);
        q.chain([&self.kv_norm]).chain(self.indexer().map(|indexer| &indexer.k_norm))
    }
}

/// How a family compresses keys and values.
#[derive(Clone, Copy, Debug)]
pub struct LatentFamily {
    /// It chooses positions; how the queries and keys for that are rotated.
    pub indexer: Option<RopeStyle>,
    /// Names of tensors in Hugging Face checkpoints.
    pub names: LatentNames,
    /// Names of tensors in GGUF.
    pub gguf_names: LatentNames,
}

impl LatentFamily {
    /// What a family starts from.
    pub const PLAIN: Self =
        Self { indexer: None, names: LatentNames::HUGGING_FACE, gguf_names: LatentNames::GGUF };
}

/// Names of tensors, as in [`crate::Names`]. Queries that are not compressed are under the usual name.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct LatentNames {
    pub q_down: &'static str,
    pub q_norm: &'static str,
    pub q: &'static str,
    pub kv_down: &'static str,
    pub kv_norm: &'static str,
    /// For each head the rows of its key, then those of its value.
    pub kv: &'static str,
    /// In place of that: for each head the key's part with rows and columns exchanged, and the value's part.
    pub k: &'static str,
    pub v: &'static str,
    pub index_q: &'static str,
    pub index_k: &'static str,
    pub index_norm: &'static str,
    pub index_weights: &'static str,
}

impl LatentNames {
    /// The names of Hugging Face checkpoints.
    pub const HUGGING_FACE: Self = Self {
        q_down: "layers.{}.self_attn.q_a_proj",
        q_norm: "layers.{}.self_attn.q_a_layernorm",
        q: "layers.{}.self_attn.q_b_proj",
        kv_down: "layers.{}.self_attn.kv_a_proj_with_mqa",
        kv_norm: "layers.{}.self_attn.kv_a_layernorm",
        kv: "layers.{}.self_attn.kv_b_proj",
        k: "",
        v: "",
        index_q: "layers.{}.self_attn.indexer.wq_b",
        index_k: "layers.{}.self_attn.indexer.wk",
        index_norm: "layers.{}.self_attn.indexer.k_norm",
        index_weights: "layers.{}.self_attn.indexer.weights_proj",
    };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        q_down: "blk.{}.attn_q_a",
        q_norm: "blk.{}.attn_q_a_norm",
        q: "blk.{}.attn_q_b",
        kv_down: "blk.{}.attn_kv_a_mqa",
        kv_norm: "blk.{}.attn_kv_a_norm",
        kv: "blk.{}.attn_kv_b",
        k: "blk.{}.attn_k_b",
        v: "blk.{}.attn_v_b",
        index_q: "blk.{}.indexer.attn_q_b",
        index_k: "blk.{}.indexer.attn_k",
        index_norm: "blk.{}.indexer.k_norm",
        index_weights: "blk.{}.indexer.proj",
    };
}

/// The numbers of compressed keys and values.
pub(crate) struct LatentShape {
    rank: usize,
    pub(crate) nope: usize,
    pub(crate) rope: usize,
    value_dim: usize,
    /// Scores are multiplied by this besides.
    pub(crate) scale: f32,
    index: Option<IndexShape>,
}

/// The numbers of a choice of positions.
struct IndexShape {
    heads: usize,
    dim: usize,
    count: usize,
    /// For each layer, whether it chooses or does as the one before.
    own: Vec<bool>,
}

impl LatentShape {
    pub(crate) fn read(keys: &Keys<'_>, family: &LatentFamily, layers: usize) -> Result<Self, Error> {
        let first = |new: &Key, old: &Key| match keys.count_or(new, None)? {
            Some(n) => Ok(n),
            None => keys.count(old),
        };
        let rope = keys.count(&ROPE)?;
        let nope = match keys.is_gguf() {
            false => keys.count(&NOPE)?,
            true => first(&KEY, &KEY_OLD)?.saturating_sub(rope),
        };
        if nope == 0 || !rope.is_multiple_of(2) {
            return Err(
                keys.config(format!("{rope} rotated elements of a head and {nope} others make no sense"))
            );
        }
        Ok(Self {
            rank: keys.count(&KV_RANK)?,
            nope,
            rope,
            value_dim: if keys.is_gguf() { first(&VALUE, &VALUE_OLD)? } else { keys.count(&VALUE)? },
            scale: magnitude(keys)?.powi(2) as f32,
            index: match family.indexer {
                Some(_) => Some(IndexShape::read(keys, rope, layers)?),
                None => None,
            },
        })
    }
}

impl IndexShape {
    fn read(keys: &Keys<'_>, rope: usize, layers: usize) -> Result<Self, Error> {
        let (heads, dim) = (keys.count(&INDEX_HEADS)?, keys.count(&INDEX_DIM)?);
        if dim < rope {
            return Err(keys.config(format!("an index of {dim} elements cannot have {rope} rotated ones")));
        }
        let own = own_index(keys, layers)?;
        if own.first() == Some(&false) {
            return Err(keys.config("the first layer has no positions of one before to attend to"));
        }
        Ok(Self { heads, dim, count: keys.count(&INDEX_COUNT)?, own })
    }
}

/// Which layers choose positions: as `indexer_types` lists, or as `index_topk_pattern` spells, or every `index_topk_freq`-th.
fn own_index(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let own = |kind: &str| match kind {
        "full" | "F" => Some(true),
        "shared" | "S" => Some(false),
        _ => None,
    };
    let list: Option<Vec<Option<bool>>> = match (keys.json("indexer_types"), keys.json("index_topk_pattern"))
    {
        (Some(Value::Array(types)), _) | (None, Some(Value::Array(types))) => {
            Some(types.iter().map(|kind| own(kind.as_str()?)).collect())
        }
        (None, Some(Value::String(pattern))) => {
            Some(pattern.char_indices().map(|(i, c)| own(&pattern[i..i + c.len_utf8()])).collect())
        }
        (None, None) => None,
        _ => return Err(keys.config("`indexer_types` must list the layers")),
    };
    let Some(list) = list else {
        let number = |key: &str, default: u64| keys.json(key).and_then(Value::as_u64).unwrap_or(default);
        let (every, offset) = (number("index_topk_freq", 1).max(1), number("index_skip_topk_offset", 2));
        return Ok((1..=layers as u64).map(|i| i.saturating_sub(offset).is_multiple_of(every)).collect());
    };
    let list: Option<Vec<bool>> = list.into_iter().collect();
    list.filter(|list| list.len() == layers)
        .ok_or_else(|| keys.config(format!("`indexer_types` must say `full` or `shared` of {layers} layers")))
}

/// By how much YaRN lengthens keys and queries: more than cosines and sines say.
fn magnitude(keys: &Keys<'_>) -> Result<f64, Error> {
    let (factor, scale) = match keys.is_gguf() {
        true => {
            let yarn = keys.gguf_text("rope.scaling.type") == Some("yarn");
            let scale = keys.gguf_number("rope.scaling.yarn_log_multiplier").filter(|_| yarn);
            (keys.gguf_number("rope.scaling.factor"), scale.unwrap_or(0.0))
        }
        false => {
            let dict = keys.json("rope_scaling").or(keys.json("rope_parameters"));
            let kind = dict.and_then(|d| d.get("rope_type").or(d.get("type"))).and_then(Value::as_str);
            let dict = dict.filter(|_| kind.is_some_and(|kind| kind != "default"));
            let number = |key: &str| dict.and_then(|d| d.get(key)).and_then(Value::as_f64);
            (number("factor"), 0.1 * number("mscale_all_dim").unwrap_or(0.0))
        }
    };
    match factor {
        Some(factor) if factor > 1.0 => Ok(scale * factor.ln() + 1.0),
        _ => Ok(1.0),
    }
}

/// In GGUF, what lengthens keys and queries is in the scale of scores alone.
pub(crate) fn ropes(keys: &Keys<'_>, mut ropes: Vec<RopeConfig>) -> Vec<RopeConfig> {
    for rope in ropes.iter_mut().filter(|_| keys.is_gguf()) {
        if let Scaling::Yarn { attention_factor, .. } = &mut rope.scaling {
            *attention_factor = 1.0;
        }
    }
    ropes
}

impl Tensors<'_> {
    /// Queries, keys and values of a layer, and how they are compressed.
    pub(crate) fn latent(
        &self,
        shape: &LatentShape,
        layer: usize,
        name: &dyn Fn(&str) -> String,
    ) -> Result<([Linear; 3], Option<Latent>), Error> {
        let Some(family) = &self.family.latent else { return Err(self.keys.unsupported("no names")) };
        let n = if self.keys.is_gguf() { &family.gguf_names } else { &family.names };
        let (hidden, bias) = (self.shape.hidden, self.family.qkv_bias);
        let q_rows = self.shape.heads * (shape.nope + shape.rope);
        let linear = |pattern: &str, bias: Bias, rows: usize, cols: usize| {
            self.linear(&name(pattern), bias, Part::all(rows), cols)
        };
        let (q, q_down) = match self.outputs(&name(n.q_down), hidden) {
            None => (linear(self.names.q, Bias::Never, q_rows, hidden)?, None),
            Some(rank) => {
                let down = linear(n.q_down, bias, rank, hidden)?;
                let norm = self.latent_norm(&name(n.q_norm), rank)?;
                (linear(n.q, Bias::Never, q_rows, rank)?, Some((down, norm)))
            }
        };
        let (k, v, k_by_rows) = self.up(shape, n, name)?;
        let latent = Latent {
            kv_down: linear(n.kv_down, bias, shape.rank + shape.rope, hidden)?,
            kv_norm: self.latent_norm(&name(n.kv_norm), shape.rank)?,
            rank: shape.rank,
            nope: shape.nope,
            rope: shape.rope,
            value_dim: shape.value_dim,
            k_by_rows,
            selection: match (&shape.index, family.indexer, &q_down) {
                (Some(index), Some(style), Some((down, _))) if index.own.get(layer) == Some(&true) => {
                    let indexer = self.indexer(index, style, n, name, down.weight.rows)?;
                    Selection::Own { count: index.count, indexer: Box::new(indexer) }
                }
                (Some(index), Some(_), Some(_)) => Selection::Previous { count: index.count },
                (Some(_), ..) => {
                    return Err(self
                        .keys
                        .unsupported("an index without compressed queries is not supported"));
                }
                _ => Selection::All,
            },
            q_down,
        };
        Ok(([q, k, v], Some(latent)))
    }

    /// What takes queries into the compressed space and values out of it, head by head, and whether the first has a row for
    /// each element of a query.
    fn up(
        &self,
        shape: &LatentShape,
        n: &LatentNames,
        name: &dyn Fn(&str) -> String,
    ) -> Result<(Linear, Linear, bool), Error> {
        let (heads, rank) = (self.shape.heads, shape.rank);
        let plain = |weight| Linear { weight, bias: None };
        if !n.k.is_empty() && self.has(&name(n.k)) {
            let stacked = |pattern: &str, rows: usize, cols: usize| {
                let tensor = self.expect(&format!("{}.weight", name(pattern)), &[heads, rows, cols])?;
                let runs = Some(Runs { rows, stride: rows }).filter(|_| heads > 1);
                self.matrix_of(tensor, Part { runs, ..Part::all(heads * rows) }, cols).map(plain)
            };
            return Ok((stacked(n.k, rank, shape.nope)?, stacked(n.v, shape.value_dim, rank)?, false));
        }
        let stride = shape.nope + shape.value_dim;
        let part = |first: usize, rows: usize| {
            let part =
                Part { first, rows: heads * rows, total: heads * stride, runs: Some(Runs { rows, stride }) };
            self.linear(&name(n.kv), Bias::Never, part, rank)
        };
        Ok((part(0, shape.nope)?, part(shape.nope, shape.value_dim)?, true))
    }

    fn indexer(
        &self,
        shape: &IndexShape,
        style: RopeStyle,
        n: &LatentNames,
        name: &dyn Fn(&str) -> String,
        q_rank: usize,
    ) -> Result<Indexer, Error> {
        let linear = |pattern: &str, rows: usize, cols: usize| {
            self.linear(&name(pattern), Bias::Never, Part::all(rows), cols)
        };
        let (IndexShape { heads, dim, .. }, hidden) = (shape, self.shape.hidden);
        let norm = name(n.index_norm);
        let vector = |suffix: &str| self.vector(&format!("{norm}.{suffix}"), &[*dim], 0.0).map(Some);
        Ok(Indexer {
            q: linear(n.index_q, heads * dim, q_rank)?,
            k: linear(n.index_k, *dim, hidden)?,
            k_norm: Norm {
                kind: NormKind::Layer,
                size: *dim,
                weight: vector("weight")?,
                further: Vec::new(),
                bias: vector("bias")?,
                eps: EPS,
            },
            weights: linear(n.index_weights, *heads, hidden)?,
            heads: *heads,
            dim: *dim,
            style,
        })
    }

    fn latent_norm(&self, name: &str, size: usize) -> Result<Norm, Error> {
        Ok(Norm { eps: EPS, ..self.norm(name, size)? })
    }
}
