//! Qwen 3.5: Qwen 3 Next with tensors that are not joined, and without experts.

use super::qwen3_next;
use crate::family::{DeltaFamily, Family};

pub(crate) const FAMILY: Family = Family {
    name: "qwen3_5",
    architectures: &["Qwen3_5ForCausalLM"],
    model_types: &["qwen3_5_text"],
    gguf: &["qwen35"],
    delta: Some(DeltaFamily { gguf_tiled: true, ..DeltaFamily::PLAIN }),
    mixture: None,
    ..qwen3_next::FAMILY
};
