//! The text tower of Qwen 3 VL: Qwen 3 with other defaults.

use super::qwen3;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    name: "qwen3_vl",
    architectures: &[],
    model_types: &["qwen3_vl_text"],
    gguf: &["qwen3vl"],
    ..qwen3::FAMILY
};
