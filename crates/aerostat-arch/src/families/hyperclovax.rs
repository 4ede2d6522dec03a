//! HyperCLOVA X: Granite with norms on both sides, its logits multiplied.

use super::granite;
use crate::family::{Factor, Family, Names, PostNorms, keys};

pub(crate) const FAMILY: Family = Family {
    name: "hyperclovax",
    architectures: &["HyperCLOVAXForCausalLM"],
    model_types: &["hyperclovax"],
    gguf: &[],
    names: Names {
        attention_post_norm: "layers.{}.post_norm1",
        mlp_post_norm: "layers.{}.post_norm2",
        ..Names::HUGGING_FACE
    },
    post_norms: PostNorms::Key("use_post_norm", true),
    score_scale: Factor::Key(&keys::SCORE_SCALE, 0.0),
    logit_scale: Factor::Key(&keys::LOGIT_DIVISOR, 1.0),
    ..granite::FAMILY
};
