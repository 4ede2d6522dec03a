//! OPT: learned positions, layer norms (of the 350M after sums), biases, an MLP with ReLU.

use crate::family::{Bias, Family, Names, Rotated, StreamNorms};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "opt",
    architectures: &["OPTForCausalLM"],
    model_types: &["opt"],
    names: Names {
        final_norm: "final_layer_norm",
        attention_norm: "layers.{}.self_attn_layer_norm",
        o: "layers.{}.self_attn.out_proj",
        mlp_norm: "layers.{}.final_layer_norm",
        up: "layers.{}.fc1",
        down: "layers.{}.fc2",
        ..Names::HUGGING_FACE
    },
    rotated: Rotated::None,
    norm: NormKind::Layer,
    eps: Some(1e-5),
    norm_weights: Bias::Key("layer_norm_elementwise_affine", true),
    norm_bias: Bias::Key("layer_norm_elementwise_affine", true),
    // The 350M alone normalises sums and projects its embeddings.
    stream_norms: StreamNorms::SumsUnless("do_layer_norm_before"),
    no_final_norm: "_remove_final_layer_norm",
    projections: Some(("project_in", "project_out")),
    gated: false,
    activation: Activation::Relu,
    activation_key: "activation_function",
    qkv_bias: Bias::Key("enable_bias", true),
    output_bias: Bias::Key("enable_bias", true),
    mlp_bias: Bias::Key("enable_bias", true),
    positions: Some(2),
    ..Family::PLAIN
};
