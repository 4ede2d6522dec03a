//! Ministral: Mistral with a window on some layers.

use super::mistral;
use crate::family::{Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "ministral",
    architectures: &["MinistralForCausalLM"],
    model_types: &["ministral"],
    windows: Windows::AllButEvery(usize::MAX),
    ..mistral::FAMILY
};
