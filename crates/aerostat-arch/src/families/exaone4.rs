//! EXAONE 4: norms on outputs only, heads normalised; with windows, only layers that have one are rotated.

use crate::family::{Defaults, Family, HeadNorms, Rotated, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "exaone4",
    architectures: &["Exaone4ForCausalLM"],
    model_types: &["exaone4"],
    gguf: &["exaone4"],
    pre_norms: false,
    post_norms: true,
    head_norms: HeadNorms::Shared,
    rotated: Rotated::Windows,
    windows: Windows::AllButEvery(4),
    defaults: Defaults { window: Some(4096), eps: 1e-5, ..Family::PLAIN.defaults },
    ..Family::PLAIN
};
