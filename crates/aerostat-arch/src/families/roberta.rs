//! RoBERTa, XLM-RoBERTa and CamemBERT: BERT whose positions begin behind that of the padding token.

use super::bert;
use crate::family::{Encoder, Family, Refused};

pub(crate) const FAMILY: Family = Family {
    name: "roberta",
    architectures: &[
        "RobertaModel",
        "RobertaForSequenceClassification",
        "XLMRobertaModel",
        "XLMRobertaForSequenceClassification",
        "CamembertModel",
    ],
    model_types: &["roberta", "xlm-roberta", "camembert"],
    gguf: &[],
    refused: &[Refused::Flag("is_decoder", true)],
    positions: Some(2),
    encoder: Some(Encoder {
        types: "embeddings.token_type_embeddings",
        positions_after_padding: true,
        ..Encoder::PLAIN
    }),
    ..bert::FAMILY
};
