//! K-EXAONE: heads normalised, windows on three layers of four, which alone are rotated, experts as in DeepSeek V3.

use super::glm4_moe;
use crate::family::{Factor, Family, HeadNorms, Mixture, MixtureNames, Rotated, Windows, keys};

pub(crate) const FAMILY: Family = Family {
    name: "exaone_moe",
    architectures: &["ExaoneMoeForCausalLM"],
    model_types: &["exaone_moe"],
    gguf: &["exaone-moe"],
    head_norms: HeadNorms::Shared,
    rotated: Rotated::WindowsIfGiven,
    windows: Windows::AllButEvery(4),
    mixture: Some(Mixture {
        scale: Factor::Key(&keys::EXPERT_SCALE, 2.5),
        names: MixtureNames {
            correction: "layers.{}.mlp.e_score_correction_bias|layers.{}.mlp.gate.e_score_correction_bias",
            ..MixtureNames::HUGGING_FACE
        },
        ..glm4_moe::MIXTURE
    }),
    ..Family::PLAIN
};
