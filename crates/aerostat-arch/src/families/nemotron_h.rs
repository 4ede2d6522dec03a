//! Nemotron H and Nemotron 3: layers are state spaces, attention without rotation, MLPs of squared ReLU, or experts of them.

use crate::family::{
    Bias, Factor, Family, MixerKind, Mixers, Mixture, MixtureNames, Names, Rotated, SpaceFamily, SpaceNames,
    Steps, Switch, keys,
};
use crate::spec::{Activation, Score};

pub(crate) const FAMILY: Family = Family {
    name: "nemotron_h",
    architectures: &["NemotronHForCausalLM"],
    model_types: &["nemotron_h"],
    gguf: &["nemotron_h", "nemotron_h_moe"],
    gguf_names: Names { mlp_norm: "blk.{}.attn_norm", ..Names::GGUF },
    names: Names {
        embedding: "embeddings",
        final_norm: "norm_f",
        attention_norm: "layers.{}.norm",
        mlp_norm: "layers.{}.norm",
        q: "layers.{}.mixer.q_proj",
        k: "layers.{}.mixer.k_proj",
        v: "layers.{}.mixer.v_proj",
        o: "layers.{}.mixer.o_proj",
        up: "layers.{}.mixer.up_proj",
        down: "layers.{}.mixer.down_proj",
        ..Names::HUGGING_FACE
    },
    rotated: Rotated::None,
    gated: false,
    activation: Activation::ReluSquared,
    activation_key: "mlp_hidden_act",
    mlp_bias: Bias::Key("mlp_bias", false),
    mixers: Mixers::Listed(&[MixerKind::Space, MixerKind::Nothing, MixerKind::Attention, MixerKind::Nothing]),
    one_part: true,
    space: Some(SpaceFamily {
        names: SpaceNames::MIXER,
        input_bias: Bias::Key("use_bias", false),
        output_bias: Bias::Key("use_bias", false),
        steps: Steps::AtLeast("time_step_min", "mamba_dt_min"),
        ..SpaceFamily::PLAIN
    }),
    mixture: Some(Mixture {
        score: Score::Sigmoid,
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        normalise_guard: (1e-20, 0.0),
        scale: Factor::Key(&keys::EXPERT_SCALE, 1.0),
        chosen: Some(2),
        groups: Some((2, false)),
        names: MixtureNames {
            router: "layers.{}.mixer.gate",
            correction: "layers.{}.mixer.gate.e_score_correction_bias",
            up: "layers.{}.mixer.experts.{e}.up_proj|layers.{}.mixer.experts.up_proj",
            down: "layers.{}.mixer.experts.{e}.down_proj|layers.{}.mixer.experts.down_proj",
            latent_down: "layers.{}.mixer.fc1_latent_proj",
            latent_up: "layers.{}.mixer.fc2_latent_proj",
            shared_up: "layers.{}.mixer.shared_experts.up_proj",
            shared_down: "layers.{}.mixer.shared_experts.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
