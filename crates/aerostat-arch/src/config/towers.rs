//! Checkpoints of several towers, of which the text tower is run.

use serde_json::{Map, Value, json};

/// Checkpoints of several towers: `model_type` of the whole, and of its text tower where the configuration does not name it.
pub const TOWERS: &[(&str, &str)] = &[
    ("gemma3", "gemma3_text"),
    ("gemma3n", "gemma3n_text"),
    ("gemma4", "gemma4_text"),
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
    ("llava_next_video", "llama"),
    ("vipllava", "llama"),
    ("llava_onevision", "qwen2"),
    ("idefics3", "llama"),
    ("smolvlm", "llama"),
    ("perception_lm", "llama"),
    ("fast_vlm", "qwen2"),
    ("video_llama_3", "qwen2"),
    ("lighton_ocr", "qwen3"),
    ("kimi_k25", "deepseek_v3"),
    ("glm4v", "glm4v_text"),
    ("glm46v", "glm4v_text"),
    ("glm4v_moe", "glm4v_moe_text"),
    ("exaone4_5", "exaone4"),
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

/// What the text tower of a checkpoint takes where its own configuration lacks a key, instead of what the class of a text model
/// takes: published checkpoints of these leave out what is usual among them. Others take the defaults of the text model's class.
pub(crate) fn text_defaults(model_type: &str) -> Map<String, Value> {
    // `VoxtralConfig` of transformers 5.23.0.
    let defaults = json!({
        "vocab_size": 131_072, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 30,
        "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
        "rope_theta": 1e8, "head_dim": 128,
    });
    match defaults {
        Value::Object(defaults) if model_type == "voxtral" => defaults,
        _ => Map::new(),
    }
}
