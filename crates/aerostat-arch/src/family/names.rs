//! Names of tensors.

/// Names of a model's tensors: `{}` stands for the layer's number; `.weight` or `.bias` is appended. Where `|` separates names,
/// the first that is in the checkpoint counts.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Token embedding, `[vocab, hidden]`.
    pub embedding: &'static str,
    /// Learned positions, `[positions, hidden]`.
    pub positions: &'static str,
    /// Norm of the embeddings.
    pub embedding_norm: &'static str,
    /// Norm before the head.
    pub final_norm: &'static str,
    /// LM head, `[vocab, hidden]`; in Hugging Face checkpoints it has no prefix such as `model.`.
    pub head: &'static str,
    /// Norm before attention; where sums are normalised, the norm after it.
    pub attention_norm: &'static str,
    /// Matrix of queries.
    pub q: &'static str,
    /// Matrix of keys.
    pub k: &'static str,
    /// Matrix of values.
    pub v: &'static str,
    /// One tensor in place of queries, keys and values, and how they lie in it; used where it is in the checkpoint.
    pub qkv: Option<(&'static str, Fused)>,
    /// Matrix of attention's output.
    pub o: &'static str,
    /// Norm of queries.
    pub q_norm: &'static str,
    /// Norm of keys.
    pub k_norm: &'static str,
    /// A score for each head that takes part in the softmax; the whole name, nothing is appended.
    pub sinks: &'static str,
    /// Norm of attention's output.
    pub attention_post_norm: &'static str,
    /// Norm before the MLP; where sums are normalised, the norm after it.
    pub mlp_norm: &'static str,
    /// Matrix of the MLP's gate.
    pub gate: &'static str,
    /// Matrix of what the MLP's gate multiplies.
    pub up: &'static str,
    /// One tensor in place of gate and up, first the gate; used where it is in the checkpoint and no gate is.
    pub gate_up: Option<&'static str>,
    /// Matrix of the MLP's output.
    pub down: &'static str,
    /// Norm of the MLP's output.
    pub mlp_post_norm: &'static str,
}

/// How the rows of queries, keys and values lie in one tensor that holds all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    /// All queries, all keys, all values.
    Stacked,
    /// For each KV head its queries, its key, its value.
    ByKvHead,
    /// For each quarter of the heads its queries, its values, its keys.
    Quarters,
}

impl Names {
    /// The names most Hugging Face families share.
    pub const HUGGING_FACE: Self = Self {
        embedding: "embed_tokens",
        positions: "embed_positions",
        embedding_norm: "embed_layernorm",
        final_norm: "norm",
        head: "lm_head",
        attention_norm: "layers.{}.input_layernorm",
        q: "layers.{}.self_attn.q_proj",
        k: "layers.{}.self_attn.k_proj",
        v: "layers.{}.self_attn.v_proj",
        qkv: None,
        o: "layers.{}.self_attn.o_proj",
        q_norm: "layers.{}.self_attn.q_norm",
        k_norm: "layers.{}.self_attn.k_norm",
        sinks: "layers.{}.self_attn.sinks",
        attention_post_norm: "layers.{}.post_attention_layernorm",
        mlp_norm: "layers.{}.post_attention_layernorm",
        gate: "layers.{}.mlp.gate_proj",
        up: "layers.{}.mlp.up_proj",
        gate_up: None,
        down: "layers.{}.mlp.down_proj",
        mlp_post_norm: "layers.{}.post_feedforward_layernorm",
    };

    /// The same with norms on both sides of attention and MLP.
    pub const HUGGING_FACE_SANDWICH: Self =
        Self { mlp_norm: "layers.{}.pre_feedforward_layernorm", ..Self::HUGGING_FACE };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        embedding: "token_embd",
        positions: "position_embd",
        embedding_norm: "token_embd_norm",
        final_norm: "output_norm",
        head: "output",
        attention_norm: "blk.{}.attn_norm",
        q: "blk.{}.attn_q",
        k: "blk.{}.attn_k",
        v: "blk.{}.attn_v",
        qkv: Some(("blk.{}.attn_qkv", Fused::Stacked)),
        o: "blk.{}.attn_output",
        q_norm: "blk.{}.attn_q_norm",
        k_norm: "blk.{}.attn_k_norm",
        sinks: "blk.{}.attn_sinks.weight",
        attention_post_norm: "blk.{}.post_attention_norm",
        mlp_norm: "blk.{}.ffn_norm",
        gate: "blk.{}.ffn_gate",
        up: "blk.{}.ffn_up",
        gate_up: Some("blk.{}.ffn_up"),
        down: "blk.{}.ffn_down",
        mlp_post_norm: "blk.{}.post_ffw_norm",
    };
}
