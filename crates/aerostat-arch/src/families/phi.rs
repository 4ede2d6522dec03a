//! Phi 1, 1.5 and 2: a parallel block with one layer norm, biases everywhere, an MLP without a gate.

use crate::family::{Bias, Family, HeadNorms, Names, Switch};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "phi",
    architectures: &["PhiForCausalLM"],
    model_types: &["phi"],
    gguf: &["phi2"],
    names: Names {
        final_norm: "final_layernorm",
        o: "layers.{}.self_attn.dense",
        q_norm: "layers.{}.self_attn.q_layernorm",
        k_norm: "layers.{}.self_attn.k_layernorm",
        up: "layers.{}.mlp.fc1",
        down: "layers.{}.mlp.fc2",
        // Its block has no second norm.
        mlp_norm: "",
        ..Names::HUGGING_FACE
    },
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    head_norms: HeadNorms::SharedIf("qk_layernorm"),
    parallel: Switch::Always,
    gated: false,
    activation: Activation::GeluTanh,
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    mlp_bias: Bias::Always,
    head_bias: Bias::Always,
    ..Family::PLAIN
};
