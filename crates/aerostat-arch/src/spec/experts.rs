//! Mixtures of experts.

use super::matrix::{Linear, Role};
use super::mlp::MlpSpec;
use super::norm::Norm;
use super::vector::Vector;

/// A mixture of experts: MLPs of which a router chooses some for each row.
#[derive(Clone, Debug)]
pub struct Experts {
    /// Makes the scores by which experts are chosen, `[experts, hidden]`, of what the MLP reads.
    pub router: Linear,
    /// Makes the number whose sigmoid the shared MLP's output is multiplied by, `[1, hidden]`; `None`: that is taken whole.
    pub shared_gate: Option<Linear>,
    /// How experts and the block's MLP lie side by side, where each has norms of its own; `None`: they read the same, and their outputs
    /// are added as they are.
    pub apart: Option<Apart>,
    /// Compresses what experts read, `[latent, hidden]`, and expands the sum of what they give, `[hidden, latent]`; `None`: they read
    /// what the MLP reads, and are as wide as the stream.
    pub latent: Option<(Linear, Linear)>,
    /// How experts follow from the router's outputs.
    pub routing: Routing,
    /// The experts, by index.
    pub mlps: Vec<MlpSpec>,
    /// Indices of the experts in the order of their place on disk, in which they are read, computed and added.
    pub order: Vec<u32>,
}

impl Experts {
    /// The linear maps of all experts, expert by expert in the order of their place on disk.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        self.order.iter().flat_map(|e| self.mlps[*e as usize].linears())
    }

    /// Its small tensors, but for biases of linear maps.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let apart = self.apart.iter();
        let norms = apart.flat_map(|a| [&a.router_norm.0, &a.norm, &a.post_norm, &a.mlp_post_norm]);
        let routing = self.routing.correction.iter().chain(&self.routing.expert_scales);
        norms.flat_map(Norm::vectors).chain(routing)
    }

    /// Stored bytes of the matrices of all experts.
    pub fn bytes(&self) -> u64 {
        self.mlps.iter().map(MlpSpec::bytes).sum()
    }
}

/// Experts that read the residual stream as the MLP beside them does, each through norms of its own. What they give is normalised,
/// and then added.
#[derive(Clone, Debug)]
pub struct Apart {
    /// Norm of the residual stream that the router reads, and the factor on what it gives.
    pub router_norm: (Norm, f32),
    /// Norm of the residual stream that experts read.
    pub norm: Norm,
    /// Norm of the sum of what experts give.
    pub post_norm: Norm,
    /// Norm of the MLP's output.
    pub mlp_post_norm: Norm,
}

/// How experts are chosen, and how much of each is taken.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Experts that each row uses.
    pub chosen: usize,
    /// How the router's outputs become scores.
    pub score: Score,
    /// Added to the scores for the choice alone, `[experts]`; `None`: nothing is.
    pub correction: Option<Vector>,
    /// Groups of experts, of which only some are open to the choice; `None`: every expert can be chosen.
    pub groups: Option<Groups>,
    /// The scores of the chosen are divided by their sum, to which the first number is added, and which is at least the second;
    /// `None`: they are not divided.
    pub normalise: Option<(f32, f32)>,
    /// Factor on the scores of the chosen, in the end.
    pub scale: f32,
    /// Factors on them, `[experts]`, one for each expert; `None`: 1 each.
    pub expert_scales: Option<Vector>,
    /// Whether scores multiply what experts read, not what they give.
    pub at_input: bool,
}

/// How a router's outputs become scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over the chosen experts, which are those with the largest outputs.
    SoftmaxOfChosen,
    /// Sigmoid of each output.
    Sigmoid,
    /// The best two, each with its softmax among those that are less than twice this (relatively) behind it; the
    /// second without the first.
    SparseMixer(f32),
}

/// Experts in groups of equal size, of which the best are open to the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups.
    pub count: usize,
    /// Number of groups that are open.
    pub open: usize,
    /// Experts of a group whose scores, the best of them, sum to the group's score.
    pub best: usize,
    /// Whether an expert of a closed group scores 0 in the choice; else it cannot be chosen.
    pub closed_score_zero: bool,
}
