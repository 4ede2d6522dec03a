//! The numbers of compressed keys and values.

use serde_json::Value;

use super::keys::Keys;
use super::rope::RopeConfig;
use crate::error::Error;
use crate::family::{Key, LatentFamily};
use crate::spec::{RopeStyle, Scaling};

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

/// The numbers of compressed keys and values.
pub(crate) struct LatentShape {
    pub(crate) rank: usize,
    pub(crate) nope: usize,
    pub(crate) rope: usize,
    pub(crate) value_dim: usize,
    /// Scores are multiplied by this besides.
    pub(crate) scale: f32,
    pub(crate) index: Option<IndexShape>,
}

/// The numbers of a choice of positions.
pub(crate) struct IndexShape {
    /// How queries and keys are rotated.
    pub(crate) style: RopeStyle,
    pub(crate) heads: usize,
    pub(crate) dim: usize,
    pub(crate) count: usize,
    /// For each layer, whether it chooses or does as the one before.
    pub(super) own: Vec<bool>,
}

impl LatentShape {
    /// `even`: elements of a head, if the stream is cut into heads.
    pub(crate) fn read(
        keys: &Keys<'_>,
        family: &LatentFamily,
        layers: usize,
        even: usize,
    ) -> Result<Self, Error> {
        let first = |new: &Key, old: &Key| match keys.count_if_given(new)? {
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
            value_dim: match keys.is_gguf() {
                true => first(&VALUE, &VALUE_OLD)?,
                false if family.even_values => keys.count_or(&VALUE, even)?,
                false => keys.count(&VALUE)?,
            },
            scale: magnitude(keys)?.powi(2) as f32,
            index: match family.indexer {
                Some(style) => Some(IndexShape::read(keys, style, rope, layers)?),
                None => None,
            },
        })
    }
}

impl IndexShape {
    fn read(keys: &Keys<'_>, style: RopeStyle, rope: usize, layers: usize) -> Result<Self, Error> {
        let (heads, dim) = (keys.count(&INDEX_HEADS)?, keys.count(&INDEX_DIM)?);
        if dim < rope {
            return Err(keys.config(format!("an index of {dim} elements cannot have {rope} rotated ones")));
        }
        let own = own_index(keys, layers)?;
        if own.first() == Some(&false) {
            return Err(keys.config("the first layer has no positions of one before to attend to"));
        }
        Ok(Self { style, heads, dim, count: keys.count(&INDEX_COUNT)?, own })
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
        let number = |key: &str, default: u64| Ok::<_, Error>(keys.json_whole(key)?.unwrap_or(default));
        let (every, offset) = (number("index_topk_freq", 1)?.max(1), number("index_skip_topk_offset", 2)?);
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
