//! How a family stores delta nets.

use crate::spec::Activation;

/// How a family stores gated delta nets.
#[derive(Clone, Copy, Debug)]
pub struct DeltaFamily {
    /// Names of tensors in Hugging Face checkpoints.
    pub names: DeltaNames,
    /// Names of tensors in GGUF.
    pub gguf_names: DeltaNames,
    /// Whether value heads of different key heads take turns in GGUF, as [`DeltaShape::tiled`](crate::DeltaShape::tiled) has it.
    pub gguf_tiled: bool,
    /// What the gate of outputs goes through.
    pub gate: Activation,
    /// Whether each row of a head's state has a decay of its own; sizes and layers are then said as Kimi Linear says them.
    pub each: bool,
}

impl DeltaFamily {
    /// What a family starts from.
    pub const PLAIN: Self = Self {
        names: DeltaNames::HUGGING_FACE,
        gguf_names: DeltaNames::GGUF,
        gguf_tiled: false,
        gate: Activation::Silu,
        each: false,
    };
}

/// Names of the tensors of gated delta nets, spelt as in [`Names`](crate::Names).
#[derive(Clone, Copy, Debug)]
pub struct DeltaNames {
    /// One matrix of all inputs: for each key head its queries, its keys, its value heads' values, and their gates.
    pub joined: &'static str,
    /// In place of `joined`: all queries, all keys, all values.
    pub qkv: &'static str,
    /// In place of `joined` and `qkv`: a matrix of each.
    pub apart: Option<[&'static str; 3]>,
    /// Matrix that compresses what gates are made of; empty: there is none.
    pub gate_down: &'static str,
    /// In place of `joined`: the gates of outputs.
    pub gate: &'static str,
    /// One matrix: for each key head the strengths of its value heads, and their decays.
    pub strengths: &'static str,
    /// In place of `strengths`: all strengths.
    pub strength: &'static str,
    /// Matrix that compresses what decays are made of; empty: there is none.
    pub decay_down: &'static str,
    /// In place of `strengths`: all decays.
    pub decay: &'static str,
    /// The convolution; `.weight` is appended. Where it is not in the checkpoint, `convolutions` are.
    pub convolution: &'static str,
    /// That of queries, of keys and of values.
    pub convolutions: [&'static str; 3],
    /// How fast value heads forget; the whole name, nothing is appended.
    pub rate: &'static str,
    /// Added to decays; the whole name, nothing is appended.
    pub decay_bias: &'static str,
    /// Norm of outputs; the whole name, nothing is appended.
    pub norm: &'static str,
    /// Matrix of outputs.
    pub o: &'static str,
}

impl DeltaNames {
    /// The names of Hugging Face checkpoints.
    pub const HUGGING_FACE: Self = Self {
        joined: "layers.{}.linear_attn.in_proj_qkvz",
        qkv: "layers.{}.linear_attn.in_proj_qkv",
        apart: None,
        gate_down: "",
        gate: "layers.{}.linear_attn.in_proj_z",
        strengths: "layers.{}.linear_attn.in_proj_ba",
        strength: "layers.{}.linear_attn.in_proj_b",
        decay_down: "",
        decay: "layers.{}.linear_attn.in_proj_a",
        convolution: "layers.{}.linear_attn.conv1d",
        convolutions: [""; 3],
        rate: "layers.{}.linear_attn.A_log",
        decay_bias: "layers.{}.linear_attn.dt_bias",
        norm: "layers.{}.linear_attn.norm.weight",
        o: "layers.{}.linear_attn.out_proj",
    };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        joined: "blk.{}.ssm_in",
        qkv: "blk.{}.attn_qkv",
        apart: None,
        gate_down: "",
        gate: "blk.{}.attn_gate",
        strengths: "blk.{}.ssm_ba",
        strength: "blk.{}.ssm_beta",
        decay_down: "",
        decay: "blk.{}.ssm_alpha",
        convolution: "blk.{}.ssm_conv1d",
        convolutions: [""; 3],
        rate: "blk.{}.ssm_a",
        decay_bias: "blk.{}.ssm_dt.bias",
        norm: "blk.{}.ssm_norm.weight",
        o: "blk.{}.ssm_out",
    };
}
