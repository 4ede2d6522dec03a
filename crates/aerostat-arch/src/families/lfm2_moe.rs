//! LFM 2 with experts, which sigmoids and a correction choose.

use super::lfm2;
use crate::family::{Factor, Family, Mixture, MixtureNames, Switch, keys};
use crate::spec::Score;

pub(crate) const FAMILY: Family = Family {
    name: "lfm2_moe",
    architectures: &["Lfm2MoeForCausalLM"],
    model_types: &["lfm2_moe"],
    mixture: Some(Mixture {
        score: Score::Sigmoid,
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        normalise_guard: (1e-6, 0.0),
        scale: Factor::Key(&keys::EXPERT_SCALE, 1.0),
        chosen: Some(4),
        names: MixtureNames {
            router: "layers.{}.feed_forward.gate",
            correction: "layers.{}.feed_forward.expert_bias",
            gate: "layers.{}.feed_forward.experts.{e}.w1",
            up: "layers.{}.feed_forward.experts.{e}.w3",
            gate_up: "layers.{}.feed_forward.experts.gate_up_proj",
            down: "layers.{}.feed_forward.experts.{e}.w2|layers.{}.feed_forward.experts.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..lfm2::FAMILY
};
