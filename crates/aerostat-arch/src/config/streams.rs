//! The numbers of several residual streams, and of activations that are cut.

use serde_json::Value;

use super::keys::Keys;
use crate::error::Error;
use crate::family::{Family, Key};

const COUNT: Key = Key { hugging_face: &["altup_num_inputs"], gguf: "altup.num_inputs" };
const ACTIVE: Key = Key { hugging_face: &["altup_active_idx"], gguf: "altup.active_idx" };

/// The numbers of several residual streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamShape {
    pub(crate) count: usize,
    pub(crate) active: usize,
    /// The active stream is multiplied by factors for the further input of a block.
    pub(crate) scaled: bool,
}

impl StreamShape {
    pub(super) fn read(keys: &Keys<'_>, family: &Family) -> Result<Option<Self>, Error> {
        /// Products are told apart by a byte.
        const STREAMS_MAX: usize = 64;
        if !family.streams {
            return Ok(None);
        }
        let count = keys.count_or(&COUNT, 4)?;
        let active = keys.number(&ACTIVE)?.unwrap_or(0.0);
        let scaled = keys.flag("altup_correct_scale", true)?;
        if count > STREAMS_MAX {
            return Err(keys.config(format!("{count} residual streams are more than any model has")));
        }
        match (0..count).find(|i| *i as f64 == active) {
            Some(active) => Ok(Some(Self { count, active, scaled })),
            None => Err(keys.config(format!("`altup_active_idx` is {active}, of {count} streams"))),
        }
    }
}

/// For each layer, how many standard deviations above their mean the gate's inputs are cut at; `None`: they are not.
pub(super) fn cuts(keys: &Keys<'_>, family: &Family, layers: usize) -> Result<Vec<Option<f32>>, Error> {
    const PATTERN: &str = "activation_sparsity_pattern";
    if !family.streams {
        return Ok(vec![None; layers]);
    }
    if keys.is_gguf() {
        let listed = keys.gguf_floats("activation_sparsity_scale");
        let cut = |i: usize| listed.as_ref()?.get(i).copied().filter(|cut| cut.is_finite());
        return Ok((0..layers).map(cut).collect());
    }
    let Some(list) = keys.json_list(PATTERN)? else {
        let sparse = if layers > 10 { 10 } else { 0 };
        return Ok((0..layers).map(|i| (i < sparse).then(|| quantile(0.95) as f32)).collect());
    };
    let wrong = || keys.config(format!("`{PATTERN}` must list {layers} numbers of at least 0 and below 1"));
    let number = |v: &Value| v.as_f64().filter(|part| (0.0..1.0).contains(part));
    let parts = list.iter().map(number).collect::<Option<Vec<f64>>>().filter(|parts| parts.len() == layers);
    let cut = |part: f64| (part > 0.0).then(|| quantile(part) as f32);
    Ok(parts.ok_or_else(wrong)?.into_iter().map(cut).collect())
}

/// The value below which so large a part of the standard normal distribution lies, `0 < part < 1`: the root of its
/// distribution function, by halving.
fn quantile(part: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        *(if below(middle) < part { &mut low } else { &mut high }) = middle;
    }
    0.5 * (low + high)
}

/// The part of the standard normal distribution that lies below `x`.
fn below(x: f64) -> f64 {
    const STEPS: usize = 4096;
    // Simpson's rule from 0 to x; beyond 9 nothing is left.
    let end = x.clamp(-9.0, 9.0);
    let step = end / STEPS as f64;
    let density = |i: usize| (-0.5 * (i as f64 * step).powi(2)).exp();
    let weight = |i: usize| if i == 0 || i == STEPS { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
    let sum: f64 = (0..=STEPS).map(|i| weight(i) * density(i)).sum();
    0.5 + sum * step / 3.0 / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of tables of the normal distribution.
    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        let known = [
            (0.5, 0.0),
            (0.95, 1.644_853_626_951_47),
            (0.975, 1.959_963_984_540_05),
            (0.25, -0.674_489_750_196_08),
        ];
        for (part, value) in known {
            assert!((quantile(part) - value).abs() < 1e-10, "{part}: {}", quantile(part));
        }
    }
}
