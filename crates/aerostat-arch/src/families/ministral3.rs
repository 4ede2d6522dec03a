//! Ministral 3: Mistral with YaRN, queries scaled by their position.

use super::mistral;
use crate::family::{Family, Temperature};

pub(crate) const FAMILY: Family = Family {
    name: "ministral3",
    architectures: &["Ministral3ForCausalLM"],
    model_types: &["ministral3"],
    temperature: Temperature::AllLayers,
    ..mistral::FAMILY
};
