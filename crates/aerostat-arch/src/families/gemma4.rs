//! Gemma 4, the dense 31B: Gemma 3 with values normalised, larger heads without a window, whose values are their keys.

use super::gemma3;
use crate::family::{Factor, Family, Refused};

pub(crate) const FAMILY: Family = Family {
    name: "gemma4",
    architectures: &["Gemma4ForCausalLM"],
    model_types: &["gemma4_text"],
    gguf: &[],
    refused: &[
        // Embeddings of each layer, keys and values that layers share, experts beside a dense MLP.
        Refused::Above("hidden_size_per_layer_input", 0),
        Refused::Above("num_kv_shared_layers", 0),
        Refused::Flag("enable_moe_block", true),
    ],
    norm_offset: 0.0,
    wide_heads: true,
    block_scale: "layers.{}.layer_scalar",
    query_scalar: None,
    score_scale: Factor::Fixed(1.0),
    ahead_if_said: false,
    ..gemma3::FAMILY
};
