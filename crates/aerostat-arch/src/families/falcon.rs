//! Falcon 7B, 40B, 180B, 11B and RW: a parallel block with one or two layer norms, few key/value heads; RW with linear biases.

use crate::family::{AlibiRule, Bias, Family, Fused, Names, Switch, keys};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "falcon",
    architectures: &["FalconForCausalLM"],
    model_types: &["falcon"],
    gguf: &["falcon"],
    names: Names {
        embedding: "word_embeddings",
        final_norm: "ln_f",
        attention_norm: "h.{}.input_layernorm|h.{}.ln_attn",
        qkv: Some(("h.{}.self_attention.query_key_value", Fused::ByKvHead)),
        o: "h.{}.self_attention.dense",
        mlp_norm: "h.{}.post_attention_layernorm|h.{}.ln_mlp",
        up: "h.{}.mlp.dense_h_to_4h",
        down: "h.{}.mlp.dense_4h_to_h",
        ..Names::HUGGING_FACE
    },
    // With two norms, `attn_norm` is the MLP's.
    gguf_names: Names {
        attention_norm: "blk.{}.attn_norm_2|blk.{}.attn_norm",
        mlp_norm: "blk.{}.attn_norm",
        ..Names::GGUF
    },
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    parallel: Switch::Flag(&keys::PARALLEL, true),
    gated: false,
    activation: Activation::GeluErf,
    activation_key: "activation",
    qkv_bias: Bias::Key("bias", false),
    output_bias: Bias::Key("bias", false),
    mlp_bias: Bias::Key("bias", false),
    alibi: AlibiRule::RoundedIf("alibi"),
    multi_query: true,
    ..Family::PLAIN
};
