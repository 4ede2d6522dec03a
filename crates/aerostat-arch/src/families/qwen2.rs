//! Qwen 1.5, 2 and 2.5: biases on q, k and v.

use crate::family::{Bias, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "qwen2",
    architectures: &["Qwen2ForCausalLM"],
    model_types: &["qwen2"],
    gguf: &["qwen2"],
    qkv_bias: Bias::Always,
    windows: Windows::FromLayer,
    ..Family::PLAIN
};
