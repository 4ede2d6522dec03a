//! Phi 3, 3.5 and 4: Llama with q, k, v and gate, up in one tensor each, and LongRoPE.

use crate::family::{Family, Fused, Names, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "phi3",
    architectures: &["Phi3ForCausalLM"],
    model_types: &["phi3"],
    gguf: &["phi3"],
    names: Names {
        qkv: Some(("layers.{}.self_attn.qkv_proj", Fused::Stacked)),
        gate_up: Some("layers.{}.mlp.gate_up_proj"),
        ..Names::HUGGING_FACE
    },
    windows: Windows::All,
    ..Family::PLAIN
};
