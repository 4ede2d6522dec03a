//! GPT-2, from GGUF: layer norms, learned positions, biases everywhere.

use crate::family::{Bias, Defaults, Family, Refused, Rotated};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "gpt2",
    architectures: &["GPT2LMHeadModel"],
    model_types: &["gpt2"],
    gguf: &["gpt2"],
    refused: &[Refused::HuggingFace(
        "weights are stored transposed, inputs by outputs, which cannot be streamed by rows; \
         use a GGUF file of the model",
    )],
    rotated: Rotated::None,
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    gated: false,
    activation: Activation::GeluTanh,
    activation_key: "activation_function",
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    mlp_bias: Bias::Always,
    positions: Some(0),
    defaults: Defaults { tied: true, eps: 1e-5, ..Family::PLAIN.defaults },
    ..Family::PLAIN
};
