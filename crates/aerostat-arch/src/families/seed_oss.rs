//! Seed-OSS: Llama with biases on q, k and v.

use crate::family::{Bias, Defaults, Family, Names};

pub(crate) const FAMILY: Family = Family {
    name: "seed_oss",
    architectures: &["SeedOssForCausalLM"],
    model_types: &["seed_oss"],
    gguf: &["seed_oss"],
    gguf_names: Names { mlp_norm: "blk.{}.post_attention_norm", ..Names::GGUF },
    qkv_bias: Bias::Key("attention_bias", true),
    output_bias: Bias::Key("attention_out_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    defaults: Defaults { kv_heads: Some(8), head_dim: Some(128), context: 524_288, ..Family::PLAIN.defaults },
    ..Family::PLAIN
};
