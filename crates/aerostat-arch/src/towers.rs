//! Checkpoints of several towers, of which the text tower is run.

/// Checkpoints of several towers: `model_type` of the whole, and of its text tower where the configuration does not name it.
pub const TOWERS: &[(&str, &str)] = &[
    ("gemma3", "gemma3_text"),
    ("mistral3", "mistral"),
    ("llama4", "llama4_text"),
    ("qwen2_vl", "qwen2_vl_text"),
    ("qwen2_5_vl", "qwen2_5_vl_text"),
    ("qwen3_vl", "qwen3_vl_text"),
    ("qwen3_vl_moe", "qwen3_vl_moe_text"),
    ("qwen3_5", "qwen3_5_text"),
    ("qwen3_5_moe", "qwen3_5_moe_text"),
    ("llava", "llama"),
    ("llava_next", "llama"),
    ("llava_onevision", "qwen2"),
    ("internvl", "qwen2"),
    ("aya_vision", "cohere2"),
    ("cohere2_vision", "cohere2"),
    ("voxtral", "llama"),
    ("qwen2_audio", "qwen2"),
];

/// The type of the text tower in a checkpoint of several, unless its configuration names another.
pub(crate) fn text_type(model_type: &str) -> Option<&'static str> {
    TOWERS.iter().find(|(whole, _)| *whole == model_type).map(|(_, text)| *text)
}
