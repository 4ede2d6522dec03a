//! The text tower of GLM-4.5V and 4.6V: GLM-4.5 without norms of heads.

use super::glm4_moe;
use crate::family::{Bias, Family, HeadNorms};

pub(crate) const FAMILY: Family = Family {
    name: "glm4v_moe",
    architectures: &[],
    model_types: &["glm4v_moe_text"],
    gguf: &[],
    head_norms: HeadNorms::Never,
    qkv_bias: Bias::Key("attention_bias", true),
    ..glm4_moe::FAMILY
};
