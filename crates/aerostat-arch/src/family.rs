//! What the data of a family consists of.

use crate::delta::DeltaFamily;
use crate::keys::{self, Key};
use crate::latent::LatentFamily;
use crate::mixture::Mixture;
use crate::spec::{Activation, NormKind, RopeStyle};

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
    /// What asks for mathematics that is not implemented.
    pub refused: &'static [Refused],
    /// Tensor names in a Hugging Face checkpoint, after a prefix such as `model.`.
    pub names: Names,
    /// Tensor names in GGUF.
    pub gguf_names: Names,
    /// Order of rotated pairs in Hugging Face checkpoints.
    pub rope: RopeStyle,
    /// Pairs are rotated the other way round.
    pub reversed: bool,
    /// Order of rotated pairs in GGUF.
    pub gguf_rope: RopeStyle,
    /// Matrices of blocks are stored by inputs in Hugging Face checkpoints, queries, keys and values side by side.
    pub by_inputs: bool,
    /// Which layers are rotated.
    pub rotated: Rotated,
    /// How the residual stream is normalised.
    pub norm: NormKind,
    /// Norms have weights.
    pub norm_weights: Bias,
    /// Norms around attention and MLP, and the last one, have a bias.
    pub norm_bias: Bias,
    /// Added to stored norm weights in Hugging Face checkpoints (GGUF stores the sum).
    pub norm_offset: f32,
    /// Inputs of attention and MLP are normalised.
    pub pre_norms: bool,
    /// What norms before attention and MLP do to the stream.
    pub stream_norms: StreamNorms,
    /// There is no last norm, if this key of `config.json` says so; empty: there is one.
    pub no_final_norm: &'static str,
    /// Embeddings may be of a width of their own, `word_embed_proj_dim`: names of the matrices that make the stream of them, and
    /// what the head reads of the stream.
    pub projections: Option<(&'static str, &'static str)>,
    /// Outputs of attention and MLP are normalised.
    pub post_norms: PostNorms,
    /// The embeddings are normalised.
    pub embedding_norm: bool,
    /// Norms of q and k.
    pub head_norms: HeadNorms,
    /// They come after rotation.
    pub norms_after_rope: bool,
    /// Layers without a window have heads of `global_head_dim`, whose values are their keys before norms if
    /// `attention_k_eq_v` says so; values of all layers are normalised, without weights.
    pub wide_heads: bool,
    /// A tensor of one number that the stream is multiplied by after a block; empty: none.
    pub block_scale: &'static str,
    /// Each head has a score that takes part in the softmax, and has no value.
    pub sinks: bool,
    /// Queries, keys and values are clipped, if the configuration names a limit.
    pub clip_qkv: bool,
    /// The MLP reads what attention reads. Its own norm is optional then.
    pub parallel: Switch,
    /// The MLP has a gate. Without one its width is four times that of the stream, unless it is given.
    pub gated: bool,
    /// The MLP's width is half of what the configuration says.
    pub halved_width: bool,
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
    /// Bias of the head.
    pub head_bias: Bias,
    /// The rows of the head are divided by their norms, if `z_loss_weight` is given or the vocabulary is Baichuan 2's;
    /// GGUF stores the quotients.
    pub normalised_head: bool,
    /// Which layers see a window only.
    pub windows: Windows,
    /// Layers with a window rotate with their own base; this is its default.
    pub local_rope_theta: Option<f64>,
    /// Learned positions; the number is the row of position 0.
    pub positions: Option<usize>,
    /// Scores fall off linearly with distance, each head by its own slope (ALiBi); nothing is rotated then.
    pub alibi: AlibiRule,
    /// One key/value head, if `multi_query` says so; the number of them is read with `new_decoder_architecture` only.
    pub multi_query: bool,
    /// Scores are scaled by `query_pre_attn_scalar`, not by the head size; GGUF does not store it, so there the
    /// models with this many layers use `hidden / heads`.
    pub query_scalar: Option<usize>,
    /// How queries grow with their position.
    pub temperature: Temperature,
    /// Scores are not scaled where `scale_attn_weights` says so, and divided by the layer's number, from 1, where
    /// `scale_attn_by_inverse_layer_idx` does.
    pub score_switches: bool,
    /// On attention scores, in place of the root of the head size; in GGUF always where it is given.
    pub score_scale: Factor,
    /// On embeddings.
    pub embedding_scale: Factor,
    /// On what attention and MLP give.
    pub residual_scale: Factor,
    /// On logits.
    pub logit_scale: Factor,
    /// Soft caps of attention scores and of logits.
    pub softcaps: (Softcap, Softcap),
    /// Keys and values are compressed.
    pub latent: Option<LatentFamily>,
    /// In the tensor of queries, each head's queries are followed by its part of a gate of attention's output.
    pub gated_attention: bool,
    /// Some layers have a gated delta net in place of attention.
    pub delta: Option<DeltaFamily>,
    /// Some layers have experts.
    pub mixture: Option<Mixture>,
    /// Values of configuration keys that a file may leave out.
    pub defaults: Defaults,
}

