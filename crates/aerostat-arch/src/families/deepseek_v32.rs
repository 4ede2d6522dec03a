//! DeepSeek V3.2: V3 that attends to the positions an indexer chooses.

use super::deepseek_v3;
use crate::family::{Family, LatentFamily};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "deepseek_v32",
    architectures: &["DeepseekV32ForCausalLM"],
    model_types: &["deepseek_v32"],
    gguf: &[],
    latent: Some(LatentFamily { indexer: Some(RopeStyle::Half), ..LatentFamily::PLAIN }),
    ..deepseek_v3::FAMILY
};
