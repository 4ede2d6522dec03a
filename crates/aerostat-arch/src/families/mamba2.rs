//! Mamba 2 and Codestral Mamba: state spaces, and nothing else.

use crate::family::{Family, Mixers, Names, Rotated, SpaceFamily, SpaceNames};

pub(crate) const FAMILY: Family = Family {
    name: "mamba2",
    architectures: &["Mamba2ForCausalLM"],
    model_types: &["mamba2"],
    gguf: &["mamba2"],
    names: Names {
        embedding: "embeddings",
        final_norm: "norm_f",
        attention_norm: "layers.{}.norm",
        ..Names::HUGGING_FACE
    },
    rotated: Rotated::None,
    mixers: Mixers::Spaces,
    space: Some(SpaceFamily { names: SpaceNames::MIXER, ..SpaceFamily::PLAIN }),
    ..Family::PLAIN
};
