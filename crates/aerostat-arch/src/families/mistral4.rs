//! Mistral 4: DeepSeek V3 with queries scaled by their position, groups of experts opened by softmax.

use super::deepseek_v3;
use crate::family::{Defaults, Factor, Family, Mixture, Switch, Temperature, keys};

pub(crate) const FAMILY: Family = Family {
    name: "mistral4",
    architectures: &["Mistral4ForCausalLM"],
    model_types: &["mistral4"],
    temperature: Temperature::AllLayers,
    mixture: Some(Mixture {
        normalise: Switch::Flag(&keys::EXPERT_NORMALISE, true),
        normalise_guard: (1e-20, 0.0),
        scale: Factor::Key(&keys::EXPERT_SCALE, 1.0),
        chosen: Some(4),
        groups: Some((2, true)),
        ..Mixture::PLAIN
    }),
    defaults: Defaults {
        context: 1_048_576,
        rope: r#"{"rope_type": "yarn", "rope_theta": 1e4, "factor": 128, "beta_fast": 32, "beta_slow": 1, "mscale": 1,
            "mscale_all_dim": 1, "original_max_position_embeddings": 8192, "llama_4_scaling_beta": 0.1}"#,
        ..deepseek_v3::FAMILY.defaults
    },
    ..deepseek_v3::FAMILY
};
