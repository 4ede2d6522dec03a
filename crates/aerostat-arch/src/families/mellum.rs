//! Mellum 2: Qwen 3 with experts, and a rotation of its own for layers with a window.

use super::qwen3_moe;
use crate::family::{Family, Mixture, Switch, Windows, keys};

pub(crate) const FAMILY: Family = Family {
    name: "mellum",
    architectures: &["MellumForCausalLM"],
    model_types: &["mellum"],
    gguf: &[],
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        chosen: Some(8),
        ..Mixture::PLAIN
    }),
    windows: Windows::FromLayer,
    local_rope_theta: Some(10_000.0),
    ..qwen3_moe::FAMILY
};
