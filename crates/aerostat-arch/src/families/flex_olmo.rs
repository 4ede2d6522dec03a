//! FlexOlmo: OLMo 2 with experts.

use super::olmo2;
use crate::family::{Family, Mixture, Switch, keys};

pub(crate) const FAMILY: Family = Family {
    name: "flex_olmo",
    architectures: &["FlexOlmoForCausalLM"],
    model_types: &["flex_olmo"],
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, false),
        chosen: Some(5),
        ..Mixture::PLAIN
    }),
    ..olmo2::FAMILY
};
