//! Rotary position embedding as configurations write it: base, scaling, divisors.

use serde_json::{Map, Value};

use super::keys::Keys;
use crate::error::Error;
use crate::family::keys;
use crate::spec::Scaling;

/// Base and scaling as the configuration gives them.
#[derive(Debug, PartialEq)]
pub(crate) struct RopeConfig {
    pub(crate) theta: f64,
    pub(crate) scaling: Scaling,
    /// The part of a head that is rotated, if it is said.
    pub(crate) rotary: Option<f64>,
    pub(crate) divisors: Option<Vec<f32>>,
    pub(crate) long_divisors: Option<Vec<f32>>,
}

/// Keys of the part of a head that is rotated; classes that read neither rotate whole heads, whatever is said.
const PARTS: [&str; 2] = ["partial_rotary_factor", "rotary_pct"];

/// The layers a rotation is for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Layers {
    /// All of them.
    All,
    /// Those without a window, in a family whose layers with one have their own.
    Full,
    /// Those with a window, in such a family.
    Sliding,
}

/// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before), or the GGUF keys.
///
/// `theta` is the base where no key names one.
pub(crate) fn read(keys: &Keys<'_>, layers: Layers, theta: f64) -> Result<RopeConfig, Error> {
    if keys.is_gguf() {
        return read_gguf(keys, layers, theta);
    }
    let dict = parameters(keys, layers)?;
    let key = match layers {
        Layers::Sliding if keys.json("local_rope_theta").is_some() => "local_rope_theta",
        Layers::Sliding => "rope_local_base_freq",
        Layers::Full if keys.json("global_rope_theta").is_some() => "global_rope_theta",
        _ if keys.json("rotary_emb_base").is_some() => "rotary_emb_base",
        _ => "rope_theta",
    };
    let theta = match number(keys, &dict, "rope_theta")? {
        Some(t) => t,
        None => keys.json_number(key)?.unwrap_or(theta),
    };
    let theta = theta * keys.json_number("rope_ratio")?.unwrap_or(1.0);
    let kind = match dict.get("rope_type").or_else(|| dict.get("type")).filter(|kind| !kind.is_null()) {
        None => None,
        Some(kind) => Some(kind.as_str().ok_or_else(|| keys.wrong("rope_type", "a string", kind))?),
    };
    // The first Phi-3 models called it "su" or "yarn".
    let kind = match kind.unwrap_or("default") {
        "su" => "longrope",
        // Of a text alone, the positions of all sections are the same.
        "mrope" => "default",
        "yarn" if dict.contains_key("short_factor") => "longrope",
        other => other,
    };
    // A fixed `alpha` stretches the base once and for all.
    let alpha = number(keys, &dict, "alpha")?.filter(|alpha| kind == "dynamic" && *alpha > 0.0);
    let (theta, kind) = match alpha {
        Some(alpha) => (theta * stretch(keys, alpha)?, "default"),
        None => (theta, kind),
    };
    let scaling = match keys.flag("use_dynamic_ntk", false)? {
        true => Scaling::Steps { original: trained(keys)? },
        false => scaling(keys, &dict, kind)?,
    };
    let rotary = match (scaling, PARTS.iter().find(|key| keys.reads(key))) {
        (Scaling::Proportional { .. }, _) | (_, None) => None,
        (_, Some(key)) => match number(keys, &dict, "partial_rotary_factor")? {
            None => keys.json_number(key)?,
            part => part,
        },
    };
    let divisors = |key: &str| match kind {
        "longrope" => list(keys, &dict, key).map(Some),
        _ => Ok(None),
    };
    // As transformers does, where the factors of cosines are named the divisors of longer sequences are not used.
    let long = if dict.contains_key("long_mscale") { "short_factor" } else { "long_factor" };
    let (divisors, long_divisors) = (divisors("short_factor")?, divisors(long)?);
    check(keys, RopeConfig { theta, scaling, rotary, divisors, long_divisors })
}

/// The positions that a model was made for.
fn context(keys: &Keys<'_>) -> Result<f64, Error> {
    Ok(keys.positions_if_given(&keys::CONTEXT)?.unwrap_or(2048) as f64)
}

/// The positions that it was trained with before it was stretched: what stands beside the parameters counts more.
fn original(keys: &Keys<'_>, dict: &Map<String, Value>) -> Result<f64, Error> {
    const KEY: &str = "original_max_position_embeddings";
    match keys.json_number(KEY)? {
        Some(n) => Ok(n),
        None => number(keys, dict, KEY)?.map_or_else(|| context(keys), Ok),
    }
}

/// A number among the parameters of rotation, if it is there.
pub(super) fn parameter(keys: &Keys<'_>, key: &str) -> Result<Option<f64>, Error> {
    match keys.is_gguf() {
        true => Ok(None),
        false => number(keys, &parameters(keys, Layers::All)?, key),
    }
}

