//! GPT, the first: GPT-2 whose norms are of sums, after attention and after the MLP.

use super::gpt2;
use crate::family::{Family, Names, StreamNorms};

pub(crate) const FAMILY: Family = Family {
    name: "openai_gpt",
    architectures: &["OpenAIGPTLMHeadModel"],
    model_types: &["openai-gpt"],
    gguf: &[],
    names: Names { embedding: "tokens_embed", positions: "positions_embed", ..gpt2::FAMILY.names },
    stream_norms: StreamNorms::Sums,
    activation_key: "afn",
    gelu_means_tanh: true,
    score_switches: false,
    ..gpt2::FAMILY
};
