//! The numbers of gated delta nets, and which layers have one.

use serde_json::Value;

use super::keys::Keys;
use crate::error::Error;
use crate::family::{DeltaFamily, Key};
use crate::spec::DeltaShape;

const KEY_HEADS: Key = Key { hugging_face: &["linear_num_key_heads"], gguf: "ssm.group_count" };
const VALUE_HEADS: Key = Key { hugging_face: &["linear_num_value_heads"], gguf: "ssm.time_step_rank" };
const KEY_DIM: Key = Key { hugging_face: &["linear_key_head_dim"], gguf: "ssm.state_size" };
const VALUE_DIM: Key = Key { hugging_face: &["linear_value_head_dim"], gguf: "" };
const VALUE_WIDTH: Key = Key { hugging_face: &[], gguf: "ssm.inner_size" };
const KERNEL: Key = Key { hugging_face: &["linear_conv_kernel_dim"], gguf: "ssm.conv_kernel" };
const INTERVAL: Key = Key { hugging_face: &["full_attention_interval"], gguf: "" };

/// The delta nets of a configuration.
pub(crate) struct DeltaLayers {
    pub(crate) shape: DeltaShape,
    /// For each layer, whether it is one; in GGUF, where tensors decide, `None`.
    pub(super) layers: Vec<Option<bool>>,
}

impl DeltaLayers {
    pub(crate) fn read(keys: &Keys<'_>, family: &DeltaFamily, layers: usize) -> Result<Self, Error> {
        if family.each {
            return Self::of_kimi(keys, layers);
        }
        let count = |key: &Key, default: usize| match keys.is_gguf() {
            true => keys.count(key),
            false => keys.count_or(key, default),
        };
        let (key_heads, value_heads) = (count(&KEY_HEADS, 16)?, count(&VALUE_HEADS, 32)?);
        let value_dim = match keys.is_gguf() {
            true => keys.count(&VALUE_WIDTH)? / value_heads,
            false => count(&VALUE_DIM, 128)?,
        };
        let (key_dim, kernel) = (count(&KEY_DIM, 128)?, count(&KERNEL, 4)?);
        let sizes = [key_heads, value_heads, key_dim, value_dim];
        if !value_heads.is_multiple_of(key_heads) || value_dim == 0 || sizes.iter().any(|n| *n > 1 << 16) {
            let message = format!(
                "{value_heads} value heads of {value_dim} cannot share {key_heads} key heads of {key_dim}"
            );
            return Err(keys.config(message));
        }
        if !(2..=KERNEL_MAX).contains(&kernel) {
            return Err(keys.unsupported(format!("a convolution over {kernel} positions is not supported")));
        }
        let tiled = keys.is_gguf() && family.gguf_tiled;
        let shape = DeltaShape { key_heads, value_heads, key_dim, value_dim, kernel, tiled, each: false };
        Ok(Self { shape, layers: layer_types(keys, layers)? })
    }

    /// As Kimi Linear says them: as many heads of queries, keys and values, in an object of their own or beside all else.
    fn of_kimi(keys: &Keys<'_>, layers: usize) -> Result<Self, Error> {
        let number = |own: &str, key: &str, default: u64| {
            let own = keys.json_whole(&format!("{OWN}.{own}"))?;
            Ok::<_, Error>(own.or(keys.json_whole(key)?).unwrap_or(default))
        };
        let heads = number("num_heads", "linear_num_heads", 32)?;
        let dim = number("head_dim", "linear_head_dim", 128)?;
        let kernel = number("short_conv_kernel_size", "linear_conv_kernel_dim", 4)?;
        if [heads, dim].iter().any(|n| !(1..=1 << 16).contains(n)) {
            return Err(keys.config(format!("delta nets of {heads} heads of {dim} elements make no sense")));
        }
        if !(2..=KERNEL_MAX as u64).contains(&kernel) {
            return Err(keys.unsupported(format!("a convolution over {kernel} positions is not supported")));
        }
        let (heads, dim) = (heads as usize, dim as usize);
        let shape = DeltaShape {
            key_heads: heads,
            value_heads: heads,
            key_dim: dim,
            value_dim: dim,
            kernel: kernel as usize,
            tiled: false,
            each: true,
        };
        let own = |key: &str| keys.json_list(&format!("{OWN}.{key}"));
        let types = match (keys.json("layer_types"), own("full_attn_layers")?, own("kda_layers")?) {
            (Some(_), _, _) => layer_types(keys, layers)?,
            (None, Some(full), Some(_)) => {
                // They are counted from 1.
                let is_full = |i: usize| full.iter().any(|n| n.as_u64() == Some(i as u64));
                (1..=layers).map(|i| Some(!is_full(i))).collect()
            }
            _ => (0..layers).map(|i| Some(i == 0 || !i.is_multiple_of(4))).collect(),
        };
        Ok(Self { shape, layers: types })
    }
}

/// The object in which Kimi Linear says what its delta nets are.
const OWN: &str = "linear_attn_config";

/// Positions that a convolution can see.
pub(super) const KERNEL_MAX: usize = 8;

/// Which layers are delta nets: as `layer_types` lists, or all but every `full_attention_interval`-th.
fn layer_types(keys: &Keys<'_>, layers: usize) -> Result<Vec<Option<bool>>, Error> {
    if keys.is_gguf() {
        return Ok(vec![None; layers]);
    }
    let Some(types) = keys.json("layer_types") else {
        let interval = keys.count_or(&INTERVAL, 4)?;
        return Ok((1..=layers).map(|i| Some(!i.is_multiple_of(interval))).collect());
    };
    let types = types.as_array().filter(|types| types.len() == layers);
    let types = types.ok_or_else(|| keys.config(format!("`layer_types` must list {layers} layers")))?;
    let is_delta = |(i, kind): (usize, &Value)| match kind.as_str() {
        Some("linear_attention") => Ok(Some(true)),
        Some("full_attention") => Ok(Some(false)),
        _ => Err(keys.unsupported(format!("layer type {kind} of layer {i} is not supported"))),
    };
    types.iter().enumerate().map(is_delta).collect()
}
