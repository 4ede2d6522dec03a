//! SmolLM 3: Llama in which every fourth layer is not rotated.

use super::llama;
use crate::family::{Family, Rotated, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "smollm3",
    architectures: &["SmolLM3ForCausalLM"],
    model_types: &["smollm3"],
    gguf: &["smollm3"],
    rotated: Rotated::AllButEvery(4),
    windows: Windows::Unrotated,
    ..llama::FAMILY
};
