//! GPT-Neo: GPT-2 with a window on every other layer, scores that are not scaled, and matrices stored by outputs.

use super::gpt2;
use crate::family::{Bias, Factor, Family, Names, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "gpt_neo",
    architectures: &["GPTNeoForCausalLM"],
    model_types: &["gpt_neo"],
    gguf: &[],
    names: Names {
        q: "h.{}.attn.attention.q_proj",
        k: "h.{}.attn.attention.k_proj",
        v: "h.{}.attn.attention.v_proj",
        qkv: None,
        o: "h.{}.attn.attention.out_proj",
        ..gpt2::FAMILY.names
    },
    by_inputs: false,
    qkv_bias: Bias::Never,
    windows: Windows::Local,
    score_switches: false,
    score_scale: Factor::Fixed(1.0),
    ..gpt2::FAMILY
};
