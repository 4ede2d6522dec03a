//! GTE: BERT that rotates, with a gate in its MLP.

use super::bert;
use crate::family::{Bias, Encoder, Family, Fused, Names, Refused, Rotated};

pub(crate) const FAMILY: Family = Family {
    name: "gte",
    architectures: &["GteModel", "GteForSequenceClassification", "NewModel", "NewForSequenceClassification"],
    model_types: &["gte", "new"],
    gguf: &[],
    refused: &[Refused::Flag("logn_attention_scale", true)],
    names: Names {
        attention_norm: "encoder.layer.{}.attn_ln",
        qkv: Some(("encoder.layer.{}.attention.qkv_proj", Fused::Stacked)),
        q: "encoder.layer.{}.attention.q_proj",
        k: "encoder.layer.{}.attention.k_proj",
        v: "encoder.layer.{}.attention.v_proj",
        o: "encoder.layer.{}.attention.o_proj",
        mlp_norm: "encoder.layer.{}.mlp_ln",
        gate: "encoder.layer.{}.mlp.gate_proj",
        up: "encoder.layer.{}.mlp.up_proj",
        gate_up: Some("encoder.layer.{}.mlp.up_gate_proj"),
        down: "encoder.layer.{}.mlp.down_proj",
        ..bert::FAMILY.names
    },
    rotated: Rotated::All,
    gated: true,
    mlp_bias: Bias::Never,
    positions: None,
    encoder: Some(Encoder {
        types: "embeddings.token_type_embeddings",
        down_bias: true,
        up_first: true,
        ..Encoder::PLAIN
    }),
    ..bert::FAMILY
};
