//! FlexOlmo: OLMo 2 with experts.

use super::olmo2;
use crate::family::{Defaults, Family, Mixture, Switch, keys};

pub(crate) const FAMILY: Family = Family {
    name: "flex_olmo",
    architectures: &["FlexOlmoForCausalLM"],
    model_types: &["flex_olmo"],
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, false),
        chosen: Some(5),
        ..Mixture::PLAIN
    }),
    defaults: Defaults { rope_theta: 500_000.0, context: 4096, eps: 1e-6, ..olmo2::FAMILY.defaults },
    ..olmo2::FAMILY
};
