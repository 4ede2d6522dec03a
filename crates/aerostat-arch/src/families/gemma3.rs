//! Gemma 3 text models: Gemma 2 without caps, with head norms and two rope bases.

use super::gemma2;
use crate::family::{Family, HeadNorms, Softcap, Windows};

pub(crate) const FAMILY: Family = Family {
    name: "gemma3",
    architectures: &["Gemma3ForCausalLM"],
    model_types: &["gemma3_text"],
    gguf: &["gemma3"],
    head_norms: HeadNorms::Shared,
    windows: Windows::AllButEvery(6),
    local_rope_theta: Some(10_000.0),
    ahead_if_said: true,
    query_scalar: Some(62),
    softcaps: (Softcap::Never, Softcap::Key(None)),
    ..gemma2::FAMILY
};
