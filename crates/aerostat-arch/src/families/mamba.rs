//! Mamba: state spaces of the first kind, and nothing else.

use super::mamba2;
use crate::family::{Family, SelectiveFamily, SelectiveNorms, SpaceFamily, SpaceNames};

pub(crate) const FAMILY: Family = Family {
    name: "mamba",
    architectures: &["MambaForCausalLM"],
    model_types: &["mamba"],
    gguf: &["mamba"],
    space: Some(SPACE),
    ..mamba2::FAMILY
};

pub(super) const SPACE: SpaceFamily = SpaceFamily {
    names: SpaceNames::MIXER,
    selective: Some(SelectiveFamily {
        width: "intermediate_size",
        selected: "layers.{}.mixer.x_proj",
        step: "layers.{}.mixer.dt_proj",
        norms: SelectiveNorms::Never,
    }),
    ..SpaceFamily::PLAIN
};
