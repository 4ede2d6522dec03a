//! The numbers of a configuration.

use serde_json::Value;

use crate::attention::{Alibi, Growth};
use crate::delta::DeltaLayers;
use crate::error::Error;
use crate::family::{
    AlibiRule, Factor, Family, HeadNorms, PostNorms, Rotated, Softcap, StreamNorms, Switch, Temperature,
    Windows,
};
use crate::keys::{self, Keys};
use crate::latent::{self, LatentShape};
use crate::mixture::MixtureShape;
use crate::rope::{self, Layers, RopeConfig};
use crate::spec::Activation;

/// The numbers of a configuration.
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    /// The width of embeddings.
    pub(crate) embedding: usize,
    pub(crate) intermediate: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) context: usize,
    pub(crate) eps: f32,
    pub(crate) scale: f32,
    /// It is divided by the layer's number, from 1.
    pub(crate) scale_by_layer: bool,
    pub(crate) embedding_scale: Option<f32>,
    pub(crate) residual_scale: Option<f32>,
    pub(crate) logit_scale: Option<f32>,
    pub(crate) attention_softcap: Option<f32>,
    pub(crate) final_softcap: Option<f32>,
    pub(crate) activation: Activation,
    pub(crate) parallel: bool,
    pub(crate) stream_norms: Norms,
    pub(crate) final_norm: bool,
    pub(crate) post_norms: bool,
    pub(crate) alibi: Option<Alibi>,
    /// Queries and keys are normalised; in GGUF, tensors decide where the family leaves it open.
    pub(crate) head_norms: bool,
    pub(crate) clip: Option<f32>,
    pub(crate) growth: Option<Growth>,
    /// Size and number of key/value heads of layers without a window, and whether their values are their keys, where
    /// they differ from others.
    pub(crate) wide: Option<(usize, usize, bool)>,
    pub(crate) windows: Vec<Option<usize>>,
    pub(crate) rotated: Vec<bool>,
    pub(crate) ropes: Vec<RopeConfig>,
    /// The rotation of each layer, where layers have their own.
    pub(crate) rope_of: Vec<usize>,
    pub(crate) latent: Option<LatentShape>,
    pub(crate) delta: Option<DeltaLayers>,
    pub(crate) mixture: Option<MixtureShape>,
}

/// What norms before attention and MLP do to the stream.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Norms {
    Kept,
    Replaced,
    Sums,
}

