//! GLM-4.7 Flash: DeepSeek V3 with other defaults.

use super::deepseek_v3;
use crate::family::{Factor, Family, Mixture, Switch, keys};
use crate::spec::Score;

pub(crate) const FAMILY: Family = Family {
    name: "glm4_moe_lite",
    architectures: &["Glm4MoeLiteForCausalLM"],
    model_types: &["glm4_moe_lite"],
    mixture: Some(Mixture {
        score: Score::Sigmoid,
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        normalise_guard: (1e-20, 0.0),
        scale: Factor::Key(&keys::EXPERT_SCALE, 1.8),
        chosen: Some(4),
        groups: Some((2, false)),
        ..Mixture::PLAIN
    }),
    ..deepseek_v3::FAMILY
};
