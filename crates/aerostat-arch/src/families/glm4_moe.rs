//! GLM-4.5, 4.6 and 4.7: half of each head rotated, experts scored by sigmoid beside a shared one, first layers dense.

use crate::family::{Bias, Factor, Family, HeadNorms, Mixture, Names, Switch, keys};
use crate::spec::Score;

/// As in DeepSeek V3.
pub(crate) const MIXTURE: Mixture = Mixture {
    score: Score::Sigmoid,
    normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
    normalise_guard: (1e-20, 0.0),
    scale: Factor::Key(&keys::EXPERT_SCALE, 1.0),
    chosen: Some(8),
    groups: Some((2, false)),
    ..Mixture::PLAIN
};

pub(crate) const FAMILY: Family = Family {
    name: "glm4_moe",
    architectures: &["Glm4MoeForCausalLM"],
    model_types: &["glm4_moe"],
    gguf: &["glm4moe"],
    gguf_names: Names { mlp_norm: "blk.{}.post_attention_norm", ..Names::GGUF },
    head_norms: HeadNorms::SharedIf("use_qk_norm"),
    qkv_bias: Bias::Key("attention_bias", false),
    mixture: Some(MIXTURE),
    ..Family::PLAIN
};
