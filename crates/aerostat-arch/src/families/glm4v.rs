//! The text tower of GLM-4.1V: GLM-4 0414.

use super::glm4;
use crate::family::{Bias, Defaults, Family};

pub(crate) const FAMILY: Family = Family {
    name: "glm4v",
    architectures: &[],
    model_types: &["glm4v_text"],
    gguf: &[],
    qkv_bias: Bias::Always,
    defaults: Defaults { head_dim: None, rotary: 1.0, context: 32_768, eps: 1e-5, ..glm4::FAMILY.defaults },
    ..glm4::FAMILY
};
