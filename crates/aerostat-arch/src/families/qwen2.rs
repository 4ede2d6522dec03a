//! Qwen 1.5, 2 and 2.5: biases on q, k and v.

use crate::family::{Bias, Defaults, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "qwen2",
    architectures: &["Qwen2ForCausalLM"],
    model_types: &["qwen2"],
    gguf: &["qwen2"],
    qkv_bias: Bias::Always,
    windows: Windows::FromLayer,
    defaults: Defaults {
        kv_heads: Some(32),
        sizes: Some([4096, 22_016, 32, 32]),
        window: Some(4096),
        context: 32_768,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
