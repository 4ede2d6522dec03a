//! Arcee AFM: Llama with an MLP of squared ReLU without a gate.

use super::llama;
use crate::family::{Defaults, Family};
use crate::spec::Activation;

pub(crate) const FAMILY: Family = Family {
    name: "arcee",
    architectures: &["ArceeForCausalLM"],
    model_types: &["arcee"],
    gguf: &["arcee"],
    gated: false,
    activation: Activation::ReluSquared,
    defaults: Defaults { context: 4096, eps: 1e-5, ..Family::PLAIN.defaults },
    ..llama::FAMILY
};
