//! Qwen 3 Next: gated delta nets, every fourth layer attention with a gate, experts one of which all rows share.

use crate::family::{Bias, DeltaFamily, Family, HeadNorms, Mixture, Names, Switch, keys};

pub(crate) const FAMILY: Family = Family {
    name: "qwen3_next",
    architectures: &["Qwen3NextForCausalLM"],
    model_types: &["qwen3_next"],
    gguf: &["qwen3next"],
    gguf_names: Names { mlp_norm: "blk.{}.post_attention_norm", ..Names::GGUF },
    norm_offset: 1.0,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    head_norms: HeadNorms::Shared,
    gated_attention: true,
    delta: Some(DeltaFamily::PLAIN),
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        chosen: Some(10),
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
