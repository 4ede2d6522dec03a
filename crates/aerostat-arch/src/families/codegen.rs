//! CodeGen: GPT-J whose queries, values and keys lie in one tensor, quarter by quarter.

use super::gptj;
use crate::family::{Family, Fused, Names};

pub(crate) const FAMILY: Family = Family {
    name: "codegen",
    architectures: &["CodeGenForCausalLM"],
    model_types: &["codegen"],
    names: Names { qkv: Some(("h.{}.attn.qkv_proj", Fused::Quarters)), ..gptj::FAMILY.names },
    ..gptj::FAMILY
};
