//! Youtu-LLM: DeepSeek V3 without experts.

use super::deepseek_v3;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    name: "youtu",
    architectures: &["YoutuForCausalLM"],
    model_types: &["youtu"],
    mixture: None,
    ..deepseek_v3::FAMILY
};
