//! Granite 3: Llama with factors on embeddings, scores, residuals and logits.

use super::llama;
use crate::family::{Factor, Family, keys};

pub(crate) const FAMILY: Family = Family {
    name: "granite",
    architectures: &["GraniteForCausalLM"],
    model_types: &["granite"],
    gguf: &["granite"],
    score_scale: Factor::Key(&keys::SCORE_SCALE, 1.0),
    embedding_scale: Factor::Key(&keys::EMBEDDING_SCALE, 1.0),
    residual_scale: Factor::Key(&keys::RESIDUAL_SCALE, 1.0),
    logit_scale: Factor::Inverse(&keys::LOGIT_DIVISOR, 1.0),
    ..llama::FAMILY
};
