//! SmolLM 3: Llama in which every fourth layer is not rotated.

use super::llama;
use crate::family::{Defaults, Family, Rotated, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "smollm3",
    architectures: &["SmolLM3ForCausalLM"],
    model_types: &["smollm3"],
    gguf: &["smollm3"],
    rotated: Rotated::AllButEvery(4),
    windows: Windows::Unrotated,
    defaults: Defaults {
        tied: true,
        kv_heads: Some(4),
        rope_theta: 2_000_000.0,
        context: 32_768,
        ..Family::PLAIN.defaults
    },
    ..llama::FAMILY
};
