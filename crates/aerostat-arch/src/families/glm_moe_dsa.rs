//! GLM 5: DeepSeek V3.2 whose layers may share a choice of positions.

use super::deepseek_v32;
use crate::family::{Family, LatentFamily};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "glm_moe_dsa",
    architectures: &["GlmMoeDsaForCausalLM"],
    model_types: &["glm_moe_dsa"],
    gguf: &["glm-dsa"],
    latent: Some(LatentFamily { indexer: Some(RopeStyle::Interleaved), ..LatentFamily::PLAIN }),
    ..deepseek_v32::FAMILY
};
