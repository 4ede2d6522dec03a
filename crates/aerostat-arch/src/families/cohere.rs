//! Command R: a parallel block with layer norms without bias, logits scaled.

use crate::family::{Bias, Defaults, Factor, Family, HeadNorms, Switch, keys};
use crate::spec::{NormKind, RopeStyle};

pub(crate) const FAMILY: Family = Family {
    name: "cohere",
    architectures: &["CohereForCausalLM"],
    model_types: &["cohere"],
    gguf: &["command-r"],
    rope: RopeStyle::Interleaved,
    gguf_rope: RopeStyle::Interleaved,
    norm: NormKind::Layer,
    head_norms: HeadNorms::Own("use_qk_norm"),
    parallel: Switch::Always,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    logit_scale: Factor::Key(&keys::LOGIT_SCALE, 0.0625),
    defaults: Defaults {
        tied: true,
        rope_theta: 500_000.0,
        context: 8192,
        eps: 1e-5,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
