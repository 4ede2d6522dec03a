//! Granite 4: state spaces, on some layers attention, rotated or not, and an MLP that all rows use, alone or beside experts.

use super::granitemoe;
use crate::family::{Bias, Family, MixerKind, Mixers, Names, Rotated, SpaceFamily};

pub(crate) const FAMILY: Family = Family {
    name: "granitemoehybrid",
    architectures: &["GraniteMoeHybridForCausalLM"],
    model_types: &["granitemoehybrid"],
    gguf: &["granitehybrid"],
    names: Names {
        gate_up: Some("layers.{}.shared_mlp.input_linear"),
        down: "layers.{}.shared_mlp.output_linear",
        ..Names::HUGGING_FACE
    },
    rotated: Rotated::IfNamed,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mixers: Mixers::Listed(&[MixerKind::Space]),
    space: Some(SpaceFamily::PLAIN),
    ..granitemoe::FAMILY
};
