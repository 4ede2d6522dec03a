//! How a family stores compressed keys and values.

use crate::spec::RopeStyle;

/// How a family compresses keys and values.
#[derive(Clone, Copy, Debug)]
pub struct LatentFamily {
    /// How an indexer's queries and keys are rotated, which choose the positions that are attended to; `None`: there is no
    /// indexer.
    pub indexer: Option<RopeStyle>,
    /// Where no configuration says how wide a head's values are, they are an even part of the stream.
    pub even_values: bool,
    /// Names of tensors in Hugging Face checkpoints.
    pub names: LatentNames,
    /// Names of tensors in GGUF.
    pub gguf_names: LatentNames,
}

impl LatentFamily {
    /// What a family starts from.
    pub const PLAIN: Self = Self {
        indexer: None,
        even_values: false,
        names: LatentNames::HUGGING_FACE,
        gguf_names: LatentNames::GGUF,
    };
}

/// Names of the tensors of compressed keys and values, spelt as in [`Names`](crate::Names). Queries that are not compressed are
/// under the name that `Names` has for them.
#[derive(Clone, Copy, Debug)]
pub struct LatentNames {
    /// Matrix that compresses what queries are made of.
    pub q_down: &'static str,
    /// Norm of what that gives.
    pub q_norm: &'static str,
    /// Matrix of queries, of what is compressed.
    pub q: &'static str,
    /// Matrix that compresses keys and values, and makes the part of the key that is rotated.
    pub kv_down: &'static str,
    /// Norm of compressed keys and values.
    pub kv_norm: &'static str,
    /// Matrix that expands keys and values: for each head the rows of its key, then those of its value.
    pub kv: &'static str,
    /// In place of `kv`: the keys' part, for each head with rows and columns exchanged. Empty: there is no such tensor.
    pub k: &'static str,
    /// In place of `kv`: the values' part. Empty: there is no such tensor.
    pub v: &'static str,
    /// Matrix of an indexer's queries.
    pub index_q: &'static str,
    /// Matrix of an indexer's key.
    pub index_k: &'static str,
    /// Norm of an indexer's key.
    pub index_norm: &'static str,
    /// Matrix of the weights of an indexer's heads.
    pub index_weights: &'static str,
}

impl LatentNames {
    /// The names of Hugging Face checkpoints.
    pub const HUGGING_FACE: Self = Self {
        q_down: "layers.{}.self_attn.q_a_proj",
        q_norm: "layers.{}.self_attn.q_a_layernorm",
        q: "layers.{}.self_attn.q_b_proj",
        kv_down: "layers.{}.self_attn.kv_a_proj_with_mqa",
        kv_norm: "layers.{}.self_attn.kv_a_layernorm",
        kv: "layers.{}.self_attn.kv_b_proj",
        k: "",
        v: "",
        index_q: "layers.{}.self_attn.indexer.wq_b",
        index_k: "layers.{}.self_attn.indexer.wk",
        index_norm: "layers.{}.self_attn.indexer.k_norm",
        index_weights: "layers.{}.self_attn.indexer.weights_proj",
    };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        q_down: "blk.{}.attn_q_a",
        q_norm: "blk.{}.attn_q_a_norm",
        q: "blk.{}.attn_q_b",
        kv_down: "blk.{}.attn_kv_a_mqa",
        kv_norm: "blk.{}.attn_kv_a_norm",
        kv: "blk.{}.attn_kv_b",
        k: "blk.{}.attn_k_b",
        v: "blk.{}.attn_v_b",
        index_q: "blk.{}.indexer.attn_q_b",
        index_k: "blk.{}.indexer.attn_k",
        index_norm: "blk.{}.indexer.k_norm",
        index_weights: "blk.{}.indexer.proj",
    };
}
