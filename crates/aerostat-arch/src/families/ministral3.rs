//! Ministral 3: Mistral with YaRN, queries scaled by their position.

use super::mistral;
use crate::family::{Defaults, Family, Temperature};

pub(crate) const FAMILY: Family = Family {
    name: "ministral3",
    architectures: &["Ministral3ForCausalLM"],
    model_types: &["ministral3"],
    temperature: Temperature::AllLayers,
    defaults: Defaults {
        head_dim: Some(128),
        rope: r#"{"rope_type": "yarn", "rope_theta": 1e6, "factor": 16, "beta_fast": 32, "beta_slow": 1, "mscale": 1,
            "mscale_all_dim": 1, "original_max_position_embeddings": 16384, "llama_4_scaling_beta": 0.1}"#,
        window: None,
        context: 262_144,
        eps: 1e-5,
        ..mistral::FAMILY.defaults
    },
    ..mistral::FAMILY
};
