//! OLMo 3: OLMo 2 with a window on three layers of four. The GGUF files of both call themselves "olmo2".

use super::olmo2;
use crate::family::{Family, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "olmo3",
    architectures: &["Olmo3ForCausalLM"],
    model_types: &["olmo3"],
    gguf: &["olmo2"],
    windows: Windows::AllButEvery(4),
    local_rope_theta: Some(500_000.0),
    ..olmo2::FAMILY
};
