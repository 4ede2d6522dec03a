//! Qwen 3: q and k are normalised per head.

use crate::family::{Bias, Defaults, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "qwen3",
    architectures: &["Qwen3ForCausalLM"],
    model_types: &["qwen3"],
    gguf: &["qwen3"],
    qkv_bias: Bias::Key("attention_bias"),
    output_bias: Bias::Key("attention_bias"),
    head_norms: true,
    windows: Windows::FromLayer,
    defaults: Defaults {
        kv_heads: Some(32),
        head_dim: Some(128),
        window: Some(4096),
        context: 32_768,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
