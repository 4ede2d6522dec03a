//! GLM-4 9B as transformers names it: half of each head is rotated, by neighbours; gate and up in one tensor.

use crate::family::{Bias, Defaults, Family, Names};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "glm",
    architectures: &["GlmForCausalLM"],
    model_types: &["glm"],
    gguf: &["chatglm"],
    names: Names { gate_up: Some("layers.{}.mlp.gate_up_proj"), ..Names::HUGGING_FACE },
    rope: RopeStyle::Interleaved,
    gguf_rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Key("attention_bias", true),
    defaults: Defaults {
        kv_heads: Some(2),
        head_dim: Some(128),
        rotary: 0.5,
        context: 131_072,
        eps: 1.5625e-7,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
