//! EuroBERT: Llama as an encoder.

use super::llama;
use crate::family::{Encoder, Family};

pub(crate) const FAMILY: Family = Family {
    name: "eurobert",
    architectures: &["EuroBertModel", "EuroBertForMaskedLM", "EuroBertForSequenceClassification"],
    model_types: &["eurobert"],
    gguf: &[],
    encoder: Some(Encoder::PLAIN),
    ..llama::FAMILY
};
