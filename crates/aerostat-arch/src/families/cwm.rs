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
        rope_theta: 1_000_000.0,
        window: Some(8192),
        context: 131_072,
        eps: 1e-5,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
