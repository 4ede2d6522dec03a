//! What differs from layer to layer: windows, and which rotation.

use serde_json::Value;

use super::keys::Keys;
use super::rope::{self, Layers, RopeConfig};
use crate::error::Error;
use crate::family::{Family, Key, Rotated, Windows, keys};

/// The layers that are rotated, of which `bases` and `listed` say what windows do not.
pub(super) fn rotated(
    keys: &Keys<'_>,
    family: &Family,
    windows: &[Option<usize>],
    bases: &[f64],
    listed: Vec<bool>,
) -> Result<Vec<bool>, Error> {
    let by_windows = match family.rotated {
        Rotated::Windows => true,
        Rotated::WindowsIfGiven => keys.number(&keys::WINDOW)?.is_some(),
        _ => false,
    };
    if family.rotated == Rotated::IfNamed {
        const FINETUNED: Key = Key { hugging_face: &["rope_finetuned"], gguf: "rope.scaling.finetuned" };
        let is_rotated = match keys.is_gguf() {
            true => keys.switch(&FINETUNED, false)?,
            false => keys.text("position_embedding_type")? == Some("rope"),
        };
        return Ok(vec![is_rotated; windows.len()]);
    }
    Ok(match by_windows {
        true => windows.iter().map(Option::is_some).collect(),
        false if !bases.is_empty() => bases.iter().map(|base| *base != 0.0).collect(),
        false => listed,
    })
}

/// The base of rotations where nothing names one.
const BASE: f64 = 10_000.0;

/// The rotations that layers choose from: one, or that of layers without and that of layers with a window.
pub(super) fn ropes(keys: &Keys<'_>, family: &Family) -> Result<Vec<RopeConfig>, Error> {
    let read = |layers, theta| rope::read(keys, layers, theta);
    Ok(match family.local_rope_theta {
        _ if family.rotated == Rotated::None => Vec::new(),
        None => vec![read(Layers::All, BASE)?],
        Some(local) => vec![read(Layers::Full, BASE)?, read(Layers::Sliding, local)?],
    })
}

/// The base of each layer's rotation (0: it is not rotated) where `layer_rope_theta` lists them, and those that differ.
pub(super) fn own_bases(keys: &Keys<'_>, layers: usize) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let Some(list) = keys.json_list("layer_rope_theta")? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let bases: Vec<f64> = list.iter().filter_map(Value::as_f64).collect();
    if bases.len() != layers {
        return Err(keys.config(format!("`layer_rope_theta` must list {layers} numbers")));
    }
    let mut distinct: Vec<f64> = bases.iter().copied().filter(|base| *base != 0.0).collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    Ok((bases, distinct))
}

/// One rotation of each base, else as the configuration says.
pub(super) fn with_bases(keys: &Keys<'_>, bases: &[f64]) -> Result<Vec<RopeConfig>, Error> {
    let one =
        |base: &f64| rope::read(keys, Layers::All, *base).map(|rope| RopeConfig { theta: *base, ..rope });
    bases.iter().map(one).collect()
}

/// Which layers are rotated, windows aside.
pub(super) fn listed_rotation(keys: &Keys<'_>, family: &Family, layers: usize) -> Result<Vec<bool>, Error> {
    let Rotated::AllButEvery(n) = family.rotated else {
        return Ok(vec![family.rotated != Rotated::None; layers]);
    };
    let given = |v: &&Value| v.as_array().is_none_or(|list| !list.is_empty());
    if let Some(list) = keys.json("no_rope_layers").filter(given) {
        let rotated = |v: &Value| v.as_u64().map(|n| n != 0);
        let list: Option<Vec<bool>> = list.as_array().and_then(|l| l.iter().map(rotated).collect());
        return list
            .filter(|l| l.len() >= layers)
            .map(|mut l| {
                l.truncate(layers);
                l
            })
            .ok_or_else(|| keys.config(format!("`no_rope_layers` must list {layers} numbers")));
    }
    let n = keys.count_or(&keys::NO_ROPE_INTERVAL, n)?;
    Ok((1..=layers).map(|i| !i.is_multiple_of(n)).collect())
}

