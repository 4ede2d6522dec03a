//! What the data of a family consists of.

use crate::spec::{Activation, RopeStyle};

/// One family: how its models are named and which options of the block they use.
#[derive(Debug)]
pub struct Family {
    /// The name users see.
    pub name: &'static str,
    /// `architectures` in `config.json`.
    pub architectures: &'static [&'static str],
    /// `model_type` in `config.json`, used when `architectures` is absent.
    pub model_types: &'static [&'static str],
    /// `general.architecture` in GGUF.
    pub gguf: &'static [&'static str],
    /// Tensor names in a Hugging Face checkpoint, after a prefix such as `model.`.
    pub names: Names,
    /// Tensor names in GGUF.
    pub gguf_names: Names,
    /// Order of rotated pairs in GGUF; Hugging Face checkpoints always use [`RopeStyle::Half`].
    pub gguf_rope: RopeStyle,
    /// Added to stored norm weights in Hugging Face checkpoints (GGUF stores the sum).
    pub norm_offset: f32,
    /// Embeddings are scaled by the square root of the hidden size.
    pub embedding_scaled: bool,
    /// The MLP's activation where the configuration names none.
    pub activation: Activation,
    /// The key of `config.json` that names it.
    pub activation_key: &'static str,
    /// `gelu` in an old configuration means the tanh approximation.
    pub gelu_means_tanh: bool,
    /// Biases of q, k and v.
    pub qkv_bias: Bias,
    /// Bias of the attention's output.
    pub output_bias: Bias,
    /// Biases of gate, up and down.
    pub mlp_bias: Bias,
    /// q and k are normalised per head.
    pub head_norms: bool,
    /// Outputs of attention and MLP are normalised.
    pub post_norms: bool,
    /// Which layers see a window only.
    pub windows: Windows,
    /// Layers with a window rotate with their own base; this is its default.
    pub local_rope_theta: Option<f64>,
    /// Scores are scaled by `query_pre_attn_scalar`, not by the head size; GGUF does not store it, so there the
    /// models with this many layers use `hidden / heads`.
    pub query_scalar: Option<usize>,
    /// Soft caps of attention scores and of logits.
    pub softcaps: (Softcap, Softcap),
    /// Values of configuration keys that a file may leave out.
    pub defaults: Defaults,
}

/// Whether a linear map has a bias.
#[derive(Clone, Copy, Debug)]
pub enum Bias {
    /// Never.
    Never,
    /// Always.
    Always,
    /// If this key of `config.json` says so; in GGUF, if the tensor is there.
    Key(&'static str),
}

/// Whether values are capped.
#[derive(Clone, Copy, Debug)]
pub enum Softcap {
    /// Never, whatever the configuration says.
    Never,
    /// As the configuration says; this is the default.
    Key(Option<f32>),
}

/// Which layers see only the last `sliding_window` positions. `layer_types` in `config.json` overrides the pattern.
#[derive(Clone, Copy, Debug)]
pub enum Windows {
    /// None.
    Never,
    /// All, if `sliding_window` is set.
    All,
    /// With `use_sliding_window`, those from `max_window_layers` on.
    FromLayer,
    /// The first, the third and so on.
    EveryOther,
    /// All but every `n`-th; `sliding_window_pattern` may name another number.
    AllButEvery(usize),
}

/// Defaults of configuration keys.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `num_key_value_heads`; `None`: as many as query heads.
    pub kv_heads: Option<usize>,
    /// `head_dim`; `None`: `hidden / heads`.
    pub head_dim: Option<usize>,
    /// `rope_theta`.
    pub rope_theta: f64,
    /// `sliding_window`.
    pub window: Option<usize>,
    /// `max_position_embeddings`.
    pub context: usize,
}

/// Names of tensors; `{}` stands for the layer's number. `.weight` or `.bias` is appended.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Names {
    pub embedding: &'static str,
    pub final_norm: &'static str,
    /// In Hugging Face checkpoints without the prefix.
    pub head: &'static str,
    pub attention_norm: &'static str,
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    pub o: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub attention_post_norm: &'static str,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub mlp_post_norm: &'static str,
}

impl Names {
    /// The names most Hugging Face families share.
    pub const HUGGING_FACE: Self = Self {
        embedding: "embed_tokens",
        final_norm: "norm",
        head: "lm_head",
        attention_norm: "layers.{}.input_layernorm",
        q: "layers.{}.self_attn.q_proj",
        k: "layers.{}.self_attn.k_proj",
        v: "layers.{}.self_attn.v_proj",
        o: "layers.{}.self_attn.o_proj",
        q_norm: "layers.{}.self_attn.q_norm",
        k_norm: "layers.{}.self_attn.k_norm",
        attention_post_norm: "layers.{}.post_attention_layernorm",
        mlp_norm: "layers.{}.post_attention_layernorm",
        gate: "layers.{}.mlp.gate_proj",
        up: "layers.{}.mlp.up_proj",
        down: "layers.{}.mlp.down_proj",
        mlp_post_norm: "layers.{}.post_feedforward_layernorm",
    };

    /// The same with norms on both sides of attention and MLP.
    pub const HUGGING_FACE_SANDWICH: Self =
        Self { mlp_norm: "layers.{}.pre_feedforward_layernorm", ..Self::HUGGING_FACE };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        embedding: "token_embd",
        final_norm: "output_norm",
        head: "output",
        attention_norm: "blk.{}.attn_norm",
        q: "blk.{}.attn_q",
        k: "blk.{}.attn_k",
        v: "blk.{}.attn_v",
        o: "blk.{}.attn_output",
        q_norm: "blk.{}.attn_q_norm",
        k_norm: "blk.{}.attn_k_norm",
        attention_post_norm: "blk.{}.post_attention_norm",
        mlp_norm: "blk.{}.ffn_norm",
        gate: "blk.{}.ffn_gate",
        up: "blk.{}.ffn_up",
        down: "blk.{}.ffn_down",
        mlp_post_norm: "blk.{}.post_ffw_norm",
    };
}

impl Family {
    /// The plain block: what a family starts from.
    pub const PLAIN: Self = Self {
        name: "",
        architectures: &[],
        model_types: &[],
        gguf: &[],
        names: Names::HUGGING_FACE,
        gguf_names: Names::GGUF,
        gguf_rope: RopeStyle::Half,
        norm_offset: 0.0,
        embedding_scaled: false,
        activation: Activation::Silu,
        activation_key: "hidden_act",
        gelu_means_tanh: false,
        qkv_bias: Bias::Never,
        output_bias: Bias::Never,
        mlp_bias: Bias::Never,
        head_norms: false,
        post_norms: false,
        windows: Windows::Never,
        local_rope_theta: None,
        query_scalar: None,
        softcaps: (Softcap::Never, Softcap::Never),
        defaults: Defaults {
            tied: false,
            kv_heads: None,
            head_dim: None,
            rope_theta: 10_000.0,
            window: None,
            context: 2048,
        },
    };
}
