//! The text tower of Qwen 2 and 2.5 VL: Qwen 2 with other defaults.

use super::qwen2;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    name: "qwen2_vl",
    architectures: &[],
    model_types: &["qwen2_vl_text", "qwen2_5_vl_text"],
    gguf: &["qwen2vl"],
    ..qwen2::FAMILY
};
