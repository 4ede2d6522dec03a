//! What a family says of its experts.

use super::options::{Bias, Factor, Switch};
use crate::spec::{Joined, Score};

/// How a family mixes experts. A layer has experts if its router is in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// Key of `config.json` that says whether there are experts; empty: there are where a number of them is given.
    pub enabled: &'static str,
    /// Whether experts and the MLP beside them have norms of their own.
    pub apart: bool,
    /// How the router's outputs become scores.
    pub score: Score,
    /// Whether the scores of the chosen experts are divided by their sum, in Hugging Face checkpoints.
    pub normalise: Switch,
    /// Whether they are in GGUF, where the file says nothing.
    pub gguf_normalise: bool,
    /// Added to the sum of scores that scores are divided by, and the least value of that sum, unless `moe_norm_min` names
    /// another.
    pub normalise_guard: (f32, f32),
    /// Factor on the scores of the chosen experts, in the end.
    pub scale: Factor,
    /// Experts that each row uses, where the configuration names no number; `None`: it must name one.
    pub chosen: Option<usize>,
    /// Experts are in groups, if `n_group` says so: how many of its best experts make a group's score, and whether experts of
    /// closed groups score 0. `None`: there are no groups.
    pub groups: Option<(usize, bool)>,
    /// Whether scores multiply what experts read, not what they give.
    pub at_input: bool,
    /// Whether the router has a bias.
    pub router_bias: Bias,
    /// Where experts share tensors in Hugging Face checkpoints, how gate and up lie in theirs, if those are stored
    /// `[experts, inputs, outputs]`; `None`: they are stored by outputs.
    pub k_major: Option<Joined>,
    /// Whether shared tensors may be `[experts, outputs, inputs]` all the same, as their shape then says.
    pub k_major_by_shape: bool,
    /// Whether the matrices of experts have biases.
    pub bias: Bias,
    /// Names of tensors in Hugging Face checkpoints.
    pub names: MixtureNames,
    /// Names of tensors in GGUF.
    pub gguf_names: MixtureNames,
}

/// Names of the tensors of experts, spelt as in [`Names`](crate::Names); `{e}` stands for the expert's number, and where a name
/// lacks it, the experts lie one after the other in one tensor.
#[derive(Clone, Copy, Debug)]
pub struct MixtureNames {
    /// Matrix of the router.
    pub router: &'static str,
    /// Added to scores for the choice alone; the whole name, nothing is appended. The tensor may be absent.
    pub correction: &'static str,
    /// Factors on the scores of the chosen, one for each expert; the whole name, nothing is appended. Empty: there are none.
    pub expert_scales: &'static str,
    /// Norms, with [`Mixture::apart`].
    pub apart: ApartNames,
    /// Matrix of an expert's gate.
    pub gate: &'static str,
    /// Matrix of what an expert's gate multiplies.
    pub up: &'static str,
    /// One tensor in place of an expert's gate and up, first the gate; used where it is in the checkpoint.
    pub gate_up: &'static str,
    /// Matrix of an expert's output.
    pub down: &'static str,
    /// Matrix that compresses what experts read, if the configuration says `moe_latent_size`.
    pub latent_down: &'static str,
    /// Matrix that expands the sum of what they give.
    pub latent_up: &'static str,
    /// Matrix of the shared expert's gate.
    pub shared_gate: &'static str,
    /// Matrix of what the shared expert's gate multiplies.
    pub shared_up: &'static str,
    /// Matrix of the shared expert's output.
    pub shared_down: &'static str,
    /// One tensor in place of `shared_gate` and `shared_up`; empty: there is no such tensor.
    pub shared_gate_up: &'static str,
    /// Matrix of one row that says how much of the shared expert a row takes.
    pub shared_router: &'static str,
}

/// Names of the norms of experts that lie beside an MLP.
#[derive(Clone, Copy, Debug)]
pub struct ApartNames {
    /// Weights of the router's norm; the whole name, nothing is appended.
    pub router: &'static str,
    /// Norm of what experts read.
    pub norm: &'static str,
    /// Norm of what they give.
    pub post_norm: &'static str,
    /// Norm of what the MLP beside them gives.
    pub mlp_post_norm: &'static str,
}

impl ApartNames {
    /// Those of Hugging Face checkpoints.
    pub const HUGGING_FACE: Self = Self {
        router: "layers.{}.router.scale",
        norm: "layers.{}.pre_feedforward_layernorm_2",
        post_norm: "layers.{}.post_feedforward_layernorm_2",
        mlp_post_norm: "layers.{}.post_feedforward_layernorm_1",
    };

    /// Those of GGUF.
    pub const GGUF: Self = Self {
        router: "blk.{}.ffn_gate_inp.scale",
        norm: "blk.{}.pre_ffw_norm_2",
        post_norm: "blk.{}.post_ffw_norm_2",
        mlp_post_norm: "blk.{}.post_ffw_norm_1",
    };
}

impl MixtureNames {
    /// The names most Hugging Face families share.
    pub const HUGGING_FACE: Self = Self {
        router: "layers.{}.mlp.gate",
        correction: "layers.{}.mlp.gate.e_score_correction_bias",
        expert_scales: "",
        apart: ApartNames::HUGGING_FACE,
        gate: "layers.{}.mlp.experts.{e}.gate_proj",
        up: "layers.{}.mlp.experts.{e}.up_proj",
        gate_up: "layers.{}.mlp.experts.gate_up_proj",
        down: "layers.{}.mlp.experts.{e}.down_proj|layers.{}.mlp.experts.down_proj",
        latent_down: "",
        latent_up: "",
        shared_gate: "layers.{}.mlp.shared_experts.gate_proj|layers.{}.mlp.shared_expert.gate_proj",
        shared_up: "layers.{}.mlp.shared_experts.up_proj|layers.{}.mlp.shared_expert.up_proj",
        shared_down: "layers.{}.mlp.shared_experts.down_proj|layers.{}.mlp.shared_expert.down_proj",
        shared_gate_up: "",
        shared_router: "layers.{}.mlp.shared_expert_gate",
    };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        router: "blk.{}.ffn_gate_inp",
        correction: "blk.{}.exp_probs_b.bias",
        expert_scales: "",
        apart: ApartNames::GGUF,
        // The first files of Mixtral hold each expert by itself.
        gate: "blk.{}.ffn_gate_exps|blk.{}.ffn_gate.{e}",
        up: "blk.{}.ffn_up_exps|blk.{}.ffn_up.{e}",
        gate_up: "blk.{}.ffn_gate_up_exps",
        down: "blk.{}.ffn_down_exps|blk.{}.ffn_down.{e}",
        latent_down: "blk.{}.ffn_latent_down",
        latent_up: "blk.{}.ffn_latent_up",
        shared_gate: "blk.{}.ffn_gate_shexp",
        shared_up: "blk.{}.ffn_up_shexp",
        shared_down: "blk.{}.ffn_down_shexp",
        shared_gate_up: "",
        shared_router: "blk.{}.ffn_gate_inp_shexp",
    };
}

impl Mixture {
    /// What a family starts from: a softmax over all experts, the chosen normalised.
    pub const PLAIN: Self = Self {
        enabled: "",
        apart: false,
        score: Score::Softmax,
        normalise: Switch::Always,
        gguf_normalise: true,
        normalise_guard: (0.0, 0.0),
        scale: Factor::One,
        chosen: None,
        groups: None,
        at_input: false,
        router_bias: Bias::Never,
        k_major: None,
        k_major_by_shape: false,
        bias: Bias::Never,
        names: MixtureNames::HUGGING_FACE,
        gguf_names: MixtureNames::GGUF,
    };
}
