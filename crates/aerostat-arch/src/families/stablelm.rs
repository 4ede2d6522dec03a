//! StableLM 1 and 2: layer norms, a quarter of each head rotated, the 12B in parallel.

use crate::family::{Bias, Family, HeadNorms, Names, Switch, keys};
use crate::spec::NormKind;

pub(crate) const FAMILY: Family = Family {
    name: "stablelm",
    architectures: &["StableLmForCausalLM"],
    model_types: &["stablelm"],
    gguf: &["stablelm"],
    names: Names {
        q_norm: "layers.{}.self_attn.q_layernorm.norms.{h}",
        k_norm: "layers.{}.self_attn.k_layernorm.norms.{h}",
        ..Names::HUGGING_FACE
    },
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    head_norms: HeadNorms::Own("qk_layernorm"),
    parallel: Switch::Flag(&keys::PARALLEL, false),
    qkv_bias: Bias::Key("use_qkv_bias", false),
    ..Family::PLAIN
};
