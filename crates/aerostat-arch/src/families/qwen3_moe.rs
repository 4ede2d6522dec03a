//! Qwen 3 with experts.

use super::qwen3;
use crate::family::{Family, Mixture, Switch, Windows, keys};

pub(crate) const FAMILY: Family = Family {
    name: "qwen3_moe",
    architectures: &["Qwen3MoeForCausalLM"],
    model_types: &["qwen3_moe"],
    gguf: &["qwen3moe", "qwen3vlmoe"],
    windows: Windows::AllIfUsed,
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, false),
        chosen: Some(8),
        ..Mixture::PLAIN
    }),
    ..qwen3::FAMILY
};
