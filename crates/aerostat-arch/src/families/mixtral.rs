//! Mixtral: Mistral with experts.

use crate::family::{Family, Mixture, MixtureNames, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "mixtral",
    architectures: &["MixtralForCausalLM"],
    model_types: &["mixtral"],
    windows: Windows::All,
    mixture: Some(Mixture {
        names: MixtureNames {
            router: "layers.{}.block_sparse_moe.gate|layers.{}.mlp.gate",
            gate: "layers.{}.block_sparse_moe.experts.{e}.w1",
            up: "layers.{}.block_sparse_moe.experts.{e}.w3",
            down: "layers.{}.block_sparse_moe.experts.{e}.w2|layers.{}.mlp.experts.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        chosen: Some(2),
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
