//! CWM: Llama with a window on all layers but the first of every four.

use crate::family::{Bias, Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "cwm",
    architectures: &["CwmForCausalLM"],
    model_types: &["cwm"],
    mlp_bias: Bias::Key("mlp_bias", false),
    windows: Windows::AllButFirstOf(4),
    ..Family::PLAIN
};
