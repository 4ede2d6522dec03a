//! Qwen 2 with experts, one of which all rows share, each as much of it as a gate says.

use super::qwen2;
use crate::family::{Bias, Family, Mixture, Switch, keys};

pub(crate) const FAMILY: Family = Family {
    name: "qwen2_moe",
    architectures: &["Qwen2MoeForCausalLM"],
    model_types: &["qwen2_moe"],
    gguf: &["qwen2moe"],
    qkv_bias: Bias::Key("qkv_bias", true),
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, false),
        gguf_normalise: false,
        chosen: Some(4),
        ..Mixture::PLAIN
    }),
    ..qwen2::FAMILY
};
