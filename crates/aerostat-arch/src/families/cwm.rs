//! CWM: Llama with a window on all layers but the first of every four.

use crate::family::{Defaults, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "cwm",
    architectures: &["CwmForCausalLM"],
    model_types: &["cwm"],
    windows: Windows::AllButFirstOf(4),
    defaults: Defaults {
        kv_heads: Some(8),
        head_dim: Some(128),
        rope: r#"{"rope_type": "llama3", "rope_theta": 1e6, "factor": 16, "high_freq_factor": 4, "low_freq_factor": 1,
            "original_max_position_embeddings": 8192}"#,
        window: Some(8192),
        context: 131_072,
        eps: 1e-5,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
