//! Gemma 4: Gemma 3 with values normalised, larger heads without a window, whose values may be their keys; the small ones with an
//! embedding of each layer and keys and values that layers share, or with experts beside the MLP.

use super::gemma3;
use crate::family::{ApartNames, Factor, Family, Mixture, MixtureNames, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "gemma4",
    architectures: &["Gemma4ForCausalLM"],
    model_types: &["gemma4_text"],
    gguf: &["gemma4"],
    norm_offset: 0.0,
    wide_heads: true,
    value_norms: true,
    block_scale: "layers.{}.layer_scalar",
    layer_inputs: true,
    shares_kv: true,
    query_scalar: None,
    score_scale: Factor::Fixed(1.0),
    windows: Windows::AllButEveryAndLast(6),
    ahead_if_said: false,
    mixture: Some(Mixture {
        enabled: "enable_moe_block",
        apart: true,
        names: MixtureNames {
            router: "layers.{}.router.proj",
            gate_up: "layers.{}.experts.gate_up_proj",
            down: "layers.{}.experts.down_proj",
            expert_scales: "layers.{}.router.per_expert_scale",
            apart: ApartNames::HUGGING_FACE,
            shared_gate: "layers.{}.mlp.gate_proj",
            shared_up: "layers.{}.mlp.up_proj",
            shared_down: "layers.{}.mlp.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        gguf_names: MixtureNames {
            expert_scales: "blk.{}.ffn_down_exps.scale",
            shared_gate: "blk.{}.ffn_gate",
            shared_up: "blk.{}.ffn_up",
            shared_down: "blk.{}.ffn_down",
            ..MixtureNames::GGUF
        },
        ..Mixture::PLAIN
    }),
    ..gemma3::FAMILY
};
