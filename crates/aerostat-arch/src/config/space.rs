//! The numbers of state spaces and short convolutions.

use serde_json::Value;

use super::delta::KERNEL_MAX;
use super::keys::Keys;
use crate::error::Error;
use crate::family::{Family, Key, SpaceFamily, Steps};
use crate::spec::SpaceShape;

const HEADS: Key = Key { hugging_face: &["mamba_n_heads", "mamba_num_heads", "num_heads"], gguf: "" };
const HEAD_DIM: Key = Key { hugging_face: &["mamba_d_head", "mamba_head_dim", "head_dim"], gguf: "" };
const GROUPS: Key = Key { hugging_face: &["mamba_n_groups", "n_groups"], gguf: "" };
const STATE: Key = Key { hugging_face: &["mamba_d_state", "ssm_state_size", "state_size"], gguf: "" };
const KERNEL: Key = Key { hugging_face: &["mamba_d_conv", "conv_kernel"], gguf: "" };
const INNER: Key = Key { hugging_face: &["mamba_d_ssm"], gguf: "" };
const EXPAND: Key = Key { hugging_face: &["mamba_expand", "expand"], gguf: "" };
const CONVOLUTION: Key = Key { hugging_face: &["conv_L_cache"], gguf: "" };

/// The numbers of a family's state spaces and gated convolutions.
pub(crate) struct Spaces {
    pub(crate) shape: Option<SpaceShape>,
    /// Outputs are normalised before they are gated.
    pub(crate) norm_first: bool,
    pub(crate) factors: Option<[f32; 6]>,
    /// Positions that gated convolutions see.
    pub(crate) kernel: Option<usize>,
}

impl Spaces {
    pub(super) fn read(keys: &Keys<'_>, family: &Family, hidden: usize) -> Result<Self, Error> {
        let own = family.space.as_ref();
        Ok(Self {
            shape: own.map(|own| space(keys, own, hidden)).transpose()?,
            norm_first: match own.map(|own| own.norm_first) {
                None | Some("") => false,
                Some(key) => keys.flag(key, true)?,
            },
            factors: own.map(|own| factors(keys, own)).transpose()?.flatten(),
            kernel: family.convolution.map(|_| kernel(keys, &CONVOLUTION, 3)).transpose()?,
        })
    }
}

/// The sizes of a family's state spaces.
fn space(keys: &Keys<'_>, family: &SpaceFamily, hidden: usize) -> Result<SpaceShape, Error> {
    let heads = keys.count(&HEADS)?;
    let is_auto = |key: &str| keys.json(key).and_then(Value::as_str) == Some("auto");
    let given = if is_auto("mamba_d_head") { None } else { keys.count_if_given(&HEAD_DIM)? };
    let head_dim = match given {
        Some(head_dim) => head_dim,
        None => match keys.count_if_given(&INNER)? {
            Some(inner) => inner / heads,
            None => keys.count_or(&EXPAND, 2)? * hidden / heads,
        },
    };
    let (groups, state_dim) = (keys.count_or(&GROUPS, 1)?, keys.count(&STATE)?);
    let sizes = [heads, head_dim, groups, state_dim];
    if !heads.is_multiple_of(groups) || head_dim == 0 || sizes.iter().any(|n| *n > 1 << 16) {
        return Err(keys.config(format!(
            "{heads} heads of {head_dim} cannot share {groups} groups of state spaces of {state_dim} rows"
        )));
    }
    if let Some(activation) = keys.text("mamba_hidden_act")?.or(keys.text("hidden_act")?)
        && !matches!(activation, "silu" | "swish")
    {
        return Err(keys.unsupported("state spaces with another activation than `silu` are not supported"));
    }
    let (kernel, steps) = (kernel(keys, &KERNEL, 4)?, steps(keys, family.steps)?);
    Ok(SpaceShape { heads, head_dim, groups, state_dim, kernel, steps })
}

fn kernel(keys: &Keys<'_>, key: &Key, default: usize) -> Result<usize, Error> {
    let kernel = keys.count_or(key, default)?;
    match (2..=KERNEL_MAX).contains(&kernel) {
        true => Ok(kernel),
        false => Err(keys.unsupported(format!("a convolution over {kernel} positions is not supported"))),
    }
}

/// The least and the largest time step.
fn steps(keys: &Keys<'_>, rule: Steps) -> Result<(f32, f32), Error> {
    let free = (0.0, f32::INFINITY);
    match rule {
        Steps::AtLeast(key, other) => {
            let least = keys.json_number(other)?.or(keys.json_number(key)?).unwrap_or(0.0);
            Ok((least as f32, f32::INFINITY))
        }
        Steps::Limits(key) => match keys.json_list(key)? {
            None => Ok(free),
            // JSON has no infinity: what is no number has no limit.
            Some([least, most]) => Ok((
                least.as_f64().unwrap_or(0.0) as f32,
                most.as_f64().map_or(f32::INFINITY, |most| most as f32),
            )),
            Some(_) => Err(keys.config(format!("`{key}` must list the least time step and the largest"))),
        },
    }
}

/// Factors on the parts of a state space that a configuration lists, its input's included.
fn factors(keys: &Keys<'_>, family: &SpaceFamily) -> Result<Option<[f32; 6]>, Error> {
    if !family.factors {
        return Ok(None);
    }
    let number = |key: &str| Ok::<_, Error>(keys.json_number(key)?.unwrap_or(1.0) as f32);
    let input = number("ssm_in_multiplier")?;
    let mut factors = [input, input, input, input, input, number("ssm_out_multiplier")?];
    if let Some(list) = keys.json_list("ssm_multipliers")? {
        let list: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
        let list = list.filter(|list| list.len() == 5);
        let list = list.ok_or_else(|| keys.config("`ssm_multipliers` must be five numbers"))?;
        factors.iter_mut().zip(list).for_each(|(factor, own)| *factor *= own as f32);
    }
    if input != 1.0 && keys.flag("mamba_proj_bias", false)? {
        return Err(keys.unsupported("`ssm_in_multiplier` with `mamba_proj_bias` is not supported"));
    }
    Ok(Some(factors).filter(|factors| factors.iter().any(|factor| *factor != 1.0)))
}
