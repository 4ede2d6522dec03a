//! InternLM 2 and 2.5: Llama with each KV head's queries, key and value side by side in one tensor.

use crate::family::{Bias, Family, Fused, Names};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "internlm2",
    architectures: &["InternLM2ForCausalLM"],
    model_types: &["internlm2"],
    gguf: &["internlm2"],
    gguf_rope: RopeStyle::Interleaved,
    names: Names {
        embedding: "tok_embeddings",
        head: "output",
        attention_norm: "layers.{}.attention_norm",
        qkv: Some(("layers.{}.attention.wqkv", Fused::ByKvHead)),
        o: "layers.{}.attention.wo",
        mlp_norm: "layers.{}.ffn_norm",
        gate: "layers.{}.feed_forward.w1",
        up: "layers.{}.feed_forward.w3",
        down: "layers.{}.feed_forward.w2",
        ..Names::HUGGING_FACE
    },
    qkv_bias: Bias::Key("bias", true),
    output_bias: Bias::Key("bias", true),
    ..Family::PLAIN
};
