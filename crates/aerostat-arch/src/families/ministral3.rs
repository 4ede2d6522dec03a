//! Ministral 3: Mistral with YaRN, queries scaled by their position.

use super::mistral;
use crate::family::{Defaults, Family, Temperature};

pub(crate) const FAMILY: Family = Family {
    name: "ministral3",
    architectures: &["Ministral3ForCausalLM"],
    model_types: &["ministral3"],
    temperature: Temperature::AllLayers,
    defaults: Defaults {
        head_dim: Some(128),
        rope_theta: 1_000_000.0,
        window: None,
        context: 262_144,
        eps: 1e-5,
        ..mistral::FAMILY.defaults
    },
    ..mistral::FAMILY
};
