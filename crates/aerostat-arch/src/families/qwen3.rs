//! Qwen 3: q and k are normalised per head.

use crate::family::{Bias, Family, HeadNorms, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "qwen3",
    architectures: &["Qwen3ForCausalLM"],
    model_types: &["qwen3"],
    gguf: &["qwen3"],
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    head_norms: HeadNorms::Shared,
    windows: Windows::FromLayer,
    ..Family::PLAIN
};
