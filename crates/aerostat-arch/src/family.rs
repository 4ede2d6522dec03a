//! What a family says: how its models are named and stored, and which options of the block they use. Plain data.

mod delta;
mod encoder;
pub(crate) mod keys;
mod latent;
mod mixture;
mod names;
mod options;
mod space;

use crate::spec::{Activation, NormKind, RopeStyle};

pub use delta::{DeltaFamily, DeltaNames};
pub use encoder::Encoder;
pub use keys::Key;
pub use latent::{LatentFamily, LatentNames};
pub use mixture::{ApartNames, Mixture, MixtureNames};
pub use names::{Fused, Names};
pub use options::{
    AlibiRule, Bias, Factor, HeadNorms, PostNorms, Refused, Rotated, Softcap, StreamNorms, StreamScales,
    Switch, Temperature, Windows,
};
pub use space::{
    ConvolutionNames, LightningFamily, MixerKind, Mixers, SelectiveFamily, SelectiveNorms, SpaceFamily,
    SpaceNames, Steps,
};

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
    /// Configuration values that ask for mathematics that is not implemented.
    pub refused: &'static [Refused],
    /// Tensor names in a Hugging Face checkpoint, after a prefix such as `model.`.
    pub names: Names,
    /// Tensor names in GGUF.
    pub gguf_names: Names,
    /// Which elements of a head form a rotated pair in Hugging Face checkpoints.
    pub rope: RopeStyle,
    /// Whether pairs are rotated by the negative of their angle.
    pub reversed: bool,
    /// Which elements of a head form a rotated pair in GGUF.
    pub gguf_rope: RopeStyle,
    /// Whether matrices of blocks are stored by inputs, `[inputs, outputs]`, in Hugging Face checkpoints, queries, keys and values
    /// side by side.
    pub by_inputs: bool,
    /// On which layers queries and keys are rotated.
    pub rotated: Rotated,
    /// Whether norms take root mean squares or standard deviations.
    pub norm: NormKind,
    /// Whether norms have weights.
    pub norm_weights: Bias,
    /// Whether norms around attention and MLP, and the last one, have a bias.
    pub norm_bias: Bias,
    /// What norms add to the mean of squares where no key of `config.json` says it; `None`: one does.
    pub eps: Option<f32>,
    /// Added to stored norm weights in Hugging Face checkpoints (GGUF stores the sum).
    pub norm_offset: f32,
    /// Whether inputs of attention and MLP are normalised.
    pub pre_norms: bool,
    /// What the norms around attention and MLP do to the residual stream.
    pub stream_norms: StreamNorms,
    /// Key of `config.json` that says whether there is no norm before the head; empty: there is one.
    pub no_final_norm: &'static str,
    /// Embeddings may have a width of their own, `word_embed_proj_dim`: names of the matrix that makes the residual stream of
    /// them, and of that which makes what the head reads of the stream. `None`: they are as wide as the stream.
    pub projections: Option<(&'static str, &'static str)>,
    /// Whether outputs of attention and MLP are normalised.
    pub post_norms: PostNorms,
    /// Whether the embeddings are normalised.
    pub embedding_norm: bool,
    /// How queries and keys are normalised.
    pub head_norms: HeadNorms,
    /// Whether queries and keys are normalised after rotation, not before.
    pub norms_after_rope: bool,
    /// Whether layers without a window have heads of `global_head_dim`, whose values are their keys before norms if
    /// `attention_k_eq_v` says so.
    pub wide_heads: bool,
    /// Whether values are normalised, per head and without weights.
    pub value_norms: bool,
    /// Name of a tensor of one number that the residual stream is multiplied by after a block, in Hugging Face checkpoints; in
    /// GGUF it is always the same, and may be absent. Empty: there is none.
    pub block_scale: &'static str,
    /// Whether tokens have a second embedding, of which each layer reads a part, if `hidden_size_per_layer_input` is above 0.
    pub layer_inputs: bool,
    /// Whether there are several residual streams (`altup_num_inputs`), shortcuts beside attention, and gates whose inputs are cut
    /// (`activation_sparsity_pattern`).
    pub streams: bool,
    /// Whether the last `num_kv_shared_layers` layers attend to keys and values of layers before them; their MLP is twice as wide
    /// if `use_double_wide_mlp` says so.
    pub shares_kv: bool,
    /// Whether each head has a score that takes part in the softmax and has no value (an attention sink).
    pub sinks: bool,
    /// Whether queries, keys and values are clipped, if the configuration names a limit.
    pub clip_qkv: bool,
    /// Whether the MLP reads the residual stream as it was before attention. Its own norm is optional then.
    pub parallel: Switch,
    /// Whether the MLP has a gate. Without one its width is four times that of the stream, unless it is given.
    pub gated: bool,
    /// Whether the MLP's width is half of what the configuration says.
    pub halved_width: bool,
    /// The MLP's activation where the configuration names none.
    pub activation: Activation,
    /// The key of `config.json` that names the MLP's activation.
    pub activation_key: &'static str,
    /// Whether `gelu` in a configuration means the tanh approximation.
    pub gelu_means_tanh: bool,
    /// Whether the matrices of queries, keys and values have biases.
    pub qkv_bias: Bias,
    /// Whether the matrix of attention's output has a bias.
    pub output_bias: Bias,
    /// Whether the matrices of the MLP have biases.
    pub mlp_bias: Bias,
    /// Whether the head has a bias.
    pub head_bias: Bias,
    /// Whether the rows of the head are divided by their norms, if `z_loss_weight` is given or the vocabulary is Baichuan 2's;
    /// GGUF stores the quotients.
    pub normalised_head: bool,
    /// Which layers see a window only.
    pub windows: Windows,
    /// Default of the base by which layers with a window rotate; `None`: they rotate as all others do.
    pub local_rope_theta: Option<f64>,
    /// The row of position 0 in the table of learned positions; `None`: there is no such table.
    pub positions: Option<usize>,
    /// What models that compute vectors of texts add; `None`: of causal models.
    pub encoder: Option<Encoder>,
    /// Whether positions see those after them if `use_bidirectional_attention` says so; it is refused otherwise.
    pub ahead_if_said: bool,
    /// Whether scores fall off linearly with distance, each head by its own slope (ALiBi); nothing is rotated then.
    pub alibi: AlibiRule,
    /// Whether there is one key/value head, if `multi_query` says so; their number is read with `new_decoder_architecture`
    /// only.
    pub multi_query: bool,
    /// Scores are scaled by the root of `query_pre_attn_scalar`, not of the head size; GGUF does not store it, so there the models
    /// with this many layers use `hidden / heads`. `None`: they are scaled by the root of the head size.
    pub query_scalar: Option<usize>,
    /// How queries grow with their position.
    pub temperature: Temperature,
    /// Whether scores are not scaled where `scale_attn_weights` says so, and divided by the layer's number, from 1, where
    /// `scale_attn_by_inverse_layer_idx` does.
    pub score_switches: bool,
    /// Factor on attention scores, in place of the root of the head size; in GGUF always where it is given.
    pub score_scale: Factor,
    /// Factor on embeddings.
    pub embedding_scale: Factor,
    /// Factor on the outputs of attention and MLP.
    pub residual_scale: Factor,
    /// Factor on logits.
    pub logit_scale: Factor,
    /// Soft caps of attention scores and of logits.
    pub softcaps: (Softcap, Softcap),
    /// How keys and values are compressed; `None`: they are not.
    pub latent: Option<LatentFamily>,
    /// Whether in the tensor of queries each head's queries are followed by its part of a gate of attention's output.
    pub gated_attention: bool,
    /// Which token mixers layers have.
    pub mixers: Mixers,
    /// Whether a layer is a token mixer or an MLP, and never both.
    pub one_part: bool,
    /// How state spaces are stored; `None`: no layer has one.
    pub space: Option<SpaceFamily>,
    /// Names of the tensors of gated convolutions in Hugging Face checkpoints; in GGUF they are always the same. `None`: no layer has
    /// one.
    pub convolution: Option<ConvolutionNames>,
    /// How lightning attention is stored; `None`: no layer has it.
    pub lightning: Option<LightningFamily>,
    /// Keys of factors on the stream before attention, lightning attention and the MLP are added to it, and on what they give.
    pub stream_scales: Option<StreamScales>,
    /// Whether configurations list factors on the inputs and outputs of attention and MLP (`attention_in_multiplier` and kin).
    pub half_factors: bool,
    /// How the gated delta nets are stored that some layers have in place of attention; `None`: no layer has one.
    pub delta: Option<DeltaFamily>,
    /// How experts are mixed and stored on the layers that have some; `None`: no layer has.
    pub mixture: Option<Mixture>,
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
        eps: None,
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
        value_norms: false,
        block_scale: "",
        layer_inputs: false,
        streams: false,
        shares_kv: false,
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
        encoder: None,
        ahead_if_said: false,
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
        mixers: Mixers::Attention,
        one_part: false,
        space: None,
        convolution: None,
        lightning: None,
        stream_scales: None,
        half_factors: false,
        delta: None,
        mixture: None,
    };

    /// The key of the norms' `eps`.
    pub(crate) fn eps_key(&self) -> &'static Key {
        match self.norm {
            NormKind::Rms => &keys::EPS,
            NormKind::Layer => &keys::LAYER_EPS,
        }
    }
}
