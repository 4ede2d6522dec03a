//! The numbers of state spaces and short convolutions.

use serde_json::Value;

use super::delta::KERNEL_MAX;
use super::keys::Keys;
use crate::error::Error;
use crate::family::{Family, Key, SelectiveNorms, SpaceFamily, Steps};
use crate::spec::SpaceShape;

const HEADS: Key =
    Key { hugging_face: &["mamba_n_heads", "mamba_num_heads", "num_heads"], gguf: "ssm.time_step_rank" };
const HEAD_DIM: Key = Key { hugging_face: &["mamba_d_head", "mamba_head_dim", "head_dim"], gguf: "" };
const GROUPS: Key = Key { hugging_face: &["mamba_n_groups", "n_groups"], gguf: "ssm.group_count" };
const STATE: Key =
    Key { hugging_face: &["mamba_d_state", "ssm_state_size", "state_size"], gguf: "ssm.state_size" };
const KERNEL: Key = Key { hugging_face: &["mamba_d_conv", "conv_kernel"], gguf: "ssm.conv_kernel" };
const INNER: Key = Key { hugging_face: &["mamba_d_ssm"], gguf: "ssm.inner_size" };
const EXPAND: Key = Key { hugging_face: &["mamba_expand", "expand"], gguf: "" };
const RANK: Key = Key { hugging_face: &["mamba_dt_rank", "time_step_rank"], gguf: "ssm.time_step_rank" };
const CONVOLUTION: Key = Key { hugging_face: &["conv_L_cache"], gguf: "shortconv.l_cache" };

const NORMALISED: Key = Key { hugging_face: &["ssm_dt_b_c_rms"], gguf: "ssm.dt_b_c_rms" };

/// What the first Mamba has besides.
#[derive(Clone, Copy)]
pub(crate) struct SelectiveShape {
    /// Elements of what time steps are made of.
    pub(crate) rank: usize,
    /// Whether these, what is written with and what is read with are normalised without weights.
    pub(crate) bare: bool,
    /// What such norms add to the mean of squares; `None`: what all norms add.
    pub(crate) eps: Option<f32>,
}

/// The numbers of a family's state spaces and gated convolutions.
pub(crate) struct Spaces {
    pub(crate) shape: Option<SpaceShape>,
    /// Outputs are normalised before they are gated.
    pub(crate) norm_first: bool,
    pub(crate) factors: Option<[f32; 6]>,
    pub(crate) selective: SelectiveShape,
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
                // As llama.cpp has it, which no published file contradicts.
                Some(_) if keys.is_gguf() => false,
                Some(key) => keys.flag(key, true)?,
            },
            factors: own.map(|own| factors(keys, own)).transpose()?.flatten(),
            selective: match own {
                Some(own) if own.selective.is_some() => selective(keys, own, hidden)?,
                _ => SelectiveShape { rank: 0, bare: false, eps: None },
            },
            kernel: family.convolution.map(|_| kernel(keys, &CONVOLUTION, 3)).transpose()?,
        })
    }
}

/// The sizes of a family's state spaces.
fn space(keys: &Keys<'_>, family: &SpaceFamily, hidden: usize) -> Result<SpaceShape, Error> {
    if let Some(own) = &family.selective {
        return channels(keys, own.width, hidden);
    }
    let heads = keys.count(&HEADS)?;
    let is_auto = |key: &str| keys.json(key).and_then(Value::as_str) == Some("auto");
    let unsaid = is_auto("mamba_d_head") || keys.is_gguf();
    let given = if unsaid { None } else { keys.count_if_given(&HEAD_DIM)? };
    let head_dim = match given {
        Some(head_dim) => head_dim,
        None => match keys.count_if_given(&INNER)? {
            Some(inner) => inner / heads,
            None if keys.is_gguf() => keys.count(&INNER)? / heads,
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
    refuse_activations(keys)?;
    let (kernel, steps) = (kernel(keys, &KERNEL, 4)?, steps(keys, family.steps)?);
    Ok(SpaceShape { heads, head_dim, groups, state_dim, kernel, steps, selective: false })
}

fn refuse_activations(keys: &Keys<'_>) -> Result<(), Error> {
    if let Some(activation) = keys.text("mamba_hidden_act")?.or(keys.text("hidden_act")?)
        && !matches!(activation, "silu" | "swish")
    {
        return Err(keys.unsupported("state spaces with another activation than `silu` are not supported"));
    }
    Ok(())
}

/// The sizes of state spaces of the first Mamba, whose channels are cut into parts that are computed apart.
fn channels(keys: &Keys<'_>, width: &str, hidden: usize) -> Result<SpaceShape, Error> {
    const PART: usize = 64;
    refuse_activations(keys)?;
    let said = if width.is_empty() { None } else { keys.json_whole(width)? };
    let inner = match (keys.is_gguf(), said) {
        (true, _) => keys.count(&INNER)?,
        (false, Some(said)) => usize::try_from(said).unwrap_or(usize::MAX),
        (false, None) => (keys.number(&EXPAND)?.unwrap_or(2.0) * hidden as f64) as usize,
    };
    let state_dim = keys.count(&STATE)?;
    if inner == 0 || inner > 1 << 20 || state_dim > 1 << 16 {
        return Err(keys.config(format!("a state space of {inner} by {state_dim} makes no sense")));
    }
    let head_dim = (1..=PART).rev().find(|part| inner.is_multiple_of(*part)).unwrap_or(1);
    Ok(SpaceShape {
        heads: inner / head_dim,
        head_dim,
        groups: 1,
        state_dim,
        kernel: kernel(keys, &KERNEL, 4)?,
        steps: (0.0, f32::INFINITY),
        selective: true,
    })
}

/// What the first Mamba has besides.
fn selective(keys: &Keys<'_>, family: &SpaceFamily, hidden: usize) -> Result<SelectiveShape, Error> {
    let is_auto = ["mamba_dt_rank", "time_step_rank"]
        .iter()
        .any(|key| keys.json(key).and_then(Value::as_str) == Some("auto"));
    let even = hidden.div_ceil(16);
    let rank = if is_auto { even } else { keys.count_or(&RANK, even)? };
    let (bare, eps) = match family.selective.map(|own| own.norms) {
        _ if keys.is_gguf() => (keys.switch(&NORMALISED, false)?, None),
        Some(SelectiveNorms::Bare(key)) => (true, Some(keys.json_number(key)?.unwrap_or(1e-6) as f32)),
        _ => (false, None),
    };
    Ok(SelectiveShape { rank, bare, eps })
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
