//! OLMo 1: Llama with layer norms that have no weights.

use crate::family::{Bias, Family};
use crate::spec::{NormKind, RopeStyle};

pub(crate) const FAMILY: Family = Family {
    name: "olmo",
    architectures: &["OlmoForCausalLM"],
    model_types: &["olmo"],
    gguf: &["olmo"],
    gguf_rope: RopeStyle::Interleaved,
    norm: NormKind::Layer,
    norm_weights: Bias::Never,
    eps: Some(1e-5),
    clip_qkv: true,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    ..Family::PLAIN
};
