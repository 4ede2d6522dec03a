//! VaultGemma: Gemma 2 without the norms on outputs.

use super::gemma2;
use crate::family::{Family, PostNorms};

pub(crate) const FAMILY: Family = Family {
    name: "vaultgemma",
    architectures: &["VaultGemmaForCausalLM"],
    model_types: &["vaultgemma"],
    gguf: &[],
    post_norms: PostNorms::Never,
    ..gemma2::FAMILY
};
