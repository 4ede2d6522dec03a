//! IQuest-Coder: Llama with other defaults.

use super::llama;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    name: "iquestcoder",
    architectures: &["IQuestCoderForCausalLM"],
    model_types: &["iquestcoder"],
    gguf: &[],
    mixture: None,
    ..llama::FAMILY
};
