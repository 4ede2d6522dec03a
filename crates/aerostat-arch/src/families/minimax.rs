//! MiniMax Text 01 as transformers names it: lightning attention, on some layers attention, norms that replace the stream, experts.

use super::mixtral;
use crate::family::{Family, LightningFamily, MixerKind, Mixers, Refused, StreamNorms, StreamScales};

pub(crate) const FAMILY: Family = Family {
    name: "minimax",
    architectures: &["MiniMaxForCausalLM"],
    model_types: &["minimax"],
    gguf: &[],
    refused: &[Refused::Given("sliding_window")],
    stream_norms: StreamNorms::Replaced,
    mixers: Mixers::Turns(&[MixerKind::Attention, MixerKind::Lightning]),
    lightning: Some(LightningFamily {
        qkv: "layers.{}.self_attn.qkv_proj",
        gate: "layers.{}.self_attn.output_gate",
        norm: "layers.{}.self_attn.norm",
        o: "layers.{}.self_attn.out_proj",
    }),
    stream_scales: Some(StreamScales {
        attention: ("full_attn_alpha_factor", "full_attn_beta_factor"),
        lightning: ("linear_attn_alpha_factor", "linear_attn_beta_factor"),
        mlp: ("mlp_alpha_factor", "mlp_beta_factor"),
    }),
    ..mixtral::FAMILY
};
