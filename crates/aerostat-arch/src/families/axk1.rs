//! A.X K1: DeepSeek V3 whose experts' sum is normalised.

use super::deepseek_v3;
use crate::family::{Family, Names, PostNorms};

pub(crate) const FAMILY: Family = Family {
    name: "axk1",
    architectures: &["AXK1ForCausalLM"],
    model_types: &["axk1", "AXK1"],
    names: Names {
        mlp_post_norm: "layers.{}.post_mlp_layernorm|layers.{}.mlp.post_mlp_layernorm",
        ..Names::HUGGING_FACE
    },
    post_norms: PostNorms::StoredMlp,
    ..deepseek_v3::FAMILY
};
