//! Gated delta nets: linear attention with a short causal convolution and a recurrent state.
//!
//! A value head keeps a matrix `S` of `key_dim` by `value_dim`. Each position, from what its row is multiplied to, gives it a
//! key `k`, a value `v`, a decay `d` and a strength `b`: `S` becomes `d S + k (b (v - k d S))`, and the head's output is `q S`.
//! Queries, keys and values have passed a convolution over the last few positions and are of unit length; outputs are
//! normalised, and multiplied by what a gate says.

use serde_json::Value;

use crate::attention::AttentionWidths;
use crate::error::Error;
use crate::family::Bias;
use crate::keys::{Key, Keys};
use crate::spec::{Linear, Norm, NormKind, Role, Runs, Vector};
use crate::tensors::{Part, Tensors};

const KEY_HEADS: Key = Key { hugging_face: &["linear_num_key_heads"], gguf: "ssm.group_count" };
const VALUE_HEADS: Key = Key { hugging_face: &["linear_num_value_heads"], gguf: "ssm.time_step_rank" };
const KEY_DIM: Key = Key { hugging_face: &["linear_key_head_dim"], gguf: "ssm.state_size" };
const VALUE_DIM: Key = Key { hugging_face: &["linear_value_head_dim"], gguf: "" };
const VALUE_WIDTH: Key = Key { hugging_face: &[], gguf: "ssm.inner_size" };
const KERNEL: Key = Key { hugging_face: &["linear_conv_kernel_dim"], gguf: "ssm.conv_kernel" };
const INTERVAL: Key = Key { hugging_face: &["full_attention_interval"], gguf: "" };

/// A gated delta net.
#[derive(Clone, Debug)]
pub struct DeltaNet {
    /// `[key_heads * key_dim, hidden]`.
    pub q: Linear,
    /// `[key_heads * key_dim, hidden]`.
    pub k: Linear,
    /// `[value_heads * value_dim, hidden]`.
    pub v: Linear,
    /// `[value_heads * value_dim, hidden]`: the gate of outputs.
    pub gate: Linear,
    /// `[value_heads, hidden]`: strengths. Without `decay` it has twice as many rows: for each key head the strengths of
    /// its value heads, then their decays.
    pub strength: Linear,
    /// `[value_heads, hidden]`: decays.
    pub decay: Option<Linear>,
    /// `[hidden, value_heads * value_dim]`.
    pub o: Linear,
    /// `[channels, kernel]`; the channels are queries, keys and values.
    pub convolution: Vector,
    /// How fast each value head forgets.
    pub rate: Vector,
    /// `rate` holds the logarithms of the rates; else they are there with the sign reversed.
    pub rate_is_log: bool,
    /// Added to decays, one for each value head.
    pub decay_bias: Vector,
    /// On outputs, head by head.
    pub norm: Norm,
    /// Its sizes.
    pub shape: DeltaShape,
}

/// The sizes of a gated delta net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values: a multiple.
    pub value_heads: usize,
    /// Size of a query and key head.
    pub key_dim: usize,
    /// Size of a value head.
    pub value_dim: usize,
    /// Positions that the convolution sees.
    pub kernel: usize,
    /// Value heads of different key heads take turns: value head `h` has key head `h % key_heads`. Else the first ones have
    /// the first key head.
    pub tiled: bool,
}

impl DeltaShape {
    /// Elements of a row's queries, keys and values.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    /// Elements that a sequence keeps of its last positions.
    pub fn history(&self) -> usize {
        (self.kernel - 1) * self.channels()
    }

    /// Elements of a sequence's matrices.
    pub fn state(&self) -> usize {
        self.value_heads * self.key_dim * self.value_dim
    }
}

impl DeltaNet {
    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let inputs =
            [(Role::Q, &self.q), (Role::K, &self.k), (Role::V, &self.v), (Role::OutputGate, &self.gate)];
        let decay = self.decay.as_ref().map(|decay| (Role::Decay, decay));
        inputs
            .into_iter()
            .chain([(Role::Strength, &self.strength)])
            .chain(decay)
            .chain([(Role::Output, &self.o)])
    }

    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let inputs = [&mut self.q, &mut self.k, &mut self.v, &mut self.gate, &mut self.strength];
        inputs.into_iter().chain(&mut self.decay).chain([&mut self.o])
    }

    /// What a row takes while it passes through; the cache holds nothing of it.
    pub fn widths(&self) -> AttentionWidths {
        AttentionWidths {
            q: self.shape.channels(),
            mixed: self.o.weight.cols,
            output_gate: self.gate.weight.rows,
            strengths: 2 * self.shape.value_heads,
            ..AttentionWidths::default()
        }
    }

    /// Its small tensors but for biases and the norm's.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        [&self.convolution, &self.rate, &self.decay_bias].into_iter()
    }
}

