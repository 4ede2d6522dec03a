//! Llama 4: attention in chunks, but every fourth layer sees all and is not rotated; one expert beside a shared one.

use crate::family::{
    Bias, Family, HeadNorms, Mixture, MixtureNames, Names, Rotated, Switch, Temperature, Windows,
};
use crate::spec::{Joined, RopeStyle, Score};

pub(crate) const FAMILY: Family = Family {
    name: "llama4",
    architectures: &["Llama4ForCausalLM"],
    model_types: &["llama4_text"],
    gguf: &["llama4"],
    names: Names {
        gate: "layers.{}.feed_forward.gate_proj",
        up: "layers.{}.feed_forward.up_proj",
        down: "layers.{}.feed_forward.down_proj",
        ..Names::HUGGING_FACE
    },
    rope: RopeStyle::Interleaved,
    gguf_rope: RopeStyle::Interleaved,
    rotated: Rotated::AllButEvery(4),
    head_norms: HeadNorms::Bare("use_qk_norm"),
    norms_after_rope: true,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    windows: Windows::ChunksOfRotated,
    temperature: Temperature::Unrotated,
    mixture: Some(Mixture {
        score: Score::Sigmoid,
        normalise: Switch::Never,
        gguf_normalise: false,
        chosen: Some(1),
        at_input: true,
        k_major: Some(Joined::Halves),
        names: MixtureNames {
            router: "layers.{}.feed_forward.router",
            gate_up: "layers.{}.feed_forward.experts.gate_up_proj",
            down: "layers.{}.feed_forward.experts.down_proj",
            shared_gate: "layers.{}.feed_forward.shared_expert.gate_proj",
            shared_up: "layers.{}.feed_forward.shared_expert.up_proj",
            shared_down: "layers.{}.feed_forward.shared_expert.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
