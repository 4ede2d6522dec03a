//! StableLM 1 and 2: layer norms, a quarter of each head rotated, the 12B in parallel.

use crate::family::{Bias, Defaults, Family, HeadNorms, Refused, Switch};
use crate::keys;
use crate::spec::NormKind;

pub(crate) const FAMILY: Family = Family {
    name: "stablelm",
    architectures: &["StableLmForCausalLM"],
    model_types: &["stablelm"],
    gguf: &["stablelm"],
    // The norms of heads are a tensor each; GGUF stacks them.
    refused: &[Refused::Flag("qk_layernorm", true)],
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    head_norms: HeadNorms::Own("qk_layernorm"),
    parallel: Switch::Flag(&keys::PARALLEL, false),
    qkv_bias: Bias::Key("use_qkv_bias", false),
    defaults: Defaults {
        kv_heads: Some(32),
        rotary: 0.25,
        context: 4096,
        eps: 1e-5,
        ..Family::PLAIN.defaults
    },
    ..Family::PLAIN
};
