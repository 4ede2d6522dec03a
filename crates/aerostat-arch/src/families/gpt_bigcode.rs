//! GPT-BigCode, the first StarCoder and SantaCoder: GPT-2 with one key/value head.

use super::gpt2;
use crate::family::{Family, Fused, Names};

pub(crate) const FAMILY: Family = Family {
    name: "gpt_bigcode",
    architectures: &["GPTBigCodeForCausalLM"],
    model_types: &["gpt_bigcode"],
    gguf: &["starcoder"],
    refused: &[],
    names: Names {
        embedding: "wte",
        positions: "wpe",
        final_norm: "ln_f",
        attention_norm: "h.{}.ln_1",
        qkv: Some(("h.{}.attn.c_attn", Fused::ByKvHead)),
        o: "h.{}.attn.c_proj",
        mlp_norm: "h.{}.ln_2",
        up: "h.{}.mlp.c_fc",
        down: "h.{}.mlp.c_proj",
        ..Names::HUGGING_FACE
    },
    multi_query: true,
    ..gpt2::FAMILY
};
