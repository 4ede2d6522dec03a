//! MiniMax M2: q and k normalised over all heads, half of each head rotated, experts scored by sigmoid.

use crate::family::{Family, HeadNorms, Mixture, MixtureNames};
use crate::spec::Score;

pub(crate) const FAMILY: Family = Family {
    name: "minimax_m2",
    architectures: &["MiniMaxM2ForCausalLM"],
    model_types: &["minimax_m2"],
    gguf: &["minimax-m2"],
    head_norms: HeadNorms::Row,
    mixture: Some(Mixture {
        score: Score::Sigmoid,
        chosen: Some(8),
        names: MixtureNames {
            router: "layers.{}.block_sparse_moe.gate|layers.{}.mlp.gate",
            correction: "layers.{}.block_sparse_moe.e_score_correction_bias|layers.{}.mlp.e_score_correction_bias",
            gate: "layers.{}.block_sparse_moe.experts.{e}.w1",
            up: "layers.{}.block_sparse_moe.experts.{e}.w3",
            down: "layers.{}.block_sparse_moe.experts.{e}.w2|layers.{}.mlp.experts.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
