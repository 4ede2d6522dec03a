//! Mistral 4: DeepSeek V3 with queries scaled by their position, groups of experts opened by softmax.

use super::deepseek_v3;
use crate::family::{Factor, Family, Mixture, Switch, Temperature, keys};

pub(crate) const FAMILY: Family = Family {
    name: "mistral4",
    architectures: &["Mistral4ForCausalLM"],
    model_types: &["mistral4"],
    temperature: Temperature::AllLayers,
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        normalise_guard: (1e-20, 0.0),
        scale: Factor::Key(&keys::EXPERT_SCALE, 1.0),
        chosen: Some(4),
        groups: Some((2, true)),
        ..Mixture::PLAIN
    }),
    ..deepseek_v3::FAMILY
};
