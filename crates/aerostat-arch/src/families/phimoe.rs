//! Phi-3.5-MoE: layer norms, and two experts that the sparse mixer weighs.

use crate::family::{Bias, Family, Mixture, MixtureNames, Switch, Windows};
use crate::spec::{NormKind, Score};

pub(crate) const FAMILY: Family = Family {
    name: "phimoe",
    architectures: &["PhimoeForCausalLM", "PhiMoEForCausalLM"],
    model_types: &["phimoe"],
    gguf: &["phimoe"],
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    head_bias: Bias::Key("lm_head_bias", false),
    windows: Windows::All,
    mixture: Some(Mixture {
        score: Score::SparseMixer(0.01),
        normalise: Switch::Never,
        gguf_normalise: false,
        chosen: Some(2),
        names: MixtureNames {
            router: "layers.{}.block_sparse_moe.gate|layers.{}.mlp.router",
            gate: "layers.{}.block_sparse_moe.experts.{e}.w1",
            up: "layers.{}.block_sparse_moe.experts.{e}.w3",
            down: "layers.{}.block_sparse_moe.experts.{e}.w2|layers.{}.mlp.experts.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
