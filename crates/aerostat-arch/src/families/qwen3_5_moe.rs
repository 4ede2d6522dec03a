//! Qwen 3.5 with experts, one of which all rows share.

use super::qwen3_5;
use crate::family::{Family, Mixture, Switch};

pub(crate) const FAMILY: Family = Family {
    name: "qwen3_5_moe",
    architectures: &["Qwen3_5MoeForCausalLM"],
    model_types: &["qwen3_5_moe_text"],
    gguf: &["qwen35moe"],
    mixture: Some(Mixture { normalise: Switch::Always, chosen: Some(8), ..Mixture::PLAIN }),
    ..qwen3_5::FAMILY
};
