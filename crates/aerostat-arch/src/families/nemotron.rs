//! Nemotron and Minitron: layer norms stored less one, an MLP of squared ReLU without a gate.

use crate::family::{Bias, Family};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "nemotron",
    architectures: &["NemotronForCausalLM"],
    model_types: &["nemotron"],
    gguf: &["nemotron"],
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    norm_offset: 1.0,
    gated: false,
    activation: Activation::ReluSquared,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    ..Family::PLAIN
};
