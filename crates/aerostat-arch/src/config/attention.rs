//! The numbers of attention that all layers share.

use serde_json::Value;

use super::keys::Keys;
use super::rope;
use crate::error::Error;
use crate::family::{AlibiRule, Factor, Family, Mixers, Temperature, Windows, keys};
use crate::spec::{Alibi, Growth};

pub(super) fn alibi(keys: &Keys<'_>, family: &Family) -> Result<Option<Alibi>, Error> {
    let paper = Alibi { most: 8, rounded: false };
    Ok(match family.alibi {
        AlibiRule::Never => None,
        AlibiRule::Always => Some(paper),
        AlibiRule::RoundedIf(key) => keys.flag(key, false)?.then_some(Alibi { rounded: true, ..paper }),
        AlibiRule::UpTo => {
            let most = keys.json_number("attn_config.alibi_bias_max")?;
            let most = most.or(keys.gguf_number("attention.max_alibi_bias")).unwrap_or(8.0);
            if !(1.0..=100.0).contains(&most) || most.fract() != 0.0 {
                return Err(
                    keys.config(format!("`alibi_bias_max` is {most}; a whole number up to 100 is needed"))
                );
            }
            Some(Alibi { most: most as u32, ..paper })
        }
        AlibiRule::WithoutContext => keys.json("max_position_embeddings").is_none().then_some(paper),
    })
}

/// Whether rows also see what follows them: of encoders, and of causal models that say they were trained so.
pub(super) fn looks_ahead(keys: &Keys<'_>, family: &Family) -> Result<bool, Error> {
    let said = keys.json("use_bidirectional_attention") == Some(&Value::Bool(true));
    let free = !keys.flag("is_causal", true)?;
    let plain = family.latent.is_none()
        && family.delta.is_none()
        && matches!(family.mixers, Mixers::Attention)
        && family.alibi == AlibiRule::Never
        && !matches!(family.windows, Windows::ChunksOfRotated);
    if free && !plain {
        return Err(
            keys.unsupported(format!("models `{}` with `is_causal`: false are not supported", family.name))
        );
    }
    Ok(family.encoder.is_some() || free || family.ahead_if_said && said)
}

pub(super) fn kv_heads(keys: &Keys<'_>, family: &Family, heads: usize) -> Result<usize, Error> {
    if family.multi_query && !keys.is_gguf() && !keys.flag("new_decoder_architecture", false)? {
        return Ok(if keys.flag("multi_query", true)? { 1 } else { heads });
    }
    if let Some((sliding, _)) = kv_heads_listed(keys, family)? {
        return even(keys, heads, sliding);
    }
    // `null` means as many as query heads.
    even(keys, heads, keys.count_or(&keys::KV_HEADS, heads)?)
}

/// A number of key/value heads that query heads can share evenly.
fn even(keys: &Keys<'_>, heads: usize, kv_heads: usize) -> Result<usize, Error> {
    match heads.is_multiple_of(kv_heads) {
        true => Ok(kv_heads),
        false => {
            Err(keys.config(format!("{heads} query heads cannot share {kv_heads} key/value heads evenly")))
        }
    }
}

/// Key/value heads of layers with a window and of those without, where GGUF lists them.
fn kv_heads_listed(keys: &Keys<'_>, family: &Family) -> Result<Option<(usize, usize)>, Error> {
    if !family.wide_heads {
        return Ok(None);
    }
    let flags = keys.gguf_flags("attention.sliding_window_pattern");
    let Some((listed, slides)) = keys.counts_listed(&keys::KV_HEADS)?.zip(flags) else { return Ok(None) };
    let of = |kind: bool| listed.iter().zip(&slides).find(|(_, slides)| **slides == kind).map(|(n, _)| *n);
    Ok(of(true).zip(of(false)))
}