/// The positions that rotations say a model was trained with, as transformers completes their parameters.
pub(super) fn trained_length(keys: &Keys<'_>) -> Result<Option<f64>, Error> {
    let dict = parameters(keys, Layers::All)?;
    let kind = dict.get("rope_type").or_else(|| dict.get("type")).and_then(Value::as_str);
    match kind {
        Some("llama3" | "yarn" | "longrope") => original(keys, &dict).map(Some),
        _ => number(keys, &dict, "original_max_position_embeddings"),
    }
}

/// `seq_length`, which Qwen 1 tells from the length that its scaling is for.
pub(crate) fn trained(keys: &Keys<'_>) -> Result<f64, Error> {
    Ok(keys.json_number("seq_length")?.unwrap_or(8192.0))
}

/// What the base of whole heads is multiplied by, to stretch the longest wavelength by `alpha`.
fn stretch(keys: &Keys<'_>, alpha: f64) -> Result<f64, Error> {
    let dim = match keys.count_if_given(&keys::HEAD_DIM)? {
        Some(dim) => dim,
        None => keys.count(&keys::HIDDEN)? / keys.count(&keys::HEADS)?,
    } as f64;
    Ok(alpha.powf(dim / (dim - 2.0)))
}

/// A list of numbers that must be there.
fn list(keys: &Keys<'_>, dict: &Map<String, Value>, key: &str) -> Result<Vec<f32>, Error> {
    let number = |v: &Value| v.as_f64().filter(|n| *n > 0.0).map(|n| n as f32);
    let list = dict.get(key).and_then(Value::as_array).and_then(|l| l.iter().map(number).collect());
    list.ok_or_else(|| {
        keys.config(format!("rope scaling `longrope` needs a list `{key}` of numbers above 0"))
    })
}

