//! Attention with compressed keys and values (multi-head latent attention), and its choice of positions.
//!
//! A row's keys and values are compressed to `rank` elements that all heads share, beside a part of the key that is rotated;
//! this is what the cache holds. A head's query is taken into the compressed space, and attention's output out of it.

use aerostat_types::RopeStyle;

use super::matrix::Linear;
use super::norm::Norm;

/// Compressed keys and values. The attention's `q` makes `heads * (nope + rope)` elements, its `k` takes the first `nope`
/// elements of a head's query to `rank` elements, and its `v` takes `rank` elements to the `value_dim` of a head's output.
#[derive(Clone, Debug)]
pub struct Latent {
    /// Compresses the input of attention to what queries are made of, `[rank of queries, hidden]`, and the norm of that;
    /// `None`: queries are made of the input itself.
    pub q_down: Option<(Linear, Norm)>,
    /// Compresses the input of attention to what the cache holds, `[rank + rope, hidden]`: compressed keys and values, then
    /// the part of the key that is rotated.
    pub kv_down: Linear,
    /// Norm of compressed keys and values, over the first `rank` elements of what `kv_down` makes.
    pub kv_norm: Norm,
    /// Elements of compressed keys and values at a position.
    pub rank: usize,
    /// Elements of a head's query that are not rotated.
    pub nope: usize,
    /// Elements of a head's query, and of the key that all heads share, that are rotated.
    pub rope: usize,
    /// Elements of a head's output.
    pub value_dim: usize,
    /// Whether the attention's `k` is stored with a row for each of a head's `nope` elements, `[heads * nope, rank]`; else it is
    /// `[heads * rank, nope]`.
    pub k_by_rows: bool,
    /// Which positions a row attends to, of those it sees.
    pub selection: Selection,
}

/// Which positions a row attends to, of those it sees.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// The best `count` by this layer's own indexer.
    Own {
        /// Positions that are chosen at most.
        count: usize,
        /// Scores the positions.
        indexer: Box<Indexer>,
    },
    /// Those that the last layer with an indexer chose.
    Previous {
        /// Positions that are chosen at most.
        count: usize,
    },
}

impl Selection {
    /// Positions that are chosen at most; 0 where a row attends to all.
    pub fn count(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Own { count, .. } | Self::Previous { count } => *count,
        }
    }
}

/// Scores positions, of which the best are attended to: a position's score is the sum over heads of the head's weight times
/// `max(0, query . key)`.
#[derive(Clone, Debug)]
pub struct Indexer {
    /// Makes its queries of compressed ones, `[heads * dim, rank of queries]`.
    pub q: Linear,
    /// Makes its key, which all heads share, `[dim, hidden]`.
    pub k: Linear,
    /// Norm of its key.
    pub k_norm: Norm,
    /// Makes the weights of its heads, `[heads, hidden]`.
    pub weights: Linear,
    /// Query heads.
    pub heads: usize,
    /// Elements of a head's query and of the key.
    pub dim: usize,
    /// Which two of the first `rope` elements of queries and keys form a pair that is rotated.
    pub style: RopeStyle,
}

impl Latent {
    /// Its indexer, if the layer has one of its own.
    pub fn indexer(&self) -> Option<&Indexer> {
        match &self.selection {
            Selection::Own { indexer, .. } => Some(indexer),
            _ => None,
        }
    }

    /// All its linear maps, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let indexer = match &mut self.selection {
            Selection::Own { indexer, .. } => Some(indexer),
            Selection::All | Selection::Previous { .. } => None,
        };
        let indexer = indexer.into_iter().flat_map(|i| [&mut i.q, &mut i.k, &mut i.weights]);
        self.q_down.iter_mut().map(|(linear, _)| linear).chain([&mut self.kv_down]).chain(indexer)
    }

    /// Its norms.
    pub(super) fn norms(&self) -> impl Iterator<Item = &Norm> {
        let q = self.q_down.iter().map(|(_, norm)| norm);
        q.chain([&self.kv_norm]).chain(self.indexer().map(|indexer| &indexer.k_norm))
    }
}
