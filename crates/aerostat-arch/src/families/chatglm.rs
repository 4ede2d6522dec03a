//! ChatGLM 2, 3 and GLM-4 9B as first released: GLM under older names.

use super::glm;
use crate::family::{Bias, Family, Fused, Names, Refused};

pub(crate) const FAMILY: Family = Family {
    name: "chatglm",
    architectures: &["ChatGLMModel"],
    model_types: &["chatglm"],
    gguf: &[],
    refused: &[
        Refused::Flag("multi_query_attention", false),
        Refused::Flag("rmsnorm", false),
        Refused::Flag("post_layer_norm", false),
        Refused::Flag("add_bias_linear", true),
        Refused::Flag("apply_residual_connection_post_layernorm", true),
    ],
    names: Names {
        embedding: "embedding.word_embeddings",
        final_norm: "encoder.final_layernorm",
        head: "transformer.output_layer",
        attention_norm: "encoder.layers.{}.input_layernorm",
        qkv: Some(("encoder.layers.{}.self_attention.query_key_value", Fused::Stacked)),
        o: "encoder.layers.{}.self_attention.dense",
        mlp_norm: "encoder.layers.{}.post_attention_layernorm",
        gate_up: Some("encoder.layers.{}.mlp.dense_h_to_4h"),
        down: "encoder.layers.{}.mlp.dense_4h_to_h",
        ..Names::HUGGING_FACE
    },
    qkv_bias: Bias::Key("add_qkv_bias", false),
    ..glm::FAMILY
};