/// The parameters of these layers as transformers puts them together from the keys a file may have.
fn parameters(keys: &Keys<'_>, layers: Layers) -> Result<Map<String, Value>, Error> {
    let object = |key: &str| Ok::<_, Error>(keys.json_object(key)?.filter(|dict| !dict.is_empty()));
    let (new, old) = (object("rope_parameters")?, object("rope_scaling")?);
    let nested = |dict: &Map<String, Value>, key: &str| dict.get(key).and_then(Value::as_object).cloned();
    if let Some(rotary) = keys.json_object("rotary")? {
        return internlm(keys, rotary);
    }
    if layers == Layers::All {
        let dict = old.or(new).cloned().unwrap_or_default();
        return Ok(nested(&dict, "full_attention").unwrap_or(dict));
    }
    let key = if layers == Layers::Full { "full_attention" } else { "sliding_attention" };
    let mut dict = new.and_then(|d| nested(d, key)).unwrap_or_default();
    if layers == Layers::Full
        && let Some(old) = old
    {
        dict.extend(old.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    // An old `type` does not count here, and whether YaRN's ramp is rounded is said outside the nested parameters.
    dict.entry("rope_type").or_insert_with(|| "default".into());
    dict.remove("truncate");
    dict.extend(new.and_then(|d| d.get("truncate")).map(|t| ("truncate".to_owned(), t.clone())));
    Ok(dict)
}

/// What InternLM 1 calls `rotary`, in the words of other families: its dynamic rotation stretches from the trained length on.
fn internlm(keys: &Keys<'_>, rotary: &Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let kind = match rotary.get("type").and_then(Value::as_str) {
        Some("origin") => "default",
        Some("dynamic") => "dynamic",
        _ => return Err(keys.config("`rotary.type` must be `origin` or `dynamic`")),
    };
    let base = rotary.get("base").ok_or_else(|| keys.config("`rotary.base` is missing"))?;
    let factor = rotary.get("scaling_factor").cloned().unwrap_or_else(|| 1.0.into());
    let entries = [("rope_type", kind.into()), ("rope_theta", base.clone()), ("factor", factor)];
    Ok(entries.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}

fn number(keys: &Keys<'_>, dict: &Map<String, Value>, key: &str) -> Result<Option<f64>, Error> {
    match dict.get(key).filter(|v| !v.is_null()) {
        None => Ok(None),
        Some(v) => match v.as_f64() {
            Some(n) => Ok(Some(n)),
            None => Err(keys.wrong(key, "a number", v)),
        },
    }
}

fn scaling(keys: &Keys<'_>, dict: &Map<String, Value>, kind: &str) -> Result<Scaling, Error> {
    let optional = |key: &str| number(keys, dict, key);
    let needed = |key: &str| {
        optional(key)?
            .ok_or_else(|| keys.config(format!("rope scaling `{kind}` needs `{key}`, which is missing")))
    };
    let context = || context(keys);
    let original = || original(keys, dict);
    Ok(match kind {
        "default" | "none" => Scaling::None,
        "proportional" => Scaling::Proportional {
            part: optional("partial_rotary_factor")?.unwrap_or(1.0),
            factor: optional("factor")?.unwrap_or(1.0),
        },
        "linear" => Scaling::Linear { factor: needed("factor")? },
        "dynamic" => Scaling::Dynamic { factor: needed("factor")?, original: context()? },
        "llama3" => Scaling::Llama3 {
            factor: needed("factor")?,
            low: needed("low_freq_factor")?,
            high: needed("high_freq_factor")?,
            original: original()?,
        },
        "yarn" => {
            let original = original()?;
            let factor = match optional("factor")? {
                Some(f) => f,
                None => context()? / original,
            };
            let attention_factor = match optional("attention_factor")? {
                Some(f) => f,
                None => yarn_attention_factor(factor, optional("mscale")?, optional("mscale_all_dim")?),
            };
            let truncate = dict.get("truncate").and_then(Value::as_bool).unwrap_or(true);
            Scaling::Yarn {
                factor,
                beta_fast: optional("beta_fast")?.filter(|b| *b != 0.0).unwrap_or(32.0),
                beta_slow: optional("beta_slow")?.filter(|b| *b != 0.0).unwrap_or(1.0),
                original,
                attention_factor,
                truncate,
            }
        }
        "longrope" => {
            let original = original()?;
            let factor = context()? / original;
            let scale = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
            let given = optional("attention_factor")?.unwrap_or(scale);
            // Phi 3.5 with experts names the factor of short and of long sequences.
            let factor = |key: &str| Ok::<_, Error>(optional(key)?.unwrap_or(given));
            let (attention_factor, long_attention_factor) = (factor("short_mscale")?, factor("long_mscale")?);
            Scaling::Long { original, attention_factor, long_attention_factor }
        }
        other => {
            let known = "default, linear, dynamic, llama3, yarn, longrope";
            return Err(keys.unsupported(format!("rope scaling `{other}` is not supported; known: {known}")));
        }
    })
}

fn yarn_attention_factor(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    match (mscale.filter(|m| *m != 0.0), mscale_all_dim.filter(|m| *m != 0.0)) {
        (Some(m), Some(all)) => scale(m) / scale(all),
        _ => scale(1.0),
    }
}

fn read_gguf(keys: &Keys<'_>, layers: Layers, theta: f64) -> Result<RopeConfig, Error> {
    let config =
        |theta, scaling| RopeConfig { theta, scaling, rotary: None, divisors: None, long_divisors: None };
    if layers == Layers::Sliding {
        let theta = keys.gguf_number("rope.freq_base_swa").unwrap_or(theta);
        return check(keys, config(theta, Scaling::None));
    }
    let theta = keys.gguf_number("rope.freq_base").unwrap_or(10_000.0);
    let factor = keys.gguf_number("rope.scaling.factor").or_else(|| keys.gguf_number("rope.scale_linear"));
    let original = match keys.gguf_number("rope.scaling.original_context_length") {
        Some(n) => n,
        None => keys.positions_if_given(&keys::CONTEXT)?.unwrap_or(2048) as f64,
    };
    // llama3 scaling comes as a tensor of divisors and names no type.
    let scaling = match (keys.gguf_text("rope.scaling.type").unwrap_or("linear"), factor) {
        ("none", _) | (_, None) => Scaling::None,
        ("linear", Some(1.0 | 0.0)) => Scaling::None,
        ("linear", Some(factor)) => Scaling::Linear { factor },
        ("yarn", Some(factor)) => {
            let scale = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
            Scaling::Yarn {
                factor,
                beta_fast: keys.gguf_number("rope.scaling.yarn_beta_fast").unwrap_or(32.0),
                beta_slow: keys.gguf_number("rope.scaling.yarn_beta_slow").unwrap_or(1.0),
                original,
                attention_factor: scale * keys.gguf_number("rope.scaling.attn_factor").unwrap_or(1.0),
                // This family alone does not round the ramp.
                truncate: !matches!(keys, Keys::Gguf(_, "gpt-oss")),
            }
        }
        (other, _) => {
            return Err(keys
                .unsupported(format!("rope scaling `{other}` is not supported; known: none, linear, yarn")));
        }
    };
    check(keys, config(theta, scaling))
}

/// Refuses values that would make frequencies infinite or undefined.
fn check(keys: &Keys<'_>, rope: RopeConfig) -> Result<RopeConfig, Error> {
    let positive: &[(&str, f64)] = &match rope.scaling {
        Scaling::None => [("rope_theta", rope.theta), ("", 1.0), ("", 1.0)],
        Scaling::Steps { original } => [("rope_theta", rope.theta), ("seq_length", original), ("", 1.0)],
        Scaling::Linear { factor } | Scaling::Proportional { factor, .. } => {
            [("rope_theta", rope.theta), ("factor", factor), ("", 1.0)]
        }
        Scaling::Dynamic { factor, original }
        | Scaling::Llama3 { factor, original, .. }
        | Scaling::Yarn { factor, original, .. } => {
            [("rope_theta", rope.theta), ("factor", factor), ("original_max_position_embeddings", original)]
        }
        Scaling::Long { original, attention_factor, .. } => [
            ("rope_theta", rope.theta),
            ("attention_factor", attention_factor),
            ("original_max_position_embeddings", original),
        ],
    };
    for (name, value) in positive {
        if !(value.is_finite() && *value > 0.0) {
            return Err(
                keys.config(format!("`{name}` of the rotary embedding is {value}; it must be above 0"))
            );
        }
    }
    Ok(rope)
}
