//! Jina embeddings 3: XLM-RoBERTa that rotates.

use super::bert;
use crate::family::{Family, Fused, Names, Rotated};

pub(crate) const FAMILY: Family = Family {
    name: "jina_v3",
    architectures: &["JinaEmbeddingsV3Model", "JinaEmbeddingsV3ForMaskedLM"],
    model_types: &["jina_embeddings_v3"],
    gguf: &[],
    refused: &[],
    names: Names {
        embedding_norm: "emb_ln",
        attention_norm: "encoder.layers.{}.norm1",
        qkv: Some(("encoder.layers.{}.mixer.Wqkv", Fused::Stacked)),
        q: "encoder.layers.{}.mixer.q_proj",
        k: "encoder.layers.{}.mixer.k_proj",
        v: "encoder.layers.{}.mixer.v_proj",
        o: "encoder.layers.{}.mixer.out_proj",
        mlp_norm: "encoder.layers.{}.norm2",
        up: "encoder.layers.{}.mlp.fc1",
        down: "encoder.layers.{}.mlp.fc2",
        ..bert::FAMILY.names
    },
    rotated: Rotated::All,
    positions: None,
    ..bert::FAMILY
};
