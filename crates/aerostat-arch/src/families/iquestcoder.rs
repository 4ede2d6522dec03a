//! IQuest-Coder: Llama with other defaults.

use super::llama;
use crate::family::{Defaults, Family};

pub(crate) const FAMILY: Family = Family {
    name: "iquestcoder",
    architectures: &["IQuestCoderForCausalLM"],
    model_types: &["iquestcoder"],
    gguf: &[],
    mixture: None,
    defaults: Defaults {
        kv_heads: Some(8),
        head_dim: Some(128),
        context: 131_072,
        eps: 1e-5,
        ..llama::FAMILY.defaults
    },
    ..llama::FAMILY
};
