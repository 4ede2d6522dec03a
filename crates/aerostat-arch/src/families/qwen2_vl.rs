//! The text tower of Qwen 2 and 2.5 VL: Qwen 2 with a base of rotation of its own.

use super::qwen2;
use crate::family::{Defaults, Family};

pub(crate) const FAMILY: Family = Family {
    name: "qwen2_vl",
    architectures: &[],
    model_types: &["qwen2_vl_text", "qwen2_5_vl_text"],
    gguf: &["qwen2vl"],
    defaults: Defaults { rope_theta: 1_000_000.0, ..qwen2::FAMILY.defaults },
    ..qwen2::FAMILY
};
