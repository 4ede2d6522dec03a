//! ERNIE 4.5, dense: Llama in which neighbours are rotated.

use crate::family::{Bias, Family};
use crate::spec::RopeStyle;

pub(crate) const FAMILY: Family = Family {
    name: "ernie4_5",
    architectures: &["Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"],
    model_types: &["ernie4_5"],
    gguf: &["ernie4_5"],
    rope: RopeStyle::Interleaved,
    gguf_rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Key("use_bias", false),
    output_bias: Bias::Key("use_bias", false),
    mlp_bias: Bias::Key("use_bias", false),
    ..Family::PLAIN
};
