//! ERNIE 4.5 with experts: their choice is corrected, and some layers and a shared expert are dense.

use super::ernie4_5;
use crate::family::{Bias, Family, Mixture, MixtureNames};

pub(crate) const FAMILY: Family = Family {
    name: "ernie4_5_moe",
    architectures: &["Ernie4_5_MoeForCausalLM"],
    model_types: &["ernie4_5_moe"],
    gguf: &["ernie4_5-moe"],
    head_bias: Bias::Key("use_bias", false),
    mixture: Some(Mixture {
        normalise_guard: (0.0, 1e-12),
        chosen: Some(6),
        names: MixtureNames {
            correction: "layers.{}.mlp.moe_statics.e_score_correction_bias|\
                layers.{}.mlp.gate.moe_statics.e_score_correction_bias",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..ernie4_5::FAMILY
};
