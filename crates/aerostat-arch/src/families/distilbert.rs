//! DistilBERT: BERT whose parts of a text are not told apart.

use super::bert;
use crate::family::{Encoder, Family, Names, Refused};

pub(crate) const FAMILY: Family = Family {
    name: "distilbert",
    architectures: &["DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"],
    model_types: &["distilbert"],
    gguf: &[],
    refused: &[Refused::Flag("sinusoidal_pos_embds", true)],
    names: Names {
        attention_norm: "transformer.layer.{}.sa_layer_norm",
        q: "transformer.layer.{}.attention.q_lin",
        k: "transformer.layer.{}.attention.k_lin",
        v: "transformer.layer.{}.attention.v_lin",
        o: "transformer.layer.{}.attention.out_lin",
        mlp_norm: "transformer.layer.{}.output_layer_norm",
        up: "transformer.layer.{}.ffn.lin1",
        down: "transformer.layer.{}.ffn.lin2",
        ..bert::FAMILY.names
    },
    eps: Some(1e-12),
    activation_key: "activation",
    encoder: Some(Encoder::PLAIN),
    ..bert::FAMILY
};
