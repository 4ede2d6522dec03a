//! GPT-NeoX and Pythia: a parallel block with two layer norms, queries, keys and values of a head side by side.

use crate::family::{Bias, Family, Fused, Names, Switch, keys};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "gpt_neox",
    architectures: &["GPTNeoXForCausalLM"],
    model_types: &["gpt_neox"],
    gguf: &["gptneox"],
    names: Names {
        embedding: "embed_in",
        final_norm: "final_layer_norm",
        head: "embed_out|lm_head",
        qkv: Some(("layers.{}.attention.query_key_value", Fused::ByKvHead)),
        o: "layers.{}.attention.dense",
        up: "layers.{}.mlp.dense_h_to_4h",
        down: "layers.{}.mlp.dense_4h_to_h",
        ..Names::HUGGING_FACE
    },
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    parallel: Switch::Flag(&keys::PARALLEL, true),
    gated: false,
    activation: Activation::GeluErf,
    qkv_bias: Bias::Key("attention_bias", true),
    output_bias: Bias::Key("attention_bias", true),
    mlp_bias: Bias::Always,
    ..Family::PLAIN
};
