//! Falcon H1: attention and a state space side by side in every layer, with factors on most of what they read and give.

use super::bamba;
use crate::family::{Bias, Factor, Family, Mixers, SpaceFamily, keys};

pub(crate) const FAMILY: Family = Family {
    name: "falcon_h1",
    architectures: &["FalconH1ForCausalLM"],
    model_types: &["falcon_h1"],
    mixers: Mixers::Beside,
    space: Some(SpaceFamily {
        input_bias: Bias::Key("mamba_proj_bias", false),
        output_bias: Bias::Key("projectors_bias", false),
        norm: Bias::Key("mamba_rms_norm", false),
        norm_first: "mamba_norm_before_gate",
        factors: true,
        ..SpaceFamily::PLAIN
    }),
    half_factors: true,
    embedding_scale: Factor::Key(&keys::EMBEDDING_SCALE, 1.0),
    logit_scale: Factor::Key(&keys::LOGIT_SCALE, 1.0),
    ..bamba::FAMILY
};