/// Which layers are local, as `attention_layers` lists, or `attention_types` by repetition: `[[["global", "local"], 12]]`.
fn local_layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let is_local = |v: &Value| v.as_str() == Some("local");
    let kinds = |list: &Value| list.as_array().map(|l| l.iter().map(is_local).collect::<Vec<_>>());
    let local = match (keys.json("attention_layers"), keys.json("attention_types").and_then(Value::as_array))
    {
        (Some(list), _) => kinds(list).unwrap_or_default(),
        (None, Some(types)) => {
            let group = |group: &Value| {
                let times = group.get(1)?.as_u64().filter(|n| *n <= layers as u64)? as usize;
                Some(kinds(group.get(0)?)?.repeat(times))
            };
            types.iter().filter_map(group).flatten().collect()
        }
        (None, None) => (0..layers).map(|i| i % 2 == 1).collect(),
    };
    match local.len() == layers {
        true => Ok(local),
        false => Err(keys.config(format!("`attention_types` must be those of {layers} layers"))),
    }
}

/// Positions of a chunk where GGUF does not say it, as llama.cpp has it.
const CHUNK: usize = 8192;

/// The window of each layer; `rotated` says of each whether it is rotated.
pub(super) fn windows(
    keys: &Keys<'_>,
    family: &Family,
    rotated: &[bool],
) -> Result<Vec<Option<usize>>, Error> {
    let layers = rotated.len();
    let chunks = matches!(family.windows, Windows::ChunksOfRotated);
    let key = if chunks { &keys::CHUNK } else { &keys::WINDOW };
    let default = Some(CHUNK).filter(|_| chunks && keys.is_gguf());
    // GGUF files of Phi 4 say 0: none.
    let given = keys.number(key)? != Some(0.0);
    let window = if given { keys.positions_if_given(key)?.or(default) } else { None };
    let types = match keys.json("layer_types").filter(|_| {
        !matches!(family.windows, Windows::Never | Windows::All | Windows::AllIfUsed | Windows::Local)
    }) {
        None => None,
        Some(v) => {
            let types = v.as_array().filter(|t| t.len() == layers);
            Some(types.ok_or_else(|| keys.config(format!("`layer_types` must list {layers} layers")))?)
        }
    };
    let slides: Box<dyn Fn(usize) -> bool> = match family.windows {
        // A GGUF of this architecture may be another family's; the key is there only if the model slides.
        Windows::Never => Box::new(|_| keys.is_gguf()),
        Windows::All => Box::new(|_| true),
        Windows::AllIfUsed => {
            let used = keys.flag("use_sliding_window", false)?;
            Box::new(move |_| used)
        }
        Windows::FromLayer => {
            let enabled = keys.flag("use_sliding_window", false)?;
            let first = keys.json_whole("max_window_layers")?.unwrap_or(0);
            Box::new(move |i| enabled && i as u64 >= first)
        }
        Windows::Unrotated => match keys.flag("use_sliding_window", false)? {
            true => Box::new(|i| !rotated[i]),
            false => return Ok(vec![None; layers]),
        },
        Windows::ChunksOfRotated => Box::new(|i| rotated[i]),
        Windows::EveryOther => Box::new(|i| i % 2 == 0),
        Windows::AllButFirstOf(n) => {
            let n = keys.count_or(&keys::GLOBAL_PATTERN, n)?;
            Box::new(move |i| !i.is_multiple_of(n))
        }
        Windows::Local => {
            let local = local_layers(keys, layers)?;
            Box::new(move |i| local[i])
        }
        // Where the layers are listed, the pattern may be anything.
        Windows::AllButEvery(_) | Windows::AllButEveryAndLast(_) if types.is_some() => Box::new(|_| false),
        Windows::AllButEvery(n) | Windows::AllButEveryAndLast(n) => {
            let n = keys.count_or(&keys::WINDOW_PATTERN, n)?;
            Box::new(move |i| !(i + 1).is_multiple_of(n))
        }
    };
    let listed = keys.gguf_flags("attention.sliding_window_pattern").filter(|listed| listed.len() == layers);
    let layer = |i: usize| match types.map(|types| &types[i]) {
        _ if matches!(family.windows, Windows::AllButEveryAndLast(_)) && i + 1 == layers => Ok(None),
        None => Ok(window.filter(|_| listed.as_ref().map_or_else(|| slides(i), |listed| listed[i]))),
        Some(kind) => match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("chunked_attention") if chunks => Ok(window),
            Some("sliding_attention") => window
                .map(Some)
                .ok_or_else(|| keys.config(format!("layer {i} slides, but `sliding_window` is not given"))),
            _ => Err(keys.unsupported(format!("layer type {kind} of layer {i} is not supported"))),
        },
    };
    (0..layers).map(layer).collect()
}