impl Shape {
    pub(crate) fn read(keys: &Keys<'_>, family: &Family) -> Result<Self, Error> {
        const LAYERS_MAX: usize = 10_000;
        // GGUF counts the layers that predict further tokens, which come last and are not used.
        let further = keys.gguf_number("nextn_predict_layers").unwrap_or(0.0) as usize;
        let layers = keys.count(&keys::LAYERS)?.saturating_sub(further);
        if layers > LAYERS_MAX {
            return Err(keys.config(format!("{layers} layers are more than any model has")));
        }
        let hidden = keys.count(&keys::HIDDEN)?;
        let heads = heads(keys, family)?;
        let kv_heads = kv_heads(keys, family, heads)?;
        let head_dim_default = family.defaults.head_dim.filter(|_| !keys.is_gguf()).unwrap_or(hidden / heads);
        let latent =
            family.latent.as_ref().map(|family| LatentShape::read(keys, family, layers)).transpose()?;
        let head_dim = match &latent {
            Some(latent) => latent.nope + latent.rope,
            None => keys.count_or(&keys::HEAD_DIM, None)?.unwrap_or(head_dim_default),
        };
        let intermediate = intermediate(keys, family, hidden)?;
        let listed = listed_rotation(keys, family, layers)?;
        let windows = windows(keys, family, &listed)?;
        let wide = if family.wide_heads { Some(wide_heads(keys, heads, kv_heads)?) } else { None };
        let (bases, distinct) = own_bases(keys, layers)?;
        let rotated = rotated(keys, family, &windows, &bases, listed)?;
        let alibi = alibi(keys, family)?;
        let stream_norms = stream_norms(keys, family)?;
        Ok(Self {
            layers,
            hidden,
            embedding: embedding_width(keys, family, hidden)?,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            context: keys.count_or(&keys::CONTEXT, None)?.unwrap_or(family.defaults.context),
            eps: keys.number(family.eps_key())?.unwrap_or(family.defaults.eps) as f32,
            scale: score_scale(keys, family, layers, hidden / heads, head_dim)?
                * latent.as_ref().map_or(1.0, |latent| latent.scale),
            scale_by_layer: family.score_switches && keys.flag("scale_attn_by_inverse_layer_idx", false)?,
            embedding_scale: factor(keys, family.embedding_scale, hidden, layers)?,
            residual_scale: factor(keys, family.residual_scale, hidden, layers)?,
            logit_scale: factor(keys, family.logit_scale, hidden, layers)?,
            attention_softcap: softcap(keys, &keys::ATTENTION_SOFTCAP, family.softcaps.0)?,
            final_softcap: softcap(keys, &keys::FINAL_SOFTCAP, family.softcaps.1)?,
            activation: activation(keys, family)?,
            parallel: switch(keys, family.parallel)?,
            stream_norms,
            final_norm: stream_norms != Norms::Sums && !keys.flag(family.no_final_norm, false)?,
            post_norms: post_norms(keys, family)?,
            alibi,
            head_norms: head_norms(keys, family)?,
            growth: growth(keys, family)?,
            clip: if family.clip_qkv { clip(keys)? } else { None },
            rotated: if alibi.is_some() { vec![false; layers] } else { rotated },
            wide,
            windows,
            rope_of: bases.iter().map(|base| distinct.iter().position(|b| b == base).unwrap_or(0)).collect(),
            ropes: match &latent {
                None if !distinct.is_empty() => with_bases(keys, family, &distinct)?,
                None => ropes(keys, family)?,
                Some(_) => latent::ropes(keys, ropes(keys, family)?),
            },
            latent,
            delta: family.delta.as_ref().map(|delta| DeltaLayers::read(keys, delta, layers)).transpose()?,
            mixture: match &family.mixture {
                Some(mixture) => MixtureShape::read(keys, mixture, intermediate)?,
                None => None,
            },
        })
    }
}

fn embedding_width(keys: &Keys<'_>, family: &Family, hidden: usize) -> Result<usize, Error> {
    match family.projections {
        Some(_) if !keys.is_gguf() => Ok(keys.count_or(&keys::EMBEDDING_WIDTH, None)?.unwrap_or(hidden)),
        _ => Ok(hidden),
    }
}

fn stream_norms(keys: &Keys<'_>, family: &Family) -> Result<Norms, Error> {
    Ok(match family.stream_norms {
        StreamNorms::ReplacedIf(key) if keys.flag(key, false)? => Norms::Replaced,
        StreamNorms::Kept | StreamNorms::ReplacedIf(_) => Norms::Kept,
        StreamNorms::SumsUnless(key) if keys.flag(key, true)? => Norms::Kept,
        StreamNorms::Sums | StreamNorms::SumsUnless(_) => Norms::Sums,
    })
}

/// Whether outputs of attention and MLP are normalised.
fn post_norms(keys: &Keys<'_>, family: &Family) -> Result<bool, Error> {
    match family.post_norms {
        PostNorms::Never | PostNorms::StoredMlp => Ok(false),
        PostNorms::Always => Ok(true),
        PostNorms::Key(key, default) => keys.flag(key, default),
    }
}

/// Whether queries and keys are.
fn head_norms(keys: &Keys<'_>, family: &Family) -> Result<bool, Error> {
    match family.head_norms {
        HeadNorms::Never => Ok(false),
        HeadNorms::Shared | HeadNorms::Row => Ok(true),
        HeadNorms::Bare(_) if keys.is_gguf() => Ok(keys.number(&keys::EXPERTS)? != Some(128.0)),
        HeadNorms::Bare(key) => keys.flag(key, true),
        HeadNorms::Own(key) | HeadNorms::SharedIf(key) => Ok(keys.is_gguf() || keys.flag(key, false)?),
    }
}

