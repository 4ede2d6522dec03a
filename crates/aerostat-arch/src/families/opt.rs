//! OPT: learned positions, layer norms, biases, an MLP with ReLU.

use crate::family::{Bias, Defaults, Family, Names, Refused, Rotated};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "opt",
    architectures: &["OPTForCausalLM"],
    model_types: &["opt"],
    // The 350M alone normalises sums and projects its embeddings.
    refused: &[
        Refused::Flag("do_layer_norm_before", false),
        Refused::Flag("_remove_final_layer_norm", true),
        Refused::Flag("layer_norm_elementwise_affine", false),
        Refused::Unequal("word_embed_proj_dim", "hidden_size"),
    ],
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
    norm_bias: Bias::Always,
    gated: false,
    activation: Activation::Relu,
    activation_key: "activation_function",
    qkv_bias: Bias::Key("enable_bias", true),
    output_bias: Bias::Key("enable_bias", true),
    mlp_bias: Bias::Key("enable_bias", true),
    positions: Some(2),
    defaults: Defaults { tied: true, eps: 1e-5, ..Family::PLAIN.defaults },
    ..Family::PLAIN
};
