//! Youtu-LLM: DeepSeek V3 without experts.

use super::deepseek_v3;
use crate::family::{Defaults, Family};

pub(crate) const FAMILY: Family = Family {
    name: "youtu",
    architectures: &["YoutuForCausalLM"],
    model_types: &["youtu"],
    mixture: None,
    defaults: Defaults { tied: true, context: 131_072, ..deepseek_v3::FAMILY.defaults },
    ..deepseek_v3::FAMILY
};
