//! How a family stores state spaces, lightning attention and gated convolutions.

use super::options::Bias;

/// The token mixer of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixerKind {
    /// Attention.
    Attention,
    /// A gated delta net.
    Delta,
    /// A state space.
    Space,
    /// A gated convolution.
    Convolution,
    /// Lightning attention.
    Lightning,
    /// Attention and a state space.
    Beside,
    /// None: the layer is an MLP.
    Nothing,
    /// Its tensors decide.
    Stored,
}

/// Which token mixers the layers of a family have.
#[derive(Clone, Copy, Debug)]
pub enum Mixers {
    /// Attention, or delta nets where [`Family::delta`](crate::Family::delta) says so.
    Attention,
    /// State spaces; there are no MLPs.
    Spaces,
    /// Attention and a state space each, side by side.
    Beside,
    /// As `config.json` lists them, in one of several ways, else these: one for all layers, or one for each.
    Listed(&'static [MixerKind]),
    /// The same; what is not listed takes these in turn.
    Turns(&'static [MixerKind]),
}

/// How a family stores state spaces.
#[derive(Clone, Copy, Debug)]
pub struct SpaceFamily {
    /// Names of tensors in Hugging Face checkpoints.
    pub names: SpaceNames,
    /// Names of tensors in GGUF.
    pub gguf_names: SpaceNames,
    /// Whether the matrix of inputs has a bias.
    pub input_bias: Bias,
    /// Whether the matrix of outputs has a bias.
    pub output_bias: Bias,
    /// Whether the convolution has a bias.
    pub convolution_bias: Bias,
    /// Whether the output is normalised, by groups.
    pub norm: Bias,
    /// Whether it is normalised before it is gated, if this key of `config.json` says so; empty: it is not.
    pub norm_first: &'static str,
    /// What limits time steps, in Hugging Face checkpoints.
    pub steps: Steps,
    /// Whether configurations list factors (`ssm_multipliers` and kin).
    pub factors: bool,
    /// What the first Mamba has besides; `None`: spaces are of the second.
    pub selective: Option<SelectiveFamily>,
}

/// How a family stores what the first Mamba has besides.
#[derive(Clone, Copy, Debug)]
pub struct SelectiveFamily {
    /// Key of `config.json` that says how many channels there are, if it is given; empty: `expand` says it alone.
    pub width: &'static str,
    /// One matrix of what time steps are made of, of what is written with and of what is read with.
    pub selected: &'static str,
    /// Matrix of time steps, with a bias.
    pub step: &'static str,
    /// Norms of the three.
    pub norms: SelectiveNorms,
}

/// How what time steps are made of, what is written with and what is read with are normalised.
#[derive(Clone, Copy, Debug)]
pub enum SelectiveNorms {
    /// Not at all.
    Never,
    /// With weights of these names.
    Named([&'static str; 3]),
    /// Without weights; this key of `config.json` says what is added to the mean of squares.
    Bare(&'static str),
}

/// What limits time steps.
#[derive(Clone, Copy, Debug)]
pub enum Steps {
    /// The two numbers that this key lists.
    Limits(&'static str),
    /// They are at least the number of the second key, if it is given, else of the first.
    AtLeast(&'static str, &'static str),
}

impl SelectiveFamily {
    /// The names of GGUF; its norms are those of which there are tensors.
    pub const GGUF: Self = Self {
        width: "",
        selected: "blk.{}.ssm_x",
        step: "blk.{}.ssm_dt",
        norms: SelectiveNorms::Named(["blk.{}.ssm_dt_norm", "blk.{}.ssm_b_norm", "blk.{}.ssm_c_norm"]),
    };
}

impl SpaceFamily {
    /// What a family starts from.
    pub const PLAIN: Self = Self {
        names: SpaceNames::MAMBA,
        gguf_names: SpaceNames::GGUF,
        input_bias: Bias::Key("mamba_proj_bias|use_bias", false),
        output_bias: Bias::Key("mamba_proj_bias|use_bias", false),
        convolution_bias: Bias::Key("mamba_conv_bias|use_conv_bias", true),
        norm: Bias::Always,
        norm_first: "",
        steps: Steps::Limits("time_step_limit"),
        factors: false,
        selective: None,
    };
}

/// Names of the tensors of state spaces, spelt as in [`Names`](crate::Names); those of vectors are whole, nothing is appended.
#[derive(Clone, Copy, Debug)]
pub struct SpaceNames {
    /// One matrix of the gate, of what passes the convolution, and of time steps.
    pub inputs: &'static str,
    /// The convolution; `.weight` and `.bias` are appended.
    pub convolution: &'static str,
    /// How fast heads forget.
    pub rate: &'static str,
    /// Added to time steps.
    pub step_bias: &'static str,
    /// How much of its input each head's output takes.
    pub skip: &'static str,
    /// Norm of outputs.
    pub norm: &'static str,
    /// Matrix of outputs.
    pub o: &'static str,
}

/// The names of Hugging Face checkpoints, below this one.
macro_rules! names {
    ($mixer:literal) => {
        SpaceNames {
            inputs: concat!("layers.{}.", $mixer, ".in_proj"),
            convolution: concat!("layers.{}.", $mixer, ".conv1d"),
            rate: concat!("layers.{}.", $mixer, ".A_log"),
            step_bias: concat!("layers.{}.", $mixer, ".dt_bias"),
            skip: concat!("layers.{}.", $mixer, ".D"),
            norm: concat!("layers.{}.", $mixer, ".norm.weight"),
            o: concat!("layers.{}.", $mixer, ".out_proj"),
        }
    };
}

impl SpaceNames {
    /// The names of most Hugging Face checkpoints.
    pub const MAMBA: Self = names!("mamba");
    /// The names where every mixer is called so.
    pub const MIXER: Self = names!("mixer");
    /// The names of GGUF.
    pub const GGUF: Self = Self {
        inputs: "blk.{}.ssm_in",
        convolution: "blk.{}.ssm_conv1d",
        rate: "blk.{}.ssm_a",
        step_bias: "blk.{}.ssm_dt.bias",
        skip: "blk.{}.ssm_d",
        norm: "blk.{}.ssm_norm.weight",
        o: "blk.{}.ssm_out",
    };
}

/// Names of the tensors of gated convolutions, spelt as in [`Names`](crate::Names).
#[derive(Clone, Copy, Debug)]
pub struct ConvolutionNames {
    /// One matrix of both gates and of the input: first the gate of inputs, then that of outputs.
    pub inputs: &'static str,
    /// The convolution; `.weight` and `.bias` are appended.
    pub convolution: &'static str,
    /// Matrix of outputs.
    pub o: &'static str,
}

impl ConvolutionNames {
    /// The names of Hugging Face checkpoints.
    pub const HUGGING_FACE: Self = Self {
        inputs: "layers.{}.conv.in_proj",
        convolution: "layers.{}.conv.conv",
        o: "layers.{}.conv.out_proj",
    };
    /// The names of GGUF.
    pub const GGUF: Self = Self {
        inputs: "blk.{}.shortconv.in_proj",
        convolution: "blk.{}.shortconv.conv",
        o: "blk.{}.shortconv.out_proj",
    };
}

/// How a family stores lightning attention.
#[derive(Clone, Copy, Debug)]
pub struct LightningFamily {
    /// One matrix: for each head its queries, its keys, its values.
    pub qkv: &'static str,
    /// Matrix of the gate of outputs.
    pub gate: &'static str,
    /// Norm of outputs.
    pub norm: &'static str,
    /// Matrix of outputs.
    pub o: &'static str,
}
