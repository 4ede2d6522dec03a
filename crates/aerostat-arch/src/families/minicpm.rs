//! MiniCPM 1, 2 and 4: Llama with factors on embeddings, residuals and logits.

use super::llama;
use crate::family::{Factor, Family, Refused, keys};

pub(crate) const FAMILY: Family = Family {
    name: "minicpm",
    architectures: &["MiniCPMForCausalLM"],
    model_types: &["minicpm"],
    gguf: &["minicpm"],
    refused: &[Refused::Given("sparse_config"), Refused::Given("num_experts")],
    embedding_scale: Factor::Key(&keys::EMBEDDING_SCALE, 1.0),
    residual_scale: Factor::OverRootOfLayers(&keys::RESIDUAL_DEPTH, 1.0),
    logit_scale: Factor::OverHidden(&keys::LOGIT_WIDTH, 1.0),
    ..llama::FAMILY
};
