//! InternLM 3: Llama with its own switch for the biases of q, k and v. Its GGUF files call themselves "llama".

use crate::family::{Bias, Family};

pub(crate) const FAMILY: Family = Family {
    name: "internlm3",
    architectures: &["InternLM3ForCausalLM"],
    model_types: &["internlm3"],
    qkv_bias: Bias::Key("qkv_bias|attention_bias", false),
    output_bias: Bias::Key("bias|attention_bias", false),
    mlp_bias: Bias::Key("bias|mlp_bias", false),
    ..Family::PLAIN
};