/// How a family stores delta nets.
#[derive(Clone, Copy, Debug)]
pub struct DeltaFamily {
    /// Names of tensors in Hugging Face checkpoints.
    pub names: DeltaNames,
    /// Names of tensors in GGUF.
    pub gguf_names: DeltaNames,
    /// In GGUF, value heads of different key heads take turns.
    pub gguf_tiled: bool,
}

impl DeltaFamily {
    /// What a family starts from.
    pub const PLAIN: Self =
        Self { names: DeltaNames::HUGGING_FACE, gguf_names: DeltaNames::GGUF, gguf_tiled: false };
}

/// Names of tensors; as in [`crate::Names`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct DeltaNames {
    /// For each key head its queries, its keys, its value heads' values, and their gates.
    pub joined: &'static str,
    /// In place of that: all queries, all keys, all values; and the gates.
    pub qkv: &'static str,
    pub gate: &'static str,
    /// For each key head the strengths of its value heads, and their decays.
    pub strengths: &'static str,
    /// In place of that: all strengths, and all decays.
    pub strength: &'static str,
    pub decay: &'static str,
    /// These with their suffixes.
    pub convolution: &'static str,
    pub rate: &'static str,
    pub decay_bias: &'static str,
    pub norm: &'static str,
    pub o: &'static str,
}

impl DeltaNames {
    /// The names of Hugging Face checkpoints.
    pub const HUGGING_FACE: Self = Self {
        joined: "layers.{}.linear_attn.in_proj_qkvz",
        qkv: "layers.{}.linear_attn.in_proj_qkv",
        gate: "layers.{}.linear_attn.in_proj_z",
        strengths: "layers.{}.linear_attn.in_proj_ba",
        strength: "layers.{}.linear_attn.in_proj_b",
        decay: "layers.{}.linear_attn.in_proj_a",
        convolution: "layers.{}.linear_attn.conv1d.weight",
        rate: "layers.{}.linear_attn.A_log",
        decay_bias: "layers.{}.linear_attn.dt_bias",
        norm: "layers.{}.linear_attn.norm.weight",
        o: "layers.{}.linear_attn.out_proj",
    };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        joined: "blk.{}.ssm_in",
        qkv: "blk.{}.attn_qkv",
        gate: "blk.{}.attn_gate",
        strengths: "blk.{}.ssm_ba",
        strength: "blk.{}.ssm_beta",
        decay: "blk.{}.ssm_alpha",
        convolution: "blk.{}.ssm_conv1d.weight",
        rate: "blk.{}.ssm_a",
        decay_bias: "blk.{}.ssm_dt.bias",
        norm: "blk.{}.ssm_norm.weight",
        o: "blk.{}.ssm_out",
    };
}

/// The delta nets of a configuration.
pub(crate) struct DeltaLayers {
    shape: DeltaShape,
    /// For each layer, whether it is one; in GGUF, those are that have the tensors.
    layers: Vec<bool>,
}

