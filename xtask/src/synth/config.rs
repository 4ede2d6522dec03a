//! The configuration files of a shape, as transformers 5 spells them.

use serde_json::{Value, json};

use super::random::Dtype;
use super::shape::{Family, Glm5, Rope, Shape};

/// Token ids that begin and end a text, whatever the vocabulary.
const BEGIN_TOKEN: u64 = 1;
const END_TOKEN: u64 = 2;

/// In Gemma 3 every sixth layer sees everything.
const GEMMA_FULL_EVERY: u64 = 6;

/// The contents of `config.json`.
pub(super) fn model(shape: &Shape, dtype: Dtype) -> Value {
    let mut config = json!({
        "attention_dropout": 0.0,
        "bos_token_id": BEGIN_TOKEN,
        "dtype": dtype.long_name(),
        "eos_token_id": END_TOKEN,
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_parameters": rope(shape),
        "tie_word_embeddings": shape.tied,
        "use_cache": true,
        "vocab_size": shape.vocab,
    });
    if shape.family != Family::Qwen2 {
        config["head_dim"] = json!(shape.head_dim);
    }
    if let (Some(config), Value::Object(own)) = (config.as_object_mut(), own_keys(shape)) {
        config.extend(own);
    }
    config
}

/// The contents of `generation_config.json`.
pub(super) fn generation() -> Value {
    json!({ "bos_token_id": BEGIN_TOKEN, "eos_token_id": END_TOKEN, "use_cache": true })
}

/// The keys that only this family has.
fn own_keys(shape: &Shape) -> Value {
    match shape.family {
        Family::Llama => json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "hidden_act": "silu",
            "mlp_bias": false,
            "model_type": "llama",
        }),
        Family::Mistral => json!({
            "architectures": ["MistralForCausalLM"],
            "hidden_act": "silu",
            "model_type": "mistral",
            "sliding_window": null,
        }),
        Family::Qwen2 => json!({
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_act": "silu",
            "layer_types": layer_types(shape),
            "max_window_layers": shape.layers,
            "model_type": "qwen2",
            "sliding_window": null,
            "use_sliding_window": false,
        }),
        Family::Qwen3 => json!({
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": false,
            "hidden_act": "silu",
            "layer_types": layer_types(shape),
            "max_window_layers": shape.layers,
            "model_type": "qwen3",
            "sliding_window": null,
            "use_sliding_window": false,
        }),
        Family::Mixtral | Family::Qwen3Moe | Family::Glm5 => expert_keys(shape),
        Family::Gemma3 => json!({
            "architectures": ["Gemma3ForCausalLM"],
            "attention_bias": false,
            "attn_logit_softcapping": null,
            "final_logit_softcapping": null,
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": layer_types(shape),
            "model_type": "gemma3_text",
            "query_pre_attn_scalar": shape.head_dim,
            "sliding_window": shape.window,
        }),
    }
}

/// Those of families with experts.
fn expert_keys(shape: &Shape) -> Value {
    match shape.family {
        Family::Mixtral => json!({
            "architectures": ["MixtralForCausalLM"],
            "hidden_act": "silu",
            "model_type": "mixtral",
            "num_experts_per_tok": shape.experts_chosen,
            "num_local_experts": shape.experts,
            "sliding_window": null,
        }),
        Family::Qwen3Moe => json!({
            "architectures": ["Qwen3MoeForCausalLM"],
            "attention_bias": false,
            "decoder_sparse_step": 1,
            "hidden_act": "silu",
            "mlp_only_layers": [],
            "model_type": "qwen3_moe",
            "moe_intermediate_size": shape.intermediate,
            "norm_topk_prob": true,
            "num_experts": shape.experts,
            "num_experts_per_tok": shape.experts_chosen,
            "sliding_window": null,
            "use_sliding_window": false,
        }),
        Family::Glm5 => json!({
            "architectures": ["GlmMoeDsaForCausalLM"],
            "attention_bias": false,
            "first_k_dense_replace": Glm5::DENSE_LAYERS,
            "hidden_act": "silu",
            "index_head_dim": Glm5::INDEX_DIM,
            "index_n_heads": Glm5::INDEX_HEADS,
            "index_topk": 2048,
            "intermediate_size": Glm5::DENSE_WIDTH,
            "kv_lora_rank": Glm5::KV_RANK,
            "model_type": "glm_moe_dsa",
            "moe_intermediate_size": shape.intermediate,
            "n_group": 1,
            "n_routed_experts": shape.experts,
            "n_shared_experts": 1,
            "norm_topk_prob": true,
            "num_experts_per_tok": shape.experts_chosen,
            "q_lora_rank": Glm5::Q_RANK,
            "qk_nope_head_dim": Glm5::NOPE,
            "qk_rope_head_dim": Glm5::ROPE,
            "routed_scaling_factor": 2.5,
            "topk_group": 1,
            "v_head_dim": Glm5::VALUE,
        }),
        _ => Value::Null,
    }
}

fn layer_types(shape: &Shape) -> Vec<&'static str> {
    let is_full = |layer: &u64| shape.window == 0 || (layer + 1).is_multiple_of(GEMMA_FULL_EVERY);
    let name = |layer| if is_full(&layer) { "full_attention" } else { "sliding_attention" };
    (0..shape.layers).map(name).collect()
}

fn rope(shape: &Shape) -> Value {
    let theta = shape.rope_theta;
    let full = match shape.rope {
        Rope::Plain => json!({ "rope_theta": theta, "rope_type": "default" }),
        Rope::Linear(factor) => json!({ "factor": factor, "rope_theta": theta, "rope_type": "linear" }),
        Rope::Llama3(factor) => json!({
            "factor": factor,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_theta": theta,
            "rope_type": "llama3",
        }),
    };
    if shape.window == 0 {
        return full;
    }
    json!({
        "full_attention": full,
        "sliding_attention": { "rope_theta": 1e4, "rope_type": "default" },
    })
}

#[cfg(test)]
mod tests {
    use super::super::shape::Overrides;
    use super::*;

    #[test]
    fn families_have_their_own_keys() {
        let config = |name| model(&Shape::named(name, &Overrides::default()).expect("known"), Dtype::Bf16);
        let llama = config("llama3-8b");
        assert_eq!(llama["rope_parameters"]["rope_type"], "llama3");
        assert_eq!(llama["dtype"], "bfloat16");
        let gemma = config("gemma3-1b");
        assert_eq!(gemma["layer_types"][5], "full_attention");
        assert_eq!(gemma["layer_types"][6], "sliding_attention");
        assert_eq!(gemma["layer_types"].as_array().map(Vec::len), Some(26));
        assert_eq!(gemma["rope_parameters"]["sliding_attention"]["rope_theta"], 1e4);
        assert_eq!(config("qwen2.5-7b")["head_dim"], Value::Null);
        assert_eq!(config("qwen3-8b")["head_dim"], 128);
    }
}
