//! GLM-4 9B as transformers names it: half of each head is rotated, by neighbours; gate and up in one tensor.

use crate::family::{Bias, Family, Names};
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
    ..Family::PLAIN
};
