//! Solar Open: GLM-4.5 with whole heads rotated and no dense layers.

use super::glm4_moe;
use crate::family::{Family, HeadNorms};

pub(crate) const FAMILY: Family = Family {
    name: "solar_open",
    architectures: &["SolarOpenForCausalLM"],
    model_types: &["solar_open"],
    gguf: &[],
    head_norms: HeadNorms::Never,
    ..glm4_moe::FAMILY
};
