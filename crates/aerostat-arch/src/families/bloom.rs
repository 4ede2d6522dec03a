//! BLOOM: ALiBi, layer norms, one of them on the embeddings, biases everywhere.

use crate::family::{AlibiRule, Bias, Family, Fused, Names, Rotated, StreamNorms};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "bloom",
    architectures: &["BloomForCausalLM"],
    model_types: &["bloom"],
    gguf: &["bloom"],
    names: Names {
        embedding: "word_embeddings",
        embedding_norm: "word_embeddings_layernorm",
        final_norm: "ln_f",
        attention_norm: "h.{}.input_layernorm",
        qkv: Some(("h.{}.self_attention.query_key_value", Fused::ByKvHead)),
        o: "h.{}.self_attention.dense",
        mlp_norm: "h.{}.post_attention_layernorm",
        up: "h.{}.mlp.dense_h_to_4h",
        down: "h.{}.mlp.dense_4h_to_h",
        ..Names::HUGGING_FACE
    },
    rotated: Rotated::None,
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    stream_norms: StreamNorms::ReplacedIf("apply_residual_connection_post_layernorm"),
    embedding_norm: true,
    gated: false,
    activation: Activation::GeluTanh,
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    mlp_bias: Bias::Always,
    alibi: AlibiRule::Always,
    ..Family::PLAIN
};
