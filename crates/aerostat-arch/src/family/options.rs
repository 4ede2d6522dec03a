//! The options that a family chooses from.

use super::keys::Key;

/// A configuration value with which models of a family cannot be run.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// The flag of this name, if it has this value.
    Flag(&'static str, bool),
    /// The key of this name, if its value is a number above this.
    Above(&'static str, u32),
    /// The key of this name, if its value is not null.
    Given(&'static str),
}

/// Whether the block of a family has an option.
#[derive(Clone, Copy, Debug)]
pub enum Switch {
    /// It never has.
    Never,
    /// It always has.
    Always,
    /// As this flag of the configuration says; the default where it is absent.
    Flag(&'static Key, bool),
}

/// Whether a linear map or a norm has a bias, or a norm weights.
#[derive(Clone, Copy, Debug)]
pub enum Bias {
    /// It never has.
    Never,
    /// It always has.
    Always,
    /// It has if this key of `config.json` says so, with this default; in GGUF, if the tensor is there. Where `|` separates
    /// keys, the first that is given counts.
    Key(&'static str, bool),
}

impl Bias {
    /// Whether there can be one.
    pub(crate) fn is_ever(self) -> bool {
        !matches!(self, Self::Never)
    }
}

/// What the norms around attention and MLP do to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamNorms {
    /// Nothing: what they give is read by attention and MLP alone.
    Kept,
    /// What they give takes the place of the stream.
    Replaced,
    /// What they give takes the place of the stream, if this key of `config.json` says so.
    ReplacedIf(&'static str),
    /// They come later: the sums of the stream and what attention and MLP give are normalised, and take the place of the
    /// stream. There is no norm before the head then.
    Sums,
    /// As [`StreamNorms::Sums`], if this key of `config.json` is false.
    SumsUnless(&'static str),
}

/// Keys of `config.json`: factors on the residual stream before something is added to it, and on what is added; 1 where they are
/// absent.
#[derive(Clone, Copy, Debug)]
pub struct StreamScales {
    /// Where attention is added.
    pub attention: (&'static str, &'static str),
    /// Where lightning attention is added.
    pub lightning: (&'static str, &'static str),
    /// Where the MLP is added.
    pub mlp: (&'static str, &'static str),
}

/// Whether outputs of attention and MLP are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostNorms {
    /// Neither is.
    Never,
    /// Both are.
    Always,
    /// Both are, if this key of `config.json` says so; this is the default.
    Key(&'static str, bool),
    /// That of the MLP is, on layers where the checkpoint has the tensor.
    StoredMlp,
}

/// A factor on activations.
#[derive(Clone, Copy, Debug)]
pub enum Factor {
    /// 1: there is none.
    One,
    /// This number.
    Fixed(f64),
    /// The root of the width of the residual stream.
    RootOfHidden,
    /// This number of the configuration; the default where it is absent.
    Key(&'static Key, f64),
    /// One over this number of the configuration; the default where it is absent.
    Inverse(&'static Key, f64),
    /// This number of `config.json`, or the default, over the root of the number of layers; in GGUF as it is stored.
    OverRootOfLayers(&'static Key, f64),
    /// This number of `config.json`, or the default, over the width of the residual stream; in GGUF one over what is
    /// stored.
    OverHidden(&'static Key, f64),
}

/// How queries and keys are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorms {
    /// Not at all.
    Never,
    /// Per head, with weights that all heads share, and biases where norms have them.
    Shared,
    /// As [`HeadNorms::Shared`], if this key of `config.json` says so; in GGUF, if the tensors are there.
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

/// Whether the scores of a family have linear biases (ALiBi), and of which slopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlibiRule {
    /// They have none.
    Never,
    /// They have those of the paper: [`Alibi::most`](crate::Alibi::most) is 8.
    Always,
    /// They have; `alibi_bias_max` of the configuration is [`Alibi::most`](crate::Alibi::most).
    UpTo,
    /// They have those of the paper, rounded to BF16, if this key of `config.json` says so.
    RoundedIf(&'static str),
    /// They have those of the paper where `config.json` names no `max_position_embeddings`.
    WithoutContext,
}

/// How queries grow with their position: by [`Growth::Steps`](crate::Growth::Steps), or as is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// They do not.
    Never,
    /// On all layers; `beta` is `llama_4_scaling_beta` and `floor` `original_max_position_embeddings` of the rotation's
    /// parameters.
    AllLayers,
    /// By [`Growth::Log`](crate::Growth::Log) of positions beyond `seq_length`, if `use_logn_attn` says so.
    Logarithm,
    /// On layers that are not rotated, if `attn_temperature_tuning` says so; `beta` is `attn_scale` and `floor`
    /// `floor_scale`, and positions count from 1.
    Unrotated,
}

/// On which layers queries and keys are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// On all.
    All,
    /// On none.
    None,
    /// On all, if `position_embedding_type` is `rope`.
    IfNamed,
    /// On those with a window.
    Windows,
    /// On those with a window; on all, if no window is given.
    WindowsIfGiven,
    /// As the list `no_rope_layers` says (1: rotated), else on all but every `no_rope_layer_interval`-th, by default this.
    AllButEvery(usize),
}

/// Whether scores or logits are softly capped.
#[derive(Clone, Copy, Debug)]
pub enum Softcap {
    /// Never, whatever the configuration says.
    Never,
    /// At the number that the configuration gives; this is the default, `None` no cap.
    Key(Option<f32>),
}

/// Which layers see only the last `sliding_window` positions. `layer_types` in `config.json` overrides the pattern.
#[derive(Clone, Copy, Debug)]
pub enum Windows {
    /// None does.
    Never,
    /// All do, if `sliding_window` is set.
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
    /// All but every `n`-th and the last, which has none whatever `layer_types` says.
    AllButEveryAndLast(usize),
}
