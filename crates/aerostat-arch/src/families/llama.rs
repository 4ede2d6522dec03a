//! Llama 1, 2, 3 and the many models built like them.

use crate::family::{Bias, Family, Mixture};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "llama",
    architectures: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    model_types: &["llama"],
    gguf: &["llama"],
    // Rows of q and k are stored so that neighbours are rotated together.
    gguf_rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    // Mixtral calls itself "llama" in GGUF.
    mixture: Some(Mixture::PLAIN),
    ..Family::PLAIN
};
