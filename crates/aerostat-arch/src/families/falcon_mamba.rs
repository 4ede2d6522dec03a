//! Falcon Mamba: Mamba whose time steps, and what is written and read with, are normalised. Its GGUF files call themselves "mamba".

use super::mamba;
use crate::family::{Family, SelectiveFamily, SelectiveNorms, SpaceFamily};

pub(crate) const FAMILY: Family = Family {
    name: "falcon_mamba",
    architectures: &["FalconMambaForCausalLM"],
    model_types: &["falcon_mamba"],
    gguf: &[],
    space: Some(SpaceFamily {
        selective: Some(SelectiveFamily {
            width: "intermediate_size",
            selected: "layers.{}.mixer.x_proj",
            step: "layers.{}.mixer.dt_proj",
            norms: SelectiveNorms::Bare("mixer_rms_eps"),
        }),
        ..mamba::SPACE
    }),
    ..mamba::FAMILY
};
