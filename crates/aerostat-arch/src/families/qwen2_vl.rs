//! The text tower of Qwen 2 and 2.5 VL: Qwen 2 with other defaults.

use super::qwen2;
use crate::family::{Defaults, Family};

pub(crate) const FAMILY: Family = Family {
    name: "qwen2_vl",
    architectures: &[],
    model_types: &["qwen2_vl_text", "qwen2_5_vl_text"],
    gguf: &["qwen2vl"],
    defaults: Defaults {
        kv_heads: Some(8),
        sizes: Some([8192, 29_568, 80, 64]),
        rope_theta: 1_000_000.0,
        eps: 1e-5,
        ..qwen2::FAMILY.defaults
    },
    ..qwen2::FAMILY
};
