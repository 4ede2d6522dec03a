//! DeepSeek V2: compressed keys and values, experts in groups, of which a softmax decides.

use crate::family::{Bias, Factor, Family, LatentFamily, Mixture, Switch, keys};
use crate::spec::{RopeStyle, Score};

pub(crate) const FAMILY: Family = Family {
    name: "deepseek_v2",
    architectures: &["DeepseekV2ForCausalLM"],
    model_types: &["deepseek_v2"],
    gguf: &["deepseek2"],
    rope: RopeStyle::Interleaved,
    gguf_rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    latent: Some(LatentFamily::PLAIN),
    mixture: Some(Mixture {
        score: Score::Softmax,
        normalise: Switch::Never,
        gguf_normalise: false,
        normalise_guard: (1e-20, 0.0),
        scale: Factor::Key(&keys::EXPERT_SCALE, 1.0),
        groups: Some((1, true)),
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
