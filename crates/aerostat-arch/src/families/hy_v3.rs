//! Hunyuan 3: Qwen 3 with experts as in DeepSeek V3, the first layer dense.

use super::glm4_moe;
use crate::family::{Bias, Factor, Family, HeadNorms, Mixture, MixtureNames, Switch, keys};

pub(crate) const FAMILY: Family = Family {
    name: "hy_v3",
    architectures: &["HYV3ForCausalLM"],
    model_types: &["hy_v3"],
    head_norms: HeadNorms::Shared,
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    mixture: Some(Mixture {
        normalise: Switch::Always,
        scale: Factor::Key(&keys::EXPERT_SCALE, 2.826),
        groups: None,
        names: MixtureNames {
            router: "layers.{}.mlp.router.gate|layers.{}.mlp.gate",
            correction: "layers.{}.mlp.expert_bias|layers.{}.mlp.e_score_correction_bias",
            shared_gate: "layers.{}.mlp.shared_mlp.gate_proj|layers.{}.mlp.shared_experts.gate_proj",
            shared_up: "layers.{}.mlp.shared_mlp.up_proj|layers.{}.mlp.shared_experts.up_proj",
            shared_down: "layers.{}.mlp.shared_mlp.down_proj|layers.{}.mlp.shared_experts.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..glm4_moe::MIXTURE
    }),
    ..Family::PLAIN
};
