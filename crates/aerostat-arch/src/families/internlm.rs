//! InternLM 1: Llama with a switch for the biases of attention.

use crate::family::{Bias, Family};

pub(crate) const FAMILY: Family = Family {
    name: "internlm",
    architectures: &["InternLMForCausalLM"],
    model_types: &["internlm"],
    qkv_bias: Bias::Key("bias", true),
    output_bias: Bias::Key("bias", true),
    ..Family::PLAIN
};
