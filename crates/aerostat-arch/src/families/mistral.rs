//! Mistral: Llama with a sliding window. Its GGUF files call themselves "llama".

use crate::family::{Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "mistral",
    architectures: &["MistralForCausalLM"],
    model_types: &["mistral"],
    windows: Windows::All,
    ..Family::PLAIN
};
