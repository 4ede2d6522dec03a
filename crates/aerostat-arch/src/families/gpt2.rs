//! GPT-2: layer norms, learned positions, biases everywhere.

use crate::family::{Bias, Family, Fused, Names, Rotated};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "gpt2",
    architectures: &["GPT2LMHeadModel"],
    model_types: &["gpt2"],
    gguf: &["gpt2"],
    names: Names {
        embedding: "wte",
        positions: "wpe",
        final_norm: "ln_f",
        attention_norm: "h.{}.ln_1",
        qkv: Some(("h.{}.attn.c_attn", Fused::Stacked)),
        o: "h.{}.attn.c_proj",
        mlp_norm: "h.{}.ln_2",
        up: "h.{}.mlp.c_fc",
        down: "h.{}.mlp.c_proj",
        ..Names::HUGGING_FACE
    },
    by_inputs: true,
    rotated: Rotated::None,
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    gated: false,
    activation: Activation::GeluTanh,
    activation_key: "activation_function",
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    mlp_bias: Bias::Always,
    positions: Some(0),
    score_switches: true,
    ..Family::PLAIN
};
