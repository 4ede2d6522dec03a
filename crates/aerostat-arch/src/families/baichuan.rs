//! Baichuan 7B, the first: Llama with q, k and v in one tensor.

use crate::family::{Family, Fused, Names};

pub(crate) const FAMILY: Family = Family {
    name: "baichuan",
    // The others, "Baichuan…", normalise their head or have linear biases.
    architectures: &["BaiChuanForCausalLM"],
    model_types: &["baichuan"],
    names: Names { qkv: Some(("layers.{}.self_attn.W_pack", Fused::Stacked)), ..Names::HUGGING_FACE },
    ..Family::PLAIN
};
