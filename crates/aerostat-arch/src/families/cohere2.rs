//! Command R7B and Command A: Command R with a window on three layers of four, which alone are rotated.

use super::cohere;
use crate::family::{Family, HeadNorms, Rotated, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "cohere2",
    architectures: &["Cohere2ForCausalLM"],
    model_types: &["cohere2"],
    gguf: &["cohere2"],
    head_norms: HeadNorms::Never,
    rotated: Rotated::Windows,
    windows: Windows::AllButEvery(4),
    ..cohere::FAMILY
};
