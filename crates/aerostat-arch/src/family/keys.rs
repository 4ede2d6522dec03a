//! The names of configuration values, in `config.json` and in GGUF metadata.

/// The names of one configuration value. In `config.json`, the first is the usual one, others are those of some families; the
/// key of GGUF metadata is completed by the architecture's name.
#[derive(Debug)]
pub struct Key {
    pub(crate) hugging_face: &'static [&'static str],
    pub(crate) gguf: &'static str,
}

macro_rules! keys {
    ($($name:ident = [$($hf:literal),*], $gguf:literal;)*) => {
        $(pub(crate) const $name: Key = Key { hugging_face: &[$($hf),*], gguf: $gguf };)*
    };
}

keys! {
    LAYERS = ["num_hidden_layers", "n_layer", "num_layers", "n_layers"], "block_count";
    HIDDEN = ["hidden_size", "n_embd", "n_embed", "d_model", "dim"], "embedding_length";
    EMBEDDING_WIDTH = ["word_embed_proj_dim"], "embedding_length";
    INTERMEDIATE =
        ["intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim", "moe_intermediate_size"], "feed_forward_length";
    DENSE_INTERMEDIATE = ["intermediate_size_mlp", "shared_intermediate_size", "block_ff_dim"], "feed_forward_length";
    HEADS = ["num_attention_heads", "n_head", "num_heads", "n_heads"], "attention.head_count";
    KV_HEADS = ["num_key_value_heads", "num_kv_heads", "multi_query_group_num"], "attention.head_count_kv";
    HEAD_DIM = ["head_dim", "kv_channels"], "attention.key_length";
    CONTEXT = ["max_position_embeddings", "n_positions", "seq_length", "model_max_length", "max_seq_len"], "context_length";
    EPS = ["rms_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps"], "attention.layer_norm_rms_epsilon";
    LAYER_EPS =
        ["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", "layernorm_epsilon", "rms_norm_eps"],
        "attention.layer_norm_epsilon";
    WINDOW = ["sliding_window", "window_size", "local_attention"], "attention.sliding_window";
    CHUNK = ["attention_chunk_size"], "attention.chunk_size";
    WINDOW_PATTERN = ["sliding_window_pattern"], "attention.sliding_window_pattern";
    GLOBAL_PATTERN = ["global_attn_every_n_layers"], "attention.global_pattern";
    NO_ROPE_INTERVAL = ["no_rope_layer_interval"], "no_rope_layer_interval";
    ATTENTION_SOFTCAP = ["attn_logit_softcapping"], "attn_logit_softcapping";
    CLIP = ["clip_qkv"], "attention.clamp_kqv";
    FINAL_SOFTCAP = ["final_logit_softcapping"], "final_logit_softcapping";
    PARALLEL = ["use_parallel_residual", "parallel_attn"], "use_parallel_residual";
    EMBEDDING_SCALE = ["embedding_multiplier", "scale_emb"], "embedding_scale";
    RESIDUAL_SCALE = ["residual_multiplier"], "residual_scale";
    RESIDUAL_DEPTH = ["scale_depth"], "residual_scale";
    SCORE_SCALE = ["attention_multiplier"], "attention.scale";
    LOGIT_SCALE = ["logit_scale", "lm_head_multiplier"], "logit_scale";
    LOGIT_WIDTH = ["dim_model_base"], "logit_scale";
    EXPERTS =
        ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"], "expert_count";
    EXPERTS_CHOSEN =
        ["num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "moe_topk", "top_k_experts"],
        "expert_used_count";
    EXPERT_WIDTH = ["moe_intermediate_size", "intermediate_size"], "expert_feed_forward_length";
    EXPERT_GROUPS = ["n_group", "num_expert_group"], "expert_group_count";
    EXPERT_GROUPS_OPEN = ["topk_group"], "expert_group_used_count";
    EXPERT_NORMALISE = ["norm_topk_prob", "moe_renormalize"], "expert_weights_norm";
    EXPERT_NORMALISE_LEAST = ["moe_norm_min"], "expert_weights_norm_min";
    EXPERT_SCALE = ["routed_scaling_factor", "router_scaling_factor"], "expert_weights_scale";
    EXPERT_JITTER = ["router_jitter_noise"], "expert_jitter";
    LAYER_INPUT = ["hidden_size_per_layer_input"], "embedding_length_per_layer_input";
    SHARED_KV = ["num_kv_shared_layers"], "attention.shared_kv_layers";
    LOGIT_DIVISOR = ["logits_scaling"], "logit_scale";
}
