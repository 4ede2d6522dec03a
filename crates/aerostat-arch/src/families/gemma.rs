//! Gemma 1: GeGLU, scaled embeddings, norm weights stored less one.

use crate::family::{Bias, Factor, Family};
use crate::spec::Activation;

pub(crate) const FAMILY: Family = Family {
    name: "gemma",
    architectures: &["GemmaForCausalLM"],
    model_types: &["gemma"],
    gguf: &["gemma"],
    norm_offset: 1.0,
    embedding_scale: Factor::RootOfHidden,
    activation: Activation::GeluTanh,
    gelu_means_tanh: true,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    ..Family::PLAIN
};
