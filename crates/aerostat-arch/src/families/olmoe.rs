//! OLMoE: Llama with q and k normalised over all heads, and experts.

use crate::family::{Bias, Family, HeadNorms, Mixture, Switch, keys};

pub(crate) const FAMILY: Family = Family {
    name: "olmoe",
    architectures: &["OlmoeForCausalLM"],
    model_types: &["olmoe"],
    gguf: &["olmoe"],
    head_norms: HeadNorms::Row,
    clip_qkv: true,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, false),
        gguf_normalise: false,
        chosen: Some(8),
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
