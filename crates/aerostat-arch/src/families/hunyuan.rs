//! HunYuan, dense and with experts: Llama with heads normalised after rotation, its base stretched once and for all.

use crate::family::{Bias, Family, HeadNorms, Mixture, MixtureNames, Names};

pub(crate) const FAMILY: Family = Family {
    name: "hunyuan",
    architectures: &["HunYuanDenseV1ForCausalLM", "HunYuanMoEV1ForCausalLM"],
    model_types: &["hunyuan_v1_dense", "hunyuan_v1_moe"],
    gguf: &["hunyuan-dense", "hunyuan-moe"],
    names: Names {
        q_norm: "layers.{}.self_attn.query_layernorm",
        k_norm: "layers.{}.self_attn.key_layernorm",
        ..Names::HUGGING_FACE
    },
    head_norms: HeadNorms::Shared,
    norms_after_rope: true,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mixture: Some(Mixture {
        chosen: Some(1),
        names: MixtureNames {
            router: "layers.{}.mlp.gate.wg",
            shared_gate: "layers.{}.mlp.shared_mlp.gate_proj",
            shared_up: "layers.{}.mlp.shared_mlp.up_proj",
            shared_down: "layers.{}.mlp.shared_mlp.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
