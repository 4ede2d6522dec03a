//! MPNet: BERT with biases of scores by distance.

use super::bert;
use crate::family::{Encoder, Family, Names};

pub(crate) const FAMILY: Family = Family {
    name: "mpnet",
    architectures: &["MPNetModel", "MPNetForMaskedLM", "MPNetForSequenceClassification"],
    model_types: &["mpnet"],
    gguf: &[],
    refused: &[],
    names: Names {
        attention_norm: "encoder.layer.{}.attention.LayerNorm",
        q: "encoder.layer.{}.attention.attn.q",
        k: "encoder.layer.{}.attention.attn.k",
        v: "encoder.layer.{}.attention.attn.v",
        o: "encoder.layer.{}.attention.attn.o",
        ..bert::FAMILY.names
    },
    // Behind the padding token's, which is 1 whatever the configuration says.
    positions: Some(2),
    encoder: Some(Encoder { distances: "encoder.relative_attention_bias", ..Encoder::PLAIN }),
    ..bert::FAMILY
};
