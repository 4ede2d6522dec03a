//! What an attention is. Plain data.

pub use aerostat_types::{Alibi, Window};

use crate::latent::Latent;
use crate::spec::{Linear, Norm, Role, Vector};

/// Attention with grouped queries. With [`AttentionSpec::latent`], keys and values are compressed: `k` and `v` take them, head
/// by head, out of what all heads share.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// `[heads * head_dim, hidden]`.
    pub q: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub k: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub v: Linear,
    /// `[hidden, heads * head_dim]`.
    pub o: Linear,
    /// `[heads * head_dim, hidden]`: attention's output is multiplied by its sigmoid.
    pub gate: Option<Linear>,
    /// One matrix that is multiplied in place of the three: its outputs are all queries, all keys, all values. Of `q`, `k`
    /// and `v` the rows alone count then.
    pub joined: Option<Linear>,
    /// On queries, before rotation.
    pub q_norm: Option<Norm>,
    /// On keys, before rotation.
    pub k_norm: Option<Norm>,
    /// On values.
    pub v_norm: Option<Norm>,
    /// Queries, keys and values are clipped to this size, after norms.
    pub clip: Option<f32>,
    /// Queries grow with their position.
    pub growth: Option<Growth>,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// The positions a row sees; `None`: all up to its own.
    pub window: Option<Window>,
    /// A score for each head that takes part in the softmax, and has no value.
    pub sinks: Option<Vector>,
    /// Queries and keys are normalised after rotation.
    pub norms_after_rope: bool,
    /// Scores fall off linearly with distance, each head by its own slope.
    pub alibi: Option<Alibi>,
    /// Index into [`ModelSpec::ropes`](crate::ModelSpec::ropes); `None`: not rotated.
    pub rope: Option<usize>,
    /// Keys and values are compressed.
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
        let own = [(Role::K, &self.k), (Role::V, &self.v)].into_iter().filter(|_| self.joined.is_none());
        before.chain(index.into_iter().flatten()).chain(own).chain([(Role::Output, &self.o)])
    }

    /// What a row takes while it passes through.
    pub fn widths(&self) -> AttentionWidths {
        let plain = AttentionWidths {
            q: self.q.weight.rows,
            k: self.k.weight.rows,
            v: self.v.weight.rows,
            mixed: self.o.weight.cols,
            output_gate: self.gate.as_ref().map_or(0, |gate| gate.weight.rows),
            ..AttentionWidths::default()
        };
        self.latent.as_ref().map_or(plain, |latent| AttentionWidths {
            k: latent.kv_down.weight.rows,
            v: latent.indexer().map_or(0, |indexer| indexer.k.weight.rows),
            q_low: latent.q_down.as_ref().map_or(0, |(linear, _)| linear.weight.rows),
            latent_q: self.heads * latent.kv_down.weight.rows,
            latent_mixed: self.heads * latent.rank,
            index_q: latent.indexer().map_or(0, |indexer| indexer.q.weight.rows),
            index_weights: latent.indexer().map_or(0, |indexer| indexer.heads),
            selected: latent.selection.count(),
            ..plain
        })
    }
}

/// Elements of a row in what attention, or what stands in its place, reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionWidths {
    /// Queries.
    pub q: usize,
    /// What the cache holds as key.
    pub k: usize,
    /// What the cache holds as value.
    pub v: usize,
    /// Attention's output.
    pub mixed: usize,
    /// What it is multiplied by.
    pub output_gate: usize,
    /// Strengths and decays of a delta net.
    pub strengths: usize,
    /// What queries are made of, compressed.
    pub q_low: usize,
    /// Queries as compressed keys see them.
    pub latent_q: usize,
    /// Attention's output, compressed.
    pub latent_mixed: usize,
    /// The queries that choose positions.
    pub index_q: usize,
    /// Their weights.
    pub index_weights: usize,
    /// The positions that are chosen.
    pub selected: usize,
}

impl AttentionWidths {
    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            q: self.q.max(other.q),
            k: self.k.max(other.k),
            v: self.v.max(other.v),
            mixed: self.mixed.max(other.mixed),
            output_gate: self.output_gate.max(other.output_gate),
            strengths: self.strengths.max(other.strengths),
            q_low: self.q_low.max(other.q_low),
            latent_q: self.latent_q.max(other.latent_q),
            latent_mixed: self.latent_mixed.max(other.latent_mixed),
            index_q: self.index_q.max(other.index_q),
            index_weights: self.index_weights.max(other.index_weights),
            selected: self.selected.max(other.selected),
        }
    }

    /// All together.
    pub fn total(self) -> usize {
        let latent = self.q_low + self.latent_q + self.latent_mixed;
        let gates = self.output_gate + self.strengths;
        self.q
            + self.k
            + self.v
            + self.mixed
            + gates
            + latent
            + self.index_q
            + self.index_weights
            + self.selected
    }
}

/// What a row's query is multiplied by, after rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the formulas say it")]
pub enum Growth {
    /// `1 + beta * ln(1 + floor((position + offset) / floor))`.
    Steps { beta: f64, floor: f64, offset: u32 },
    /// `ln(position + 1) / ln(original)` beyond that many positions.
    Log { original: f64 },
}
