//! GPT-BigCode, the first StarCoder and SantaCoder: GPT-2 with one key/value head.

use super::gpt2;
use crate::family::{Family, Fused, Names};

pub(crate) const FAMILY: Family = Family {
    name: "gpt_bigcode",
    architectures: &["GPTBigCodeForCausalLM"],
    model_types: &["gpt_bigcode"],
    gguf: &["starcoder"],
    names: Names { qkv: Some(("h.{}.attn.c_attn", Fused::ByKvHead)), ..gpt2::FAMILY.names },
    by_inputs: false,
    multi_query: true,
    ..gpt2::FAMILY
};