impl DeltaLayers {
    pub(crate) fn read(keys: &Keys<'_>, family: &DeltaFamily, layers: usize) -> Result<Self, Error> {
        let count = |key: &Key, default: usize| match keys.is_gguf() {
            true => keys.count(key),
            false => Ok(keys.count_or(key, Some(default))?.unwrap_or(default)),
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
        let shape = DeltaShape { key_heads, value_heads, key_dim, value_dim, kernel, tiled };
        Ok(Self { shape, layers: layer_types(keys, layers)? })
    }
}

/// Positions that a convolution can see.
const KERNEL_MAX: usize = 8;

/// Which layers are delta nets: as `layer_types` lists, or all but every `full_attention_interval`-th.
fn layer_types(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let Some(types) = keys.json("layer_types") else {
        let interval = keys.count_or(&INTERVAL, Some(4))?.unwrap_or(4);
        return Ok((1..=layers).map(|i| !i.is_multiple_of(interval)).collect());
    };
    let types = types.as_array().filter(|types| types.len() == layers);
    let types = types.ok_or_else(|| keys.config(format!("`layer_types` must list {layers} layers")))?;
    let is_delta = |(i, kind): (usize, &Value)| match kind.as_str() {
        Some("linear_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(keys.unsupported(format!("layer type {kind} of layer {i} is not supported"))),
    };
    types.iter().enumerate().map(is_delta).collect()
}

impl Tensors<'_> {
    /// The delta net of a layer, if it is one.
    pub(crate) fn delta(
        &self,
        layer: usize,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Option<DeltaNet>, Error> {
        let Some((family, delta)) = self.family.delta.as_ref().zip(self.shape.delta.as_ref()) else {
            return Ok(None);
        };
        let n = if self.keys.is_gguf() { &family.gguf_names } else { &family.names };
        let is_delta = match self.keys.is_gguf() {
            true => self.contains(&name(n.rate)),
            false => delta.layers.get(layer) == Some(&true),
        };
        if !is_delta {
            return Ok(None);
        }
        let (s, hidden) = (delta.shape, self.shape.hidden);
        let linear =
            |pattern: &str, part: Part, cols: usize| self.linear(&name(pattern), Bias::Never, part, cols);
        let heads = Part::all(s.value_heads);
        let [q, k, v, gate] = self.delta_inputs(n, s, name)?;
        let (strength, decay) = match self.has(&name(n.strengths)) {
            true => (linear(n.strengths, Part::all(2 * s.value_heads), hidden)?, None),
            false => (linear(n.strength, heads, hidden)?, Some(linear(n.decay, heads, hidden)?)),
        };
        let values = s.value_heads * s.value_dim;
        Ok(Some(DeltaNet {
            q,
            k,
            v,
            gate,
            strength,
            decay,
            o: linear(n.o, Part::all(hidden), values)?,
            convolution: self.convolution(&name(n.convolution), s)?,
            rate: self.vector(&name(n.rate), &[s.value_heads], 0.0)?,
            rate_is_log: !self.keys.is_gguf(),
            decay_bias: self.vector(&name(n.decay_bias), &[s.value_heads], 0.0)?,
            norm: Norm {
                kind: NormKind::Rms,
                size: s.value_dim,
                weight: Some(self.vector(&name(n.norm), &[s.value_dim], 0.0)?),
                further: Vec::new(),
                bias: None,
                eps: self.shape.eps,
            },
            shape: s,
        }))
    }

    /// Stored `[channels, 1, kernel]`, or without the middle.
    fn convolution(&self, name: &str, s: DeltaShape) -> Result<Vector, Error> {
        let shape = [s.channels(), 1, s.kernel];
        match self.catalog.get(name).is_some_and(|tensor| tensor.shape.len() == 2) {
            true => self.vector(name, &[shape[0], shape[2]], 0.0),
            false => self.vector(name, &shape, 0.0),
        }
    }

    /// Queries, keys, values and the gate of outputs.
    fn delta_inputs(
        &self,
        n: &DeltaNames,
        s: DeltaShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<[Linear; 4], Error> {
        let linear =
            |pattern: &str, part: Part| self.linear(&name(pattern), Bias::Never, part, self.shape.hidden);
        let (keys, values) = (s.key_heads * s.key_dim, s.value_heads * s.value_dim);
        if !self.has(&name(n.joined)) {
            let part = |first, rows| linear(n.qkv, Part { first, rows, total: s.channels(), runs: None });
            return Ok([
                part(0, keys)?,
                part(keys, keys)?,
                part(2 * keys, values)?,
                linear(n.gate, Part::all(values))?,
            ]);
        }
        let group = values / s.key_heads;
        let stride = 2 * s.key_dim + 2 * group;
        let part = |first, rows| {
            let runs = (s.key_heads > 1).then_some(Runs { rows, stride });
            linear(n.joined, Part { first, rows: s.key_heads * rows, total: s.key_heads * stride, runs })
        };
        let after = 2 * s.key_dim;
        Ok([
            part(0, s.key_dim)?,
            part(s.key_dim, s.key_dim)?,
            part(after, group)?,
            part(after + group, group)?,
        ])
    }
}
