//! Arcee AFM: Llama with an MLP of squared ReLU without a gate.

use super::llama;
use crate::family::Family;
use crate::spec::Activation;

pub(crate) const FAMILY: Family = Family {
    name: "arcee",
    architectures: &["ArceeForCausalLM"],
    model_types: &["arcee"],
    gguf: &["arcee"],
    gated: false,
    activation: Activation::ReluSquared,
    ..llama::FAMILY
};
