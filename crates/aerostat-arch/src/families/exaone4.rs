//! EXAONE 4: norms on outputs only, heads normalised; with windows, only layers that have one are rotated.

use crate::family::{Family, HeadNorms, PostNorms, Rotated, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "exaone4",
    architectures: &["Exaone4ForCausalLM"],
    model_types: &["exaone4", "exaone4_5_text"],
    gguf: &["exaone4"],
    pre_norms: false,
    post_norms: PostNorms::Always,
    head_norms: HeadNorms::Shared,
    rotated: Rotated::WindowsIfGiven,
    windows: Windows::AllButEvery(4),
    ..Family::PLAIN
};
