//! The text tower of Qwen 3 VL: Qwen 3 with other defaults.

use super::qwen3;
use crate::family::{Defaults, Family};

pub(crate) const FAMILY: Family = Family {
    name: "qwen3_vl",
    architectures: &[],
    model_types: &["qwen3_vl_text"],
    gguf: &["qwen3vl"],
    defaults: Defaults { rope_theta: 500_000.0, ..qwen3::FAMILY.defaults },
    ..qwen3::FAMILY
};
