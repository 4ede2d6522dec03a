//! MiniCPM 3: MiniCPM with compressed keys and values.

use super::minicpm;
use crate::family::{Bias, Family, LatentFamily};

pub(crate) const FAMILY: Family = Family {
    name: "minicpm3",
    architectures: &["MiniCPM3ForCausalLM"],
    model_types: &["minicpm3"],
    gguf: &[],
    refused: &[],
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    latent: Some(LatentFamily { even_values: true, ..LatentFamily::PLAIN }),
    ..minicpm::FAMILY
};
