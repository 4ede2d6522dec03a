//! Switches, factors, caps and activations as configurations write them.

use aerostat_checkpoint::name_shown;

use super::keys::Keys;
use crate::error::Error;
use crate::family::{Factor, Family, Key, Softcap, Switch};
use crate::spec::Activation;

pub(super) fn switch(keys: &Keys<'_>, switch: Switch) -> Result<bool, Error> {
    match switch {
        Switch::Never => Ok(false),
        Switch::Always => Ok(true),
        Switch::Flag(key, default) => keys.switch(key, default),
    }
}

/// A factor, if it is not 1.
pub(super) fn factor(
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
        // What the classes take for it makes no difference.
        Factor::OverRootOfLayers(key, _) | Factor::OverHidden(key, _) if keys.is_null(key)? => {
            return Ok(None);
        }
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

pub(super) fn softcap(keys: &Keys<'_>, key: &Key, softcap: Softcap) -> Result<Option<f32>, Error> {
    let Softcap::Key(default) = softcap else { return Ok(None) };
    match keys.number(key)? {
        Some(cap) if cap > 0.0 => Ok(Some(cap as f32)),
        Some(0.0) => Ok(None),
        Some(cap) => Err(keys.config(format!("`{}` is {cap}; it must be above 0", keys.name(key)?))),
        None if keys.is_null(key)? => Ok(None),
        None => Ok(default),
    }
}

pub(super) fn activation(keys: &Keys<'_>, family: &Family) -> Result<Activation, Error> {
    if let Activation::ClippedSilu { alpha, limit } = family.activation {
        let number =
            |key: &str, default| Ok::<_, Error>(keys.json_number(key)?.map_or(default, |n| n as f32));
        return Ok(Activation::ClippedSilu {
            alpha: number("swiglu_alpha", alpha)?,
            limit: number("swiglu_limit", limit)?,
        });
    }
    Ok(match keys.text(family.activation_key)? {
        None => family.activation,
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu") if family.gelu_means_tanh => Activation::GeluTanh,
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate") => {
            Activation::GeluTanh
        }
        Some("gelu" | "gelu_python" | "geglu") => Activation::GeluErf,
        Some("relu" | "reglu") => Activation::Relu,
        Some("relu2") => Activation::ReluSquared,
        Some("relu6") => Activation::Relu6,
        Some("quick_gelu") => Activation::QuickGelu,
        Some("mish") => Activation::Mish,
        Some("sigmoid") => Activation::Sigmoid,
        Some(other) => {
            let known = "silu, sigmoid, relu, relu2, relu6, gelu, gelu_pytorch_tanh, quick_gelu, mish";
            return Err(keys.unsupported(format!(
                "the activation `{}` is not supported; known: {known}",
                name_shown(other)
            )));
        }
    })
}
