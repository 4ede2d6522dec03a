//! GLM-4 0414: GLM with norms on both sides of attention and MLP.

use super::glm;
use crate::family::{Family, Names, PostNorms};

pub(crate) const FAMILY: Family = Family {
    name: "glm4",
    architectures: &["Glm4ForCausalLM"],
    model_types: &["glm4"],
    gguf: &["glm4"],
    names: Names {
        attention_post_norm: "layers.{}.post_self_attn_layernorm",
        mlp_post_norm: "layers.{}.post_mlp_layernorm",
        ..glm::FAMILY.names
    },
    post_norms: PostNorms::Always,
    ..glm::FAMILY
};
