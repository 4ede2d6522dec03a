//! NomicBERT: BERT that rotates, with a gate in its MLP and without biases.

use super::bert;
use crate::family::{Bias, Family, Fused, Names, Refused, Rotated};
use crate::spec::Activation;

pub(crate) const FAMILY: Family = Family {
    name: "nomic_bert",
    architectures: &["NomicBertModel", "NomicBertForMaskedLM", "NomicBertForSequenceClassification"],
    model_types: &["nomic_bert"],
    gguf: &["nomic-bert"],
    refused: &[
        Refused::Above("moe_every_n_layers", 0),
        Refused::Flag("prenorm", true),
        Refused::Flag("use_rms_norm", true),
        Refused::Flag("qkv_proj_bias", true),
        Refused::Flag("mlp_fc1_bias", true),
        Refused::Flag("mlp_fc2_bias", true),
        Refused::Flag("rotary_emb_interleaved", true),
    ],
    names: Names {
        embedding_norm: "emb_ln",
        attention_norm: "encoder.layers.{}.norm1",
        qkv: Some(("encoder.layers.{}.attn.Wqkv", Fused::Stacked)),
        q: "encoder.layers.{}.attn.q_proj",
        k: "encoder.layers.{}.attn.k_proj",
        v: "encoder.layers.{}.attn.v_proj",
        o: "encoder.layers.{}.attn.out_proj",
        mlp_norm: "encoder.layers.{}.norm2",
        gate: "encoder.layers.{}.mlp.fc12",
        up: "encoder.layers.{}.mlp.fc11",
        down: "encoder.layers.{}.mlp.fc2",
        ..bert::FAMILY.names
    },
    rotated: Rotated::All,
    gated: true,
    activation: Activation::Silu,
    qkv_bias: Bias::Never,
    output_bias: Bias::Never,
    mlp_bias: Bias::Never,
    positions: None,
    ..bert::FAMILY
};
