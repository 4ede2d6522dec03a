//! Which token mixers layers have.

use aerostat_checkpoint::name_shown;
use serde_json::Value;

use super::delta::DeltaLayers;
use super::keys::Keys;
use crate::error::Error;
use crate::family::{Family, MixerKind, Mixers};

/// The mixers of all layers.
pub(super) fn mixers(
    keys: &Keys<'_>,
    family: &Family,
    delta: Option<&DeltaLayers>,
    count: usize,
) -> Result<Vec<MixerKind>, Error> {
    if let Some(delta) = delta {
        let kind = |is_delta: &Option<bool>| match is_delta {
            None => MixerKind::Stored,
            Some(true) => MixerKind::Delta,
            Some(false) => MixerKind::Attention,
        };
        return Ok(delta.layers.iter().map(kind).collect());
    }
    let alike = match family.mixers {
        Mixers::Attention => MixerKind::Attention,
        Mixers::Spaces => MixerKind::Space,
        Mixers::Beside => MixerKind::Beside,
        Mixers::Listed(_) | Mixers::Turns(_) if keys.is_gguf() => MixerKind::Stored,
        Mixers::Listed(usual) => return listed(keys, usual, count),
        Mixers::Turns(turns) => {
            let usual: Vec<MixerKind> = turns.iter().copied().cycle().take(count).collect();
            let space = |kind: MixerKind| match kind {
                MixerKind::Space if family.lightning.is_some() => MixerKind::Lightning,
                other => other,
            };
            return Ok(listed(keys, &usual, count)?.into_iter().map(space).collect());
        }
    };
    Ok(vec![alike; count])
}

/// How many layers a list of mixers, or its default, has.
pub(super) fn listed_count(keys: &Keys<'_>, family: &Family) -> Result<Option<usize>, Error> {
    let Mixers::Listed(usual) = family.mixers else { return Ok(None) };
    Ok(match (keys.json_list(LIST)?, keys.text(PATTERN)?) {
        (Some(list), _) => Some(list.len()),
        (None, Some(pattern)) => Some(pattern.chars().count()),
        (None, None) => Some(usual.len()),
    })
}

const LIST: &str = "layers_block_type";
const PATTERN: &str = "hybrid_override_pattern";

fn listed(keys: &Keys<'_>, usual: &[MixerKind], count: usize) -> Result<Vec<MixerKind>, Error> {
    let others = |attention: &[Value], other: MixerKind| -> Vec<MixerKind> {
        let is_attention = |i: usize| attention.iter().any(|n| n.as_u64() == Some(i as u64));
        (0..count).map(|i| if is_attention(i) { MixerKind::Attention } else { other }).collect()
    };
    let list = match keys.json_list(LIST)? {
        Some(list) => Some((LIST, list)),
        None => keys.json_list("layer_types")?.map(|list| ("layer_types", list)),
    };
    let kinds = if let Some((key, list)) = list {
        let kinds = list.iter().enumerate().map(|(i, kind)| {
            kind.as_str().and_then(named).ok_or_else(|| {
                let kind = kind.to_string();
                let kind = name_shown(&kind);
                keys.unsupported(format!("`{kind}` in `{key}`, which layer {i} is, is not supported"))
            })
        });
        kinds.collect::<Result<Vec<_>, _>>()?
    } else if let Some(pattern) = keys.text(PATTERN)? {
        let kinds = pattern.chars().map(|c| {
            let name = match c {
                'M' => "mamba",
                '*' => "attention",
                'E' => "moe",
                '-' => "mlp",
                _ => "",
            };
            named(name).ok_or_else(|| keys.unsupported(format!("`{c}` in `{PATTERN}` is not supported")))
        });
        kinds.collect::<Result<Vec<_>, _>>()?
    } else if keys.reads("attn_layer_indices") {
        others(keys.json_list("attn_layer_indices")?.unwrap_or(&[]), MixerKind::Space)
    } else if keys.reads("attn_layer_period") {
        let number = |key: &str, usual: u64| Ok::<_, Error>(keys.json_whole(key)?.unwrap_or(usual));
        let (period, offset) = (number("attn_layer_period", 8)?, number("attn_layer_offset", 4)?);
        if offset >= period {
            return Err(keys.config(format!("no layer is the {offset}th of {period}, which would attend")));
        }
        let kind = |i: u64| if i % period == offset { MixerKind::Attention } else { MixerKind::Space };
        (0..count as u64).map(kind).collect()
    } else if keys.reads("full_attn_idxs") {
        let attention = keys.json_list("full_attn_idxs")?;
        attention
            .map_or_else(|| vec![MixerKind::Attention; count], |list| others(list, MixerKind::Convolution))
    } else {
        match usual {
            [] => return Err(keys.config("`layer_types` is missing")),
            [one] => vec![*one; count],
            all => all.to_vec(),
        }
    };
    match kinds.len() == count {
        true => Ok(kinds),
        false => Err(keys.config(format!("{} token mixers are listed for {count} layers", kinds.len()))),
    }
}

fn named(name: &str) -> Option<MixerKind> {
    Some(match name {
        "full_attention" | "attention" => MixerKind::Attention,
        "linear_attention" | "mamba" => MixerKind::Space,
        "conv" => MixerKind::Convolution,
        "moe" | "mlp" => MixerKind::Nothing,
        _ => return None,
    })
}