/// The layers that are rotated, of which `bases` and `listed` say what windows do not.
fn rotated(
    keys: &Keys<'_>,
    family: &Family,
    windows: &[Option<usize>],
    bases: &[f64],
    listed: Vec<bool>,
) -> Result<Vec<bool>, Error> {
    let by_windows = match family.rotated {
        Rotated::Windows => true,
        // A missing key means the family's window, `null` none.
        Rotated::WindowsIfGiven => {
            let usual = family.defaults.window.filter(|_| !keys.is_gguf() && !keys.is_null(&keys::WINDOW));
            keys.number(&keys::WINDOW)?.is_some() || usual.is_some()
        }
        _ => false,
    };
    Ok(match by_windows {
        true => windows.iter().map(Option::is_some).collect(),
        false if !bases.is_empty() => bases.iter().map(|base| *base != 0.0).collect(),
        false => listed,
    })
}

/// The width of an MLP that is not an expert.
fn intermediate(keys: &Keys<'_>, family: &Family, hidden: usize) -> Result<usize, Error> {
    let given = match keys.count_or(&keys::DENSE_INTERMEDIATE, None)? {
        Some(dense) => Some(dense),
        None => keys.count_or(&keys::INTERMEDIATE, None)?,
    };
    let whole = match given {
        None if !family.gated => 4 * hidden,
        None => keys.count(&keys::INTERMEDIATE)?,
        Some(n) => n,
    };
    Ok(if family.halved_width { whole / 2 } else { whole })
}

fn heads(keys: &Keys<'_>, family: &Family) -> Result<usize, Error> {
    let usual = keys.count_or(&keys::HEADS, family.defaults.heads)?;
    usual.map_or_else(|| keys.count(&keys::HEADS), Ok)
}

