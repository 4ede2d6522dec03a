//! Attention.

use aerostat_types::{Alibi, Window};

use super::distance::DistanceBiases;
use super::latent::Latent;
use super::matrix::{Linear, Role};
use super::norm::Norm;
use super::vector::Vector;

/// Attention with grouped queries. With [`AttentionSpec::latent`], keys and values are compressed: `k` takes each head's query
/// into the compressed space that all heads share, `v` takes its output out of it.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// Makes queries, `[heads * head_dim, hidden]`; of compressed queries, `[heads * head_dim, rank of queries]`.
    pub q: Linear,
    /// Makes keys, `[kv_heads * head_dim, hidden]`; of compressed ones, see [`Latent::k_by_rows`]. `None`: see `kv_of`.
    pub k: Option<Linear>,
    /// Makes values, `[kv_heads * head_dim, hidden]`; of compressed ones, `[heads * value_dim, rank]`. `None`: see `kv_of`.
    pub v: Option<Linear>,
    /// The block, one before this, whose keys and values it attends to in place of own; `None`: it has its own.
    pub kv_of: Option<usize>,
    /// Makes the output, `[hidden, heads * value size of a head]`.
    pub o: Linear,
    /// Makes the gate whose sigmoid attention's output is multiplied by, element by element, `[heads * head_dim, hidden]`;
    /// `None`: output is not gated.
    pub gate: Option<Linear>,
    /// One matrix that is multiplied in place of `q`, `k` and `v`, whose outputs are all queries, all keys, all values,
    /// `[(heads + 2 * kv_heads) * head_dim, hidden]`. Of the three, only the numbers of rows count then. `None`: each is
    /// multiplied by itself.
    pub joined: Option<Linear>,
    /// Norm of queries, over each head or over all together.
    pub q_norm: Option<Norm>,
    /// Norm of keys, over each head or over all together.
    pub k_norm: Option<Norm>,
    /// Norm of values, over each head.
    pub v_norm: Option<Norm>,
    /// Queries, keys and values are clipped to `-clip ..= clip`, after norms; `None`: they are not.
    pub clip: Option<f32>,
    /// Factor on a row's queries that grows with its position; `None`: 1.
    pub growth: Option<Growth>,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head's query and key.
    pub head_dim: usize,
    /// Factor on the products of queries and keys.
    pub scale: f32,
    /// Soft cap of scores, after scaling: `cap * tanh(score / cap)`; `None`: they are not capped.
    pub softcap: Option<f32>,
    /// The positions a row attends to; `None`: all up to its own.
    pub window: Option<Window>,
    /// Whether rows also see what follows them in their text.
    pub ahead: bool,
    /// What is added to scores by distance, which all layers share; `None`: nothing is.
    pub biases: Option<DistanceBiases>,
    /// A score for each head, `[heads]`, that takes part in the softmax and has no value; `None`: there are none.
    pub sinks: Option<Vector>,
    /// Whether queries and keys are normalised after rotation, not before.
    pub norms_after_rope: bool,
    /// How scores fall off with distance; `None`: they do not.
    pub alibi: Option<Alibi>,
    /// Rotation of queries and keys, an index into [`ModelSpec::ropes`](crate::ModelSpec::ropes); `None`: they are not rotated.
    pub rope: Option<usize>,
    /// How keys and values are compressed; `None`: they are not.
    pub latent: Option<Latent>,
}

impl AttentionSpec {
    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let latent = self.latent.as_ref();
        let q_down = latent.and_then(|l| l.q_down.as_ref()).map(|(linear, _)| (Role::QDown, linear));
        let indexer = latent.and_then(Latent::indexer);
        let index_q = indexer.map(|i| (Role::IndexQ, &i.q));
        let kv_down = latent.map(|l| (Role::KvDown, &l.kv_down));
        let index = indexer.map(|i| [(Role::IndexK, &i.k), (Role::IndexWeights, &i.weights)]);
        let gate = self.gate.as_ref().map(|gate| (Role::OutputGate, gate));
        let q = (Role::Q, self.joined.as_ref().unwrap_or(&self.q));
        let before = q_down.into_iter().chain([q]).chain(gate).chain(index_q).chain(kv_down);
        let keys = self.k.iter().map(|k| (Role::K, k)).chain(self.v.iter().map(|v| (Role::V, v)));
        let own = keys.filter(|_| self.joined.is_none());
        before.chain(index.into_iter().flatten()).chain(own).chain([(Role::Output, &self.o)])
    }

    /// All its linear maps, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let latent = self.latent.iter_mut().flat_map(Latent::linears_mut);
        let own = [&mut self.q, &mut self.o].into_iter().chain(&mut self.k).chain(&mut self.v);
        own.chain(&mut self.gate).chain(&mut self.joined).chain(latent)
    }
}

/// The factor on a row's queries, after rotation, as a function of its position (counted from 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// `1 + beta * ln(1 + floor((position + offset) / floor))`: grows with every `floor` positions.
    Steps {
        /// Factor on the logarithm.
        beta: f64,
        /// Positions of a step; at least 1.
        floor: f64,
        /// Added to positions: 1 where they count from 1.
        offset: u32,
    },
    /// `max(1, ln(position + 1) / ln(original))`: grows beyond `original` positions.
    Log {
        /// Positions up to which the factor is 1; above 1.
        original: f64,
    },
}
