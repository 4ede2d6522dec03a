//! Gemma 3n: Gemma 3 with an embedding of each layer, several residual streams (AltUp), shortcuts beside attention (LAuReL),
//! activations that are cut, and keys and values that layers share.

use super::gemma3;
use crate::family::{Factor, Family, Softcap, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "gemma3n",
    architectures: &["Gemma3nForCausalLM"],
    model_types: &["gemma3n_text"],
    gguf: &["gemma3n"],
    norm_offset: 0.0,
    value_norms: true,
    layer_inputs: true,
    shares_kv: true,
    streams: true,
    query_scalar: None,
    score_scale: Factor::Fixed(1.0),
    softcaps: (Softcap::Never, Softcap::Key(Some(30.0))),
    windows: Windows::AllButEvery(5),
    ahead_if_said: false,
    ..gemma3::FAMILY
};
