//! Granite with a window on all layers but the first of every four, sinks, and a base of rotation for each layer.

use super::granite;
use crate::family::{Defaults, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "granite_swa",
    architectures: &["GraniteSWAForCausalLM"],
    model_types: &["granite_swa"],
    gguf: &[],
    sinks: true,
    windows: Windows::AllButFirstOf(4),
    defaults: Defaults {
        tied: true,
        kv_heads: Some(4),
        window: Some(128),
        context: 8192,
        eps: 1e-5,
        ..granite::FAMILY.defaults
    },
    ..granite::FAMILY
};
