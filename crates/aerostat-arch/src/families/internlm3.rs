//! InternLM 3: Llama with its own switch for the biases of q, k and v. Its GGUF files call themselves "llama".

use crate::family::{Bias, Defaults, Family};

pub(crate) const FAMILY: Family = Family {
    name: "internlm3",
    architectures: &["InternLM3ForCausalLM"],
    model_types: &["internlm3"],
    qkv_bias: Bias::Key("qkv_bias|attention_bias", false),
    output_bias: Bias::Key("bias|attention_bias", false),
    mlp_bias: Bias::Key("bias|mlp_bias", false),
    defaults: Defaults {
        kv_heads: Some(2),
        head_dim: Some(128),
        context: 32_768,
        eps: 1e-5,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
