//! nanochat: norms without weights, one of them on the embeddings, heads normalised after a rotation backwards, squared ReLU.

use crate::family::{Bias, Family, HeadNorms, Names, Softcap};
use crate::spec::Activation;

pub(crate) const FAMILY: Family = Family {
    name: "nanochat",
    architectures: &["NanoChatForCausalLM"],
    model_types: &["nanochat"],
    names: Names { up: "layers.{}.mlp.fc1", down: "layers.{}.mlp.fc2", ..Names::HUGGING_FACE },
    reversed: true,
    norm_weights: Bias::Never,
    embedding_norm: true,
    head_norms: HeadNorms::Bare("use_qk_norm"),
    norms_after_rope: true,
    gated: false,
    activation: Activation::ReluSquared,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    softcaps: (Softcap::Never, Softcap::Key(Some(15.0))),
    ..Family::PLAIN
};
