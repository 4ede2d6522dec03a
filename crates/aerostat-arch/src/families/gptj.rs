//! GPT-J: a parallel block with one layer norm, neighbours rotated, a bias on the head.

use crate::family::{Bias, Family, Names, Switch};
use crate::spec::{Activation, NormKind, RopeStyle};

pub(crate) const FAMILY: Family = Family {
    name: "gptj",
    architectures: &["GPTJForCausalLM"],
    model_types: &["gptj"],
    names: Names {
        embedding: "wte",
        final_norm: "ln_f",
        attention_norm: "h.{}.ln_1",
        q: "h.{}.attn.q_proj",
        k: "h.{}.attn.k_proj",
        v: "h.{}.attn.v_proj",
        o: "h.{}.attn.out_proj",
        // Its block has no second norm.
        mlp_norm: "",
        up: "h.{}.mlp.fc_in",
        down: "h.{}.mlp.fc_out",
        ..Names::HUGGING_FACE
    },
    rope: RopeStyle::Interleaved,
    norm: NormKind::Layer,
    norm_bias: Bias::Always,
    parallel: Switch::Always,
    gated: false,
    activation: Activation::GeluTanh,
    activation_key: "activation_function",
    mlp_bias: Bias::Always,
    head_bias: Bias::Always,
    ..Family::PLAIN
};
