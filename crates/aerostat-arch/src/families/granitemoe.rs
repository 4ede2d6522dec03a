//! Granite 3 with experts, and optionally one that all rows share.

use super::granite;
use crate::family::{Bias, Family, Mixture, MixtureNames};
use crate::spec::Score;

pub(crate) const FAMILY: Family = Family {
    name: "granitemoe",
    architectures: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
    model_types: &["granitemoe", "granitemoeshared"],
    gguf: &["granitemoe"],
    mlp_bias: Bias::Never,
    mixture: Some(Mixture {
        score: Score::SoftmaxOfChosen,
        normalise: crate::family::Switch::Never,
        gguf_normalise: false,
        chosen: Some(2),
        names: MixtureNames {
            router: "layers.{}.block_sparse_moe.router.layer|layers.{}.block_sparse_moe.router",
            gate_up: "layers.{}.block_sparse_moe.input_linear|layers.{}.block_sparse_moe.experts.gate_up_proj",
            down: "layers.{}.block_sparse_moe.output_linear|layers.{}.block_sparse_moe.experts.down_proj",
            shared_gate_up: "layers.{}.shared_mlp.input_linear",
            shared_down: "layers.{}.shared_mlp.output_linear",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..granite::FAMILY
};
