//! BERT: sums are normalised, positions are learned, and all tokens of a text see each other.

use crate::family::{Bias, Encoder, Family, Names, Refused, Rotated, StreamNorms};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "bert",
    architectures: &["BertModel", "BertForMaskedLM", "BertForSequenceClassification"],
    model_types: &["bert", "ernie"],
    gguf: &["bert"],
    refused: &[Refused::Flag("is_decoder", true), Refused::Flag("use_task_id", true)],
    names: Names {
        embedding: "embeddings.word_embeddings",
        positions: "embeddings.position_embeddings",
        embedding_norm: "embeddings.LayerNorm",
        attention_norm: "encoder.layer.{}.attention.output.LayerNorm",
        q: "encoder.layer.{}.attention.self.query",
        k: "encoder.layer.{}.attention.self.key",
        v: "encoder.layer.{}.attention.self.value",
        o: "encoder.layer.{}.attention.output.dense",
        mlp_norm: "encoder.layer.{}.output.LayerNorm",
        up: "encoder.layer.{}.intermediate.dense",
        down: "encoder.layer.{}.output.dense",
        ..Names::HUGGING_FACE
    },
    gguf_names: Names {
        attention_norm: "blk.{}.attn_output_norm",
        mlp_norm: "blk.{}.layer_output_norm",
        ..Names::GGUF
    },
    rotated: Rotated::None,
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    stream_norms: StreamNorms::Sums,
    embedding_norm: true,
    gated: false,
    activation: Activation::GeluErf,
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    mlp_bias: Bias::Always,
    positions: Some(0),
    encoder: Some(Encoder { types: "embeddings.token_type_embeddings", ..Encoder::PLAIN }),
    ..Family::PLAIN
};
