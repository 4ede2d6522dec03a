//! Command R: a parallel block with layer norms without bias, logits scaled.

use crate::family::{Bias, Factor, Family, HeadNorms, Switch, keys};
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
    ..Family::PLAIN
};
