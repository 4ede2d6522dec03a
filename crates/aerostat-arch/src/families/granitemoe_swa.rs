//! Granite with windows and sinks, and with experts.

use super::granitemoe;
use crate::family::{Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "granitemoe_swa",
    architectures: &["GraniteMoeSWAForCausalLM"],
    model_types: &["granitemoe_swa"],
    gguf: &[],
    sinks: true,
    windows: Windows::AllButFirstOf(4),
    ..granitemoe::FAMILY
};
