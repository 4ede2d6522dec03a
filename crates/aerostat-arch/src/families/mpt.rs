//! MPT: linear biases, layer norms without bias, q, k and v in one tensor and clipped, no biases at all.
//!
//! Its class reads neither `no_bias` nor `logit_scale`.

use crate::family::{AlibiRule, Family, Fused, Names, Refused, Rotated};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "mpt",
    architectures: &["MptForCausalLM", "MPTForCausalLM"],
    model_types: &["mpt"],
    gguf: &["mpt"],
    refused: &[
        Refused::Flag("attn_config.alibi", false),
        Refused::Flag("attn_config.qk_ln", true),
        Refused::Flag("attn_config.prefix_lm", true),
    ],
    names: Names {
        embedding: "wte",
        final_norm: "norm_f",
        attention_norm: "blocks.{}.norm_1",
        qkv: Some(("blocks.{}.attn.Wqkv", Fused::Stacked)),
        o: "blocks.{}.attn.out_proj",
        mlp_norm: "blocks.{}.norm_2",
        up: "blocks.{}.ffn.up_proj",
        down: "blocks.{}.ffn.down_proj",
        ..Names::HUGGING_FACE
    },
    rotated: Rotated::None,
    norm: NormKind::Layer,
    gated: false,
    activation: Activation::GeluErf,
    clip_qkv: true,
    alibi: AlibiRule::UpTo,
    ..Family::PLAIN
};
