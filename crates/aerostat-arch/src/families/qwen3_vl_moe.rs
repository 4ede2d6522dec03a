//! The text tower of Qwen 3 VL with experts: Qwen 3 with experts that as released are stored by inputs.

use super::qwen3_moe;
use crate::family::{Family, Mixture, Switch};
use crate::spec::Joined;

pub(crate) const FAMILY: Family = Family {
    name: "qwen3_vl_moe",
    architectures: &[],
    model_types: &["qwen3_vl_moe_text"],
    gguf: &[],
    mixture: Some(Mixture {
        normalise: Switch::Always,
        chosen: Some(4),
        k_major: Some(Joined::Halves),
        k_major_by_shape: true,
        ..Mixture::PLAIN
    }),
    ..qwen3_moe::FAMILY
};
