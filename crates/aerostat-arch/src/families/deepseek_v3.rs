//! DeepSeek V3 and R1, Kimi K2: compressed keys and values, experts in groups, of which sigmoids and a correction decide.

use super::deepseek_v2;
use crate::family::{Bias, Factor, Family, Mixture, Switch, keys};
use crate::spec::Score;

pub(crate) const FAMILY: Family = Family {
    name: "deepseek_v3",
    architectures: &["DeepseekV3ForCausalLM"],
    model_types: &["deepseek_v3", "kimi_k2"],
    gguf: &[],
    mlp_bias: Bias::Never,
    mixture: Some(Mixture {
        score: Score::Sigmoid,
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        normalise_guard: (1e-20, 0.0),
        scale: Factor::Key(&keys::EXPERT_SCALE, 2.5),
        chosen: Some(8),
        groups: Some((2, false)),
        ..Mixture::PLAIN
    }),
    ..deepseek_v2::FAMILY
};
