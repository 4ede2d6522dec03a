//! Granite with windows and sinks, and with experts.

use super::granitemoe;
use crate::family::{Defaults, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "granitemoe_swa",
    architectures: &["GraniteMoeSWAForCausalLM"],
    model_types: &["granitemoe_swa"],
    gguf: &[],
    sinks: true,
    windows: Windows::AllButFirstOf(4),
    defaults: Defaults { window: Some(128), ..granitemoe::FAMILY.defaults },
    ..granitemoe::FAMILY
};
