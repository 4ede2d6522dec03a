//! Jina embeddings 2: BERT with linear biases on both sides in place of positions, and a gate in its MLP.

use super::bert;
use crate::family::{AlibiRule, Bias, Encoder, Family, Names, Refused};

pub(crate) const FAMILY: Family = Family {
    name: "jina_v2",
    architectures: &["JinaBertModel", "JinaBertForMaskedLM"],
    model_types: &["jina_bert_v2"],
    gguf: &["jina-bert-v2"],
    refused: &[Refused::Flag("is_decoder", true)],
    names: Names {
        gate_up: Some("encoder.layer.{}.mlp.gated_layers"),
        down: "encoder.layer.{}.mlp.wo",
        mlp_norm: "encoder.layer.{}.mlp.layernorm",
        ..bert::FAMILY.names
    },
    gated: true,
    activation_key: "feed_forward_type",
    mlp_bias: Bias::Never,
    positions: None,
    alibi: AlibiRule::Always,
    encoder: Some(Encoder { types: "embeddings.token_type_embeddings", down_bias: true, ..Encoder::PLAIN }),
    ..bert::FAMILY
};
