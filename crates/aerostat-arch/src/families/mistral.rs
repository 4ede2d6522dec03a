//! Mistral: Llama with a sliding window. Its GGUF files call themselves "llama".

use crate::family::{Defaults, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "mistral",
    architectures: &["MistralForCausalLM"],
    model_types: &["mistral"],
    windows: Windows::All,
    defaults: Defaults {
        kv_heads: Some(8),
        window: Some(4096),
        sizes: Some([4096, 14_336, 32, 32]),
        context: 131_072,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
