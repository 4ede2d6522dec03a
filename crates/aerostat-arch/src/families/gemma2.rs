//! Gemma 2: Gemma with norms on both sides, soft caps, and a window on every other layer.

use super::gemma;
use crate::family::{Family, Names, PostNorms, Softcap, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "gemma2",
    architectures: &["Gemma2ForCausalLM"],
    model_types: &["gemma2"],
    gguf: &["gemma2"],
    names: Names::HUGGING_FACE_SANDWICH,
    activation_key: "hidden_activation",
    gelu_means_tanh: false,
    post_norms: PostNorms::Always,
    windows: Windows::EveryOther,
    query_scalar: Some(46),
    softcaps: (Softcap::Key(Some(50.0)), Softcap::Key(Some(30.0))),
    ..gemma::FAMILY
};