fn alibi(keys: &Keys<'_>, family: &Family) -> Result<Option<Alibi>, Error> {
    let paper = Alibi { most: 8, rounded: false };
    Ok(match family.alibi {
        AlibiRule::Never => None,
        AlibiRule::Always => Some(paper),
        AlibiRule::RoundedIf(key) => keys.flag(key, false)?.then_some(Alibi { rounded: true, ..paper }),
        AlibiRule::UpTo => {
            let most = keys.json("attn_config.alibi_bias_max").and_then(Value::as_f64);
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

fn kv_heads(keys: &Keys<'_>, family: &Family, heads: usize) -> Result<usize, Error> {
    if family.multi_query && !keys.is_gguf() && !keys.flag("new_decoder_architecture", false)? {
        return Ok(if keys.flag("multi_query", true)? { 1 } else { heads });
    }
    // `null` means as many as query heads; a missing key, the family's number.
    let missing = !keys.is_gguf() && !keys.is_null(&keys::KV_HEADS);
    let kv_heads = keys.count_or(&keys::KV_HEADS, family.defaults.kv_heads.filter(|_| missing))?;
    let kv_heads = kv_heads.unwrap_or(heads);
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    Err(keys.config(format!("{heads} query heads cannot share {kv_heads} key/value heads evenly")))
}

/// The rotations that layers choose from: one, or that of layers without and that of layers with a window.
pub(crate) fn ropes(keys: &Keys<'_>, family: &Family) -> Result<Vec<RopeConfig>, Error> {
    let theta = family.defaults.rope_theta;
    let read = |layers, theta| rope::read(keys, layers, theta, family.defaults.rotary);
    Ok(match family.local_rope_theta {
        _ if family.rotated == Rotated::None => Vec::new(),
        None => vec![read(Layers::All, theta)?],
        Some(local) => vec![read(Layers::Full, theta)?, read(Layers::Sliding, local)?],
    })
}

/// The base of each layer's rotation (0: it is not rotated) where `layer_rope_theta` lists them, and those that differ.
fn own_bases(keys: &Keys<'_>, layers: usize) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let Some(list) = keys.json("layer_rope_theta").and_then(Value::as_array) else {
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
fn with_bases(keys: &Keys<'_>, family: &Family, bases: &[f64]) -> Result<Vec<RopeConfig>, Error> {
    let defaults = &family.defaults;
    let one = |base: &f64| {
        rope::read(keys, Layers::All, *base, defaults.rotary).map(|rope| RopeConfig { theta: *base, ..rope })
    };
    bases.iter().map(one).collect()
}

/// Size and number of key/value heads of layers without a window, and whether their values are their keys:
/// `per_layer_config` has what is special of a layer, older files have keys of their own.
fn wide_heads(keys: &Keys<'_>, heads: usize, kv_heads: usize) -> Result<(usize, usize, bool), Error> {
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
    let own =
        number("num_key_value_heads", "num_global_key_value_heads").filter(|_| alike).unwrap_or(kv_heads);
    match heads.is_multiple_of(own) {
        true => Ok((dim, own, alike)),
        false => Err(keys.config(format!("{heads} query heads cannot share {own} key/value heads evenly"))),
    }
}

impl Shape {
    /// Size and number of key/value heads of a layer, and whether its values are its keys.
    pub(crate) fn heads_of(&self, layer: usize) -> (usize, usize, bool) {
        let windowed = self.windows.get(layer).is_some_and(Option::is_some);
        self.wide.filter(|_| !windowed).unwrap_or((self.head_dim, self.kv_heads, false))
    }
}

/// The limit of queries, keys and values; some families nest it.
fn clip(keys: &Keys<'_>) -> Result<Option<f32>, Error> {
    let nested = keys.json("attn_config.clip_qkv").and_then(Value::as_f64);
    Ok(keys.number(&keys::CLIP)?.or(nested).map(|n| n as f32))
}

/// Which layers are rotated, windows aside.
fn listed_rotation(keys: &Keys<'_>, family: &Family, layers: usize) -> Result<Vec<bool>, Error> {
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
    let n = keys.count_or(&keys::NO_ROPE_INTERVAL, Some(n))?.unwrap_or(n);
    Ok((1..=layers).map(|i| !i.is_multiple_of(n)).collect())
}

pub(crate) fn switch(keys: &Keys<'_>, switch: Switch) -> Result<bool, Error> {
    match switch {
        Switch::Never => Ok(false),
        Switch::Always => Ok(true),
        Switch::Flag(key, default) => keys.switch(key, default),
    }
}

/// A factor, if it is not 1.
pub(crate) fn factor(
    keys: &Keys<'_>,
    factor: Factor,
    hidden: usize,
    layers: usize,
) -> Result<Option<f32>, Error> {
    let factor = match factor {
        Factor::One => return Ok(None),
        Factor::Fixed(factor) => factor,
        Factor::RootOfHidden => (hidden as f64).sqrt(),
        Factor::Key(key, default) => keys.number(key)?.unwrap_or(default),
        Factor::Inverse(key, default) => 1.0 / keys.number(key)?.unwrap_or(default),
        Factor::OverRootOfLayers(key, default) => {
            let whole = keys.number(key)?.unwrap_or(default);
            if keys.is_gguf() { whole } else { whole / (layers as f64).sqrt() }
        }
        Factor::OverHidden(key, default) => {
            let whole = keys.number(key)?.unwrap_or(default);
            if keys.is_gguf() { 1.0 / whole } else { whole / hidden as f64 }
        }
    };
    match factor.is_finite() {
        true => Ok(Some(factor as f32).filter(|f| *f != 1.0)),
        false => Err(keys.config("a factor on activations is not finite")),
    }
}

fn softcap(keys: &Keys<'_>, key: &keys::Key, softcap: Softcap) -> Result<Option<f32>, Error> {
    let Softcap::Key(default) = softcap else { return Ok(None) };
    match keys.number(key)? {
        Some(cap) if cap > 0.0 => Ok(Some(cap as f32)),
        Some(0.0) => Ok(None),
        Some(cap) => Err(keys.config(format!("`{}` is {cap}; it must be above 0", keys.name(key)))),
        None if keys.is_null(key) => Ok(None),
        None => Ok(default),
    }
}

/// The factor on attention scores.
fn score_scale(
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
    if let Some(scale) = keys.json("attn_config.softmax_scale").and_then(Value::as_f64) {
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
fn growth(keys: &Keys<'_>, family: &Family) -> Result<Option<Growth>, Error> {
    let number = |dict: Option<&Value>, key: &str| dict.and_then(|d| d.get(key)).and_then(Value::as_f64);
    let own = |key: &str| keys.json(key).and_then(Value::as_f64);
    let growth = match family.temperature {
        Temperature::Never => return Ok(None),
        Temperature::AllLayers => {
            let rope = keys.json("rope_parameters").or(keys.json("rope_scaling"));
            let Some(beta) = number(rope, "llama_4_scaling_beta") else { return Ok(None) };
            let floor = number(rope, "original_max_position_embeddings").unwrap_or(0.0);
            Growth::Steps { beta, floor, offset: 0 }
        }
        Temperature::Logarithm if !keys.flag("use_logn_attn", false)? => return Ok(None),
        Temperature::Logarithm => Growth::Log { original: rope::trained(keys) },
        Temperature::Unrotated => {
            if !keys.flag("attn_temperature_tuning", true)? {
                return Ok(None);
            }
            let (beta, floor) = (own("attn_scale").unwrap_or(0.1), own("floor_scale").unwrap_or(8192.0));
            Growth::Steps { beta, floor, offset: 1 }
        }
    };
    match growth {
        Growth::Steps { beta, floor, .. } if floor >= 1.0 && beta.is_finite() => Ok(Some(growth)),
        Growth::Log { original } if original > 1.0 => Ok(Some(growth)),
        _ => Err(keys.config(format!("queries cannot grow by {growth:?}"))),
    }
}

fn activation(keys: &Keys<'_>, family: &Family) -> Result<Activation, Error> {
    if let Activation::ClippedSilu { alpha, limit } = family.activation {
        let number =
            |key: &str, default| keys.json(key).and_then(Value::as_f64).map_or(default, |n| n as f32);
        return Ok(Activation::ClippedSilu {
            alpha: number("swiglu_alpha", alpha),
            limit: number("swiglu_limit", limit),
        });
    }
    Ok(match keys.text(family.activation_key)? {
        None => family.activation,
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu") if family.gelu_means_tanh => Activation::GeluTanh,
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate") => {
            Activation::GeluTanh
        }
        Some("gelu" | "gelu_python") => Activation::GeluErf,
        Some("relu") => Activation::Relu,
        Some("relu2") => Activation::ReluSquared,
        Some(other) => {
            let known = "silu, relu, relu2, gelu, gelu_pytorch_tanh";
            return Err(
                keys.unsupported(format!("the activation `{other}` is not supported; known: {known}"))
            );
        }
    })
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

/// The window of each layer; `rotated` says of each whether it is rotated.
fn windows(keys: &Keys<'_>, family: &Family, rotated: &[bool]) -> Result<Vec<Option<usize>>, Error> {
    let layers = rotated.len();
    let chunks = matches!(family.windows, Windows::ChunksOfRotated);
    let key = if chunks { &keys::CHUNK } else { &keys::WINDOW };
    let default = family.defaults.window.filter(|_| (chunks || !keys.is_gguf()) && !keys.is_null(key));
    // GGUF files of Phi 4 say 0: none.
    let given = keys.number(key)? != Some(0.0);
    let window = if given { keys.count_or(key, default)? } else { None };
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
            let first = keys.json("max_window_layers").and_then(Value::as_u64).unwrap_or(28);
            Box::new(move |i| enabled && i as u64 >= first)
        }
        Windows::Unrotated => match keys.flag("use_sliding_window", false)? {
            true => Box::new(|i| rotated.get(i) == Some(&false)),
            false => return Ok(vec![None; layers]),
        },
        Windows::ChunksOfRotated => Box::new(|i| rotated.get(i) == Some(&true)),
        Windows::EveryOther => Box::new(|i| i % 2 == 0),
        Windows::AllButFirstOf(n) => Box::new(move |i| !i.is_multiple_of(n)),
        Windows::Local => {
            let local = local_layers(keys, layers)?;
            Box::new(move |i| local.get(i) == Some(&true))
        }
        // Where the layers are listed, the pattern may be anything.
        Windows::AllButEvery(_) if types.is_some() => Box::new(|_| false),
        Windows::AllButEvery(n) => {
            let n = keys.count_or(&keys::WINDOW_PATTERN, Some(n))?.unwrap_or(n);
            Box::new(move |i| !(i + 1).is_multiple_of(n))
        }
    };
    let layer = |i: usize| match types.and_then(|t| t.get(i)) {
        None => Ok(window.filter(|_| slides(i))),
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
