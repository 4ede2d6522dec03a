//! Granite with a window on all layers but the first of every four, sinks, and a base of rotation for each layer.

use super::granite;
use crate::family::{Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "granite_swa",
    architectures: &["GraniteSWAForCausalLM"],
    model_types: &["granite_swa"],
    gguf: &[],
    sinks: true,
    windows: Windows::AllButFirstOf(4),
    ..granite::FAMILY
};