/// What cannot be run.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// This flag, if it is this.
    Flag(&'static str, bool),
    /// This key, if its value is a number above this.
    Above(&'static str, u32),
    /// This key, if its value is not null.
    Given(&'static str),
}

/// Whether the block has an option.
#[derive(Clone, Copy, Debug)]
pub enum Switch {
    /// Never.
    Never,
    /// Always.
    Always,
    /// As this flag says; the default where it is absent.
    Flag(&'static Key, bool),
}

/// Whether a linear map or a norm has a bias, or a norm weights.
#[derive(Clone, Copy, Debug)]
pub enum Bias {
    /// Never.
    Never,
    /// Always.
    Always,
    /// If this key of `config.json` says so, with this default; in GGUF, if the tensor is there. Where `|` separates
    /// keys, the first that is given counts.
    Key(&'static str, bool),
}

impl Bias {
    /// Whether there can be one.
    pub(crate) fn is_ever(self) -> bool {
        !matches!(self, Self::Never)
    }
}

/// What norms before attention and MLP do to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamNorms {
    /// Nothing.
    Kept,
    /// What they give takes its place, if this key of `config.json` says so.
    ReplacedIf(&'static str),
    /// They come later: the sums of the stream and what attention and MLP give are normalised, and take its place. There is no
    /// last norm then.
    Sums,
    /// The same, if this key of `config.json` is false.
    SumsUnless(&'static str),
}

/// Whether outputs of attention and MLP are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostNorms {
    /// No.
    Never,
    /// Both.
    Always,
    /// Both, if this key of `config.json` says so; this is the default.
    Key(&'static str, bool),
    /// That of the MLP, on layers where the checkpoint has the tensor.
    StoredMlp,
}

/// A factor on activations.
#[derive(Clone, Copy, Debug)]
pub enum Factor {
    /// None.
    One,
    /// This one.
    Fixed(f64),
    /// The root of the width of the residual stream.
    RootOfHidden,
    /// This number of the configuration; the default where it is absent.
    Key(&'static Key, f64),
    /// One over it.
    Inverse(&'static Key, f64),
    /// This number of `config.json`, or the default, over the root of the number of layers; in GGUF as it is stored.
    OverRootOfLayers(&'static Key, f64),
    /// This number of `config.json`, or the default, over the width of the residual stream; in GGUF one over what is
    /// stored.
    OverHidden(&'static Key, f64),
}

/// How q and k are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorms {
    /// Not at all.
    Never,
    /// Per head, with weights that all heads share, and biases where norms have them.
    Shared,
    /// The same, if this key of `config.json` says so; in GGUF, if the tensors are there.
    SharedIf(&'static str),
    /// Per head, without weights, where it is rotated, if this key of `config.json` says so (by default it does); in
    /// GGUF, unless there are 128 experts.
    Bare(&'static str),
    /// Per head, each with its own weights, rows of one tensor or a tensor each (with `{h}` for its number), if this key of
    /// `config.json` says so; in GGUF, if the tensors are there.
    Own(&'static str),
    /// Over all heads together.
    Row,
}

/// Whether a family has linear biases (ALiBi), and of which slopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlibiRule {
    /// No.
    Never,
    /// Yes.
    Always,
    /// Yes; how small slopes become is `alibi_bias_max`, as a power of two.
    UpTo,
    /// Rounded to BF16, if this key of `config.json` says so.
    RoundedIf(&'static str),
    /// Where `config.json` names no `max_position_embeddings`.
    WithoutContext,
}

/// How queries grow with their position: by `1 + beta * ln(1 + floor(position / floor))`, or as is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// Not at all.
    Never,
    /// On all layers; `beta` is `llama_4_scaling_beta` and `floor` `original_max_position_embeddings` of the rotation's
    /// parameters.
    AllLayers,
    /// By the logarithm of positions beyond `seq_length`, if `use_logn_attn` says so.
    Logarithm,
    /// On layers that are not rotated, if `attn_temperature_tuning` says so; `beta` is `attn_scale` and `floor`
    /// `floor_scale`, and positions count from 1.
    Unrotated,
}

/// Which layers are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// All.
    All,
    /// None.
    None,
    /// Those with a window.
    Windows,
    /// Those with a window; all, if no window is given.
    WindowsIfGiven,
    /// As the list `no_rope_layers` says (1: rotated), else all but every `no_rope_layer_interval`-th, by default this.
    AllButEvery(usize),
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
    /// With `use_sliding_window`, all, whatever `layer_types` says.
    AllIfUsed,
    /// With `use_sliding_window`, those that are not rotated.
    Unrotated,
    /// The first, the third and so on.
    EveryOther,
    /// Those that `attention_layers` or `attention_types` call `local`.
    Local,
    /// All but the first of every `n`.
    AllButFirstOf(usize),
    /// Those that are rotated see their own chunk of `attention_chunk_size` positions.
    ChunksOfRotated,
    /// All but every `n`-th; `sliding_window_pattern` may name another number.
    AllButEvery(usize),
}

/// Defaults of configuration keys.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `num_attention_heads`; `None`: must be given.
    pub heads: Option<usize>,
    /// `num_key_value_heads`; `None`: as many as query heads.
    pub kv_heads: Option<usize>,
    /// `head_dim`; `None`: `hidden / heads`.
    pub head_dim: Option<usize>,
    /// `rope_theta`.
    pub rope_theta: f64,
    /// `partial_rotary_factor`.
    pub rotary: f64,
    /// `rope_parameters`, where they are more than that.
    pub rope: &'static str,
    /// `hidden_size`, `intermediate_size`, `num_hidden_layers` and `num_attention_heads`, which the text tower of a checkpoint of
    /// several may leave out.
    pub sizes: Option<[usize; 4]>,
    /// `sliding_window`.
    pub window: Option<usize>,
    /// `max_position_embeddings`.
    pub context: usize,
    /// The norms' `eps`.
    pub eps: f64,
}

/// Names of tensors; `{}` stands for the layer's number. `.weight` or `.bias` is appended. Where `|` separates names, the
/// first that is in the checkpoint counts.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Names {
    pub embedding: &'static str,
    pub positions: &'static str,
    pub embedding_norm: &'static str,
    pub final_norm: &'static str,
    /// In Hugging Face checkpoints without the prefix.
    pub head: &'static str,
    pub attention_norm: &'static str,
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    /// One tensor in place of the three; used where it is in the checkpoint.
    pub qkv: Option<(&'static str, Fused)>,
    pub o: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    /// With its suffix.
    pub sinks: &'static str,
    pub attention_post_norm: &'static str,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    /// One tensor in place of the two: first the gate; used where it is in the checkpoint and no gate is.
    pub gate_up: Option<&'static str>,
    pub down: &'static str,
    pub mlp_post_norm: &'static str,
}

/// How the rows of queries, keys and values lie in one tensor.
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

impl Family {
    /// The plain block: what a family starts from.
    pub const PLAIN: Self = Self {
        name: "",
        architectures: &[],
        model_types: &[],
        gguf: &[],
        refused: &[],
        names: Names::HUGGING_FACE,
        gguf_names: Names::GGUF,
        rope: RopeStyle::Half,
        reversed: false,
        gguf_rope: RopeStyle::Half,
        by_inputs: false,
        rotated: Rotated::All,
        norm: NormKind::Rms,
        norm_weights: Bias::Always,
        norm_bias: Bias::Never,
        norm_offset: 0.0,
        pre_norms: true,
        stream_norms: StreamNorms::Kept,
        no_final_norm: "",
        projections: None,
        post_norms: PostNorms::Never,
        embedding_norm: false,
        head_norms: HeadNorms::Never,
        norms_after_rope: false,
        wide_heads: false,
        block_scale: "",
        sinks: false,
        clip_qkv: false,
        parallel: Switch::Never,
        gated: true,
        halved_width: false,
        activation: Activation::Silu,
        activation_key: "hidden_act",
        gelu_means_tanh: false,
        qkv_bias: Bias::Never,
        output_bias: Bias::Never,
        mlp_bias: Bias::Never,
        head_bias: Bias::Never,
        normalised_head: false,
        windows: Windows::Never,
        local_rope_theta: None,
        positions: None,
        alibi: AlibiRule::Never,
        multi_query: false,
        query_scalar: None,
        temperature: Temperature::Never,
        score_switches: false,
        score_scale: Factor::One,
        embedding_scale: Factor::One,
        residual_scale: Factor::One,
        logit_scale: Factor::One,
        softcaps: (Softcap::Never, Softcap::Never),
        latent: None,
        gated_attention: false,
        delta: None,
        mixture: None,
        defaults: Defaults {
            tied: false,
            heads: None,
            kv_heads: None,
            head_dim: None,
            rope_theta: 10_000.0,
            rotary: 1.0,
            rope: "",
            sizes: None,
            window: None,
            context: 2048,
            eps: 1e-6,
        },
    };

    /// The key of the norms' `eps`.
    pub(crate) fn eps_key(&self) -> &'static Key {
        match self.norm {
            NormKind::Rms => &keys::EPS,
            NormKind::Layer => &keys::LAYER_EPS,
        }
    }
}
