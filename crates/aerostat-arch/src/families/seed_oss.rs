//! Seed-OSS: Llama with biases on q, k and v.

use crate::family::{Bias, Family, Names};

pub(crate) const FAMILY: Family = Family {
    name: "seed_oss",
    architectures: &["SeedOssForCausalLM"],
    model_types: &["seed_oss"],
    gguf: &["seed_oss"],
    gguf_names: Names { mlp_norm: "blk.{}.post_attention_norm", ..Names::GGUF },
    qkv_bias: Bias::Key("attention_bias", true),
    output_bias: Bias::Key("attention_out_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    ..Family::PLAIN
};
