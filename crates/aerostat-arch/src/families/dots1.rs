//! dots.llm1: Qwen 3 with experts as in DeepSeek V3.

use super::{glm4_moe, qwen3};
use crate::family::{Family, Mixture, Switch, keys};

pub(crate) const FAMILY: Family = Family {
    name: "dots1",
    architectures: &["Dots1ForCausalLM"],
    model_types: &["dots1"],
    gguf: &["dots1"],
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, false),
        chosen: None,
        ..glm4_moe::MIXTURE
    }),
    ..qwen3::FAMILY
};
