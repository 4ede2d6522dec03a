//! StarCoder 2: layer norms, biases everywhere, an MLP without a gate.

use crate::family::{Bias, Family, Names, Windows};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "starcoder2",
    architectures: &["Starcoder2ForCausalLM"],
    model_types: &["starcoder2"],
    gguf: &["starcoder2"],
    names: Names { up: "layers.{}.mlp.c_fc", down: "layers.{}.mlp.c_proj", ..Names::HUGGING_FACE },
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    gated: false,
    activation: Activation::GeluTanh,
    qkv_bias: Bias::Key("use_bias", true),
    output_bias: Bias::Key("use_bias", true),
    mlp_bias: Bias::Key("use_bias", true),
    windows: Windows::All,
    ..Family::PLAIN
};
