//! The text tower of GLM-4.1V: GLM-4 0414.

use super::glm4;
use crate::family::{Bias, Family};

pub(crate) const FAMILY: Family = Family {
    name: "glm4v",
    architectures: &[],
    model_types: &["glm4v_text"],
    gguf: &[],
    qkv_bias: Bias::Always,
    ..glm4::FAMILY
};
