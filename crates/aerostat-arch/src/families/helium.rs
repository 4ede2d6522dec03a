//! Helium 1: Llama in which neighbours are rotated.

use crate::family::{Bias, Family};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "helium",
    architectures: &["HeliumForCausalLM"],
    model_types: &["helium"],
    rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    ..Family::PLAIN
};