/// Size and number of key/value heads of layers without a window, and whether their values are their keys:
/// `per_layer_config` has what is special of a layer, older files have keys of their own.
pub(super) fn wide_heads(
    keys: &Keys<'_>,
    family: &Family,
    heads: usize,
    kv_heads: usize,
) -> Result<(usize, usize, bool), Error> {
    if keys.is_gguf() {
        // Whether values are keys the tensors say.
        let own = kv_heads_listed(keys, family)?.map_or(kv_heads, |(_, full)| full);
        return Ok((keys.count(&keys::HEAD_DIM)?, even(keys, heads, own)?, false));
    }
    let alike = keys.flag("attention_k_eq_v", false)?;
    let layers = keys.json("per_layer_config").and_then(Value::as_object);
    let special = layers.and_then(|layers| layers.values().next());
    let number = |nested: &str, flat: &str| {
        let given = if layers.is_some() { special.and_then(|s| s.get(nested)) } else { keys.json(flat) };
        given
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| (1..1 << 20).contains(n))
    };
    let dim = number("head_dim", "global_head_dim").unwrap_or(512);
    // The key that stands alone counts only where values are keys.
    let own = number("num_key_value_heads", "num_global_key_value_heads")
        .filter(|_| alike || layers.is_some())
        .unwrap_or(kv_heads);
    Ok((dim, even(keys, heads, own)?, alike))
}

/// The limit of queries, keys and values; some families nest it.
pub(super) fn clip(keys: &Keys<'_>) -> Result<Option<f32>, Error> {
    let nested = keys.json_number("attn_config.clip_qkv")?;
    Ok(keys.number(&keys::CLIP)?.or(nested).map(|n| n as f32))
}

/// The factor on attention scores.
pub(super) fn score_scale(
    keys: &Keys<'_>,
    family: &Family,
    layers: usize,
    even: usize,
    head_dim: usize,
) -> Result<f32, Error> {
    if let Some(scale) = keys.gguf_number("attention.scale").filter(|s| *s != 0.0) {
        return Ok(scale as f32);
    }
    match family.score_scale {
        Factor::Fixed(scale) => return Ok(scale as f32),
        Factor::Key(key, default) if !keys.is_gguf() => {
            // 0: the root of the head size.
            let scale = keys.number(key)?.unwrap_or(default);
            if scale != 0.0 {
                return Ok(scale as f32);
            }
        }
        _ => {}
    }
    if let Some(scale) = keys.json_number("attn_config.softmax_scale")? {
        return Ok(scale as f32);
    }
    if family.score_switches && !keys.flag("scale_attn_weights", true)? {
        return Ok(1.0);
    }
    let width = match family.query_scalar {
        None => head_dim as f64,
        Some(large) if keys.is_gguf() => (if layers == large { even } else { head_dim }) as f64,
        Some(_) => match keys.json("query_pre_attn_scalar") {
            None => 256.0,
            Some(v) => v.as_f64().filter(|n| *n > 0.0).ok_or_else(|| {
                keys.config(format!("`query_pre_attn_scalar` is {v}; a number above 0 is needed"))
            })?,
        },
    };
    Ok(width.powf(-0.5) as f32)
}

/// How queries grow, on the layers where they do.
pub(super) fn growth(keys: &Keys<'_>, family: &Family) -> Result<Option<Growth>, Error> {
    let own = |key: &str| keys.json_number(key);
    let growth = match family.temperature {
        Temperature::Never => return Ok(None),
        Temperature::AllLayers => {
            let Some(beta) = rope::parameter(keys, "llama_4_scaling_beta")? else { return Ok(None) };
            Growth::Steps { beta, floor: rope::trained_length(keys)?.unwrap_or(0.0), offset: 0 }
        }
        Temperature::Logarithm if !keys.flag("use_logn_attn", false)? => return Ok(None),
        Temperature::Logarithm => Growth::Log { original: rope::trained(keys)? },
        Temperature::Unrotated => {
            if !keys.flag("attn_temperature_tuning", true)? {
                return Ok(None);
            }
            let (beta, floor) = (own("attn_scale")?.unwrap_or(0.1), own("floor_scale")?.unwrap_or(8192.0));
            Growth::Steps { beta, floor, offset: 1 }
        }
    };
    match growth {
        Growth::Steps { beta, floor, .. } if floor >= 1.0 && beta.is_finite() => Ok(Some(growth)),
        Growth::Log { original } if original > 1.0 => Ok(Some(growth)),
        _ => Err(keys.config(format!("queries cannot grow by {growth:?}"))),
    }
}
