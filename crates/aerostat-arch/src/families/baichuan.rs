//! Baichuan 1 and 2: Llama with q, k and v in one tensor; the 13B have linear biases, the second a normalised head.

use crate::family::{AlibiRule, Family, Fused, Names};

pub(crate) const FAMILY: Family = Family {
    name: "baichuan",
    architectures: &["BaiChuanForCausalLM", "BaichuanForCausalLM"],
    model_types: &["baichuan"],
    names: Names { qkv: Some(("layers.{}.self_attn.W_pack", Fused::Stacked)), ..Names::HUGGING_FACE },
    alibi: AlibiRule::WithoutContext,
    normalised_head: true,
    ..Family::PLAIN
};
