//! Qwen 1: q, k and v in one tensor, an MLP half as wide as is said; longer texts stretch rotations and scale queries.

use crate::family::{Bias, Family, Fused, Names, Temperature};

pub(crate) const FAMILY: Family = Family {
    name: "qwen",
    architectures: &["QWenLMHeadModel"],
    model_types: &["qwen"],
    gguf: &["qwen"],
    names: Names {
        embedding: "wte",
        final_norm: "ln_f",
        attention_norm: "h.{}.ln_1",
        qkv: Some(("h.{}.attn.c_attn", Fused::Stacked)),
        o: "h.{}.attn.c_proj",
        mlp_norm: "h.{}.ln_2",
        gate: "h.{}.mlp.w2",
        up: "h.{}.mlp.w1",
        down: "h.{}.mlp.c_proj",
        ..Names::HUGGING_FACE
    },
    qkv_bias: Bias::Always,
    halved_width: true,
    temperature: Temperature::Logarithm,
    ..Family::PLAIN
};
