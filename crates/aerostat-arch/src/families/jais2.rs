//! Jais 2: Llama with layer norms, biases everywhere, an MLP of squared ReLU without a gate.

use super::llama;
use crate::family::{Bias, Family};
use crate::spec::{Activation, NormKind, RopeStyle};

pub(crate) const FAMILY: Family = Family {
    name: "jais2",
    architectures: &["Jais2ForCausalLM"],
    model_types: &["jais2"],
    gguf: &["jais2"],
    gguf_rope: RopeStyle::Half,
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    gated: false,
    activation: Activation::ReluSquared,
    qkv_bias: Bias::Key("attention_bias", true),
    output_bias: Bias::Key("attention_bias", true),
    mlp_bias: Bias::Key("mlp_bias", true),
    mixture: None,
    ..llama::FAMILY
};
