//! LFM 2: gated short convolutions, on some layers attention with normalised queries and keys.

use crate::family::{Bias, ConvolutionNames, Family, HeadNorms, Mixers, Names};

pub(crate) const FAMILY: Family = Family {
    name: "lfm2",
    architectures: &["Lfm2ForCausalLM"],
    model_types: &["lfm2"],
    names: Names {
        final_norm: "embedding_norm",
        attention_norm: "layers.{}.operator_norm",
        o: "layers.{}.self_attn.out_proj",
        q_norm: "layers.{}.self_attn.q_layernorm",
        k_norm: "layers.{}.self_attn.k_layernorm",
        mlp_norm: "layers.{}.ffn_norm",
        gate: "layers.{}.feed_forward.w1",
        up: "layers.{}.feed_forward.w3",
        down: "layers.{}.feed_forward.w2",
        ..Names::HUGGING_FACE
    },
    head_norms: HeadNorms::Shared,
    qkv_bias: Bias::Never,
    mixers: Mixers::Listed(&[]),
    convolution: Some(ConvolutionNames::HUGGING_FACE),
    ..Family::PLAIN
};
