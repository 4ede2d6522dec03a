//! OLMo 2: norms on the outputs of attention and MLP only, q and k normalised over all heads.

use crate::family::{Bias, Family, HeadNorms, PostNorms};

pub(crate) const FAMILY: Family = Family {
    name: "olmo2",
    architectures: &["Olmo2ForCausalLM"],
    model_types: &["olmo2"],
    pre_norms: false,
    post_norms: PostNorms::Always,
    head_norms: HeadNorms::Row,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    ..Family::PLAIN
};
