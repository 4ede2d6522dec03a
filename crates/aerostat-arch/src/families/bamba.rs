//! Bamba: state spaces, on some layers attention of which half is rotated, and an MLP after each.

use crate::family::{Bias, Family, Mixers, Names, SpaceFamily};

pub(crate) const FAMILY: Family = Family {
    name: "bamba",
    architectures: &["BambaForCausalLM"],
    model_types: &["bamba"],
    names: Names {
        final_norm: "final_layernorm",
        mlp_norm: "layers.{}.pre_ff_layernorm",
        gate: "layers.{}.feed_forward.gate_proj",
        up: "layers.{}.feed_forward.up_proj",
        down: "layers.{}.feed_forward.down_proj",
        ..Names::HUGGING_FACE
    },
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    mixers: Mixers::Listed(&[]),
    space: Some(SpaceFamily::PLAIN),
    ..Family::PLAIN
};
