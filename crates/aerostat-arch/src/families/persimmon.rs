//! Persimmon: layer norms, heads normalised too, half of each rotated, an MLP of squared ReLU without a gate.

use crate::family::{Bias, Family, Fused, HeadNorms, Names};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "persimmon",
    architectures: &["PersimmonForCausalLM"],
    model_types: &["persimmon"],
    names: Names {
        final_norm: "final_layernorm",
        qkv: Some(("layers.{}.self_attn.query_key_value", Fused::ByKvHead)),
        o: "layers.{}.self_attn.dense",
        q_norm: "layers.{}.self_attn.q_layernorm",
        k_norm: "layers.{}.self_attn.k_layernorm",
        up: "layers.{}.mlp.dense_h_to_4h",
        down: "layers.{}.mlp.dense_4h_to_h",
        ..Names::HUGGING_FACE
    },
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    head_norms: HeadNorms::SharedIf("qk_layernorm"),
    gated: false,
    activation: Activation::ReluSquared,
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    mlp_bias: Bias::Always,
    ..Family::PLAIN
};
