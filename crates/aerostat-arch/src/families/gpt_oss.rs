//! gpt-oss: a sink for each head, a window on every other layer, clipped gates, biases on everything, experts too.

use crate::family::{Bias, Family, Mixture, MixtureNames, Names, Switch, Windows};
use crate::spec::{Activation, Joined, Score};

pub(crate) const FAMILY: Family = Family {
    name: "gpt_oss",
    architectures: &["GptOssForCausalLM"],
    model_types: &["gpt_oss"],
    gguf: &["gpt-oss"],
    gguf_names: Names { mlp_norm: "blk.{}.post_attention_norm", ..Names::GGUF },
    activation: Activation::ClippedSilu { alpha: 1.702, limit: 7.0 },
    qkv_bias: Bias::Key("attention_bias", true),
    output_bias: Bias::Key("attention_bias", true),
    windows: Windows::EveryOther,
    sinks: true,
    mixture: Some(Mixture {
        score: Score::SoftmaxOfChosen,
        normalise: Switch::Never,
        gguf_normalise: false,
        chosen: Some(4),
        router_bias: Bias::Always,
        bias: Bias::Always,
        k_major: Some(Joined::Alternating),
        names: MixtureNames { router: "layers.{}.mlp.router", ..MixtureNames::HUGGING_FACE },
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
