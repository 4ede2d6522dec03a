//! Solar Open: GLM-4.5 with whole heads rotated and no dense layers.

use super::glm4_moe;
use crate::family::{Defaults, Family, HeadNorms};

pub(crate) const FAMILY: Family = Family {
    name: "solar_open",
    architectures: &["SolarOpenForCausalLM"],
    model_types: &["solar_open"],
    gguf: &[],
    head_norms: HeadNorms::Never,
    defaults: Defaults {
        head_dim: Some(128),
        rope_theta: 1_000_000.0,
        rotary: 1.0,
        ..glm4_moe::FAMILY.defaults
    },
    ..glm4_moe::FAMILY
};
