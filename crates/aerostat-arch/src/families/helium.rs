//! Helium 1: Llama in which neighbours are rotated.

use crate::family::{Bias, Defaults, Family};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "helium",
    architectures: &["HeliumForCausalLM"],
    model_types: &["helium"],
    rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    defaults: Defaults {
        kv_heads: Some(20),
        head_dim: Some(128),
        rope_theta: 100_000.0,
        context: 4096,
        eps: 1e-8,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
