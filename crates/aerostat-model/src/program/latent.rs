//! Attention with compressed keys and values.
//!
//! Each head's query is taken into the space of the compressed keys, so that the cache is attended to as it is: one key of
//! `rank + rope` elements for all heads, of which the first `rank` are the value too. Attention's output is then taken out
//! of that space, head by head.

use aerostat_arch::{AttentionSpec, Indexer, Latent, Role, Selection};
use aerostat_backend::{Attention, Error, Extras, HeadCopy, Index, defect};

use super::compile::Compiler;
use super::{Heads, Op, Product, Slice};

impl Compiler<'_> {
    /// What it makes of `input`: the output of its last matrix.
    pub(super) fn latent(
        &mut self,
        layer: usize,
        a: &AttentionSpec,
        latent: &Latent,
        input: Slice,
    ) -> Result<Slice, Error> {
        let mut query_input = input;
        if let Some((linear, norm)) = &latent.q_down {
            query_input = self.product((layer, Role::QDown), linear, input, "q_low");
            self.norm("q_norm", norm, norm.size, query_input, query_input)?;
        }
        let q = self.product((layer, Role::Q), &a.q, query_input, "q");
        self.rotate(q, a.rope, (latent.nope + latent.rope, latent.nope), None)?;
        if let Some(growth) = a.growth {
            let factors = self.growth(growth)?;
            self.emit(Op::MulRows { x: q, factors });
        }
        let gate = self.output_gate(layer, a, input);
        let index_q = match latent.indexer() {
            Some(indexer) => {
                let index_q = self.product((layer, Role::IndexQ), &indexer.q, query_input, "index_q");
                self.rotate(index_q, a.rope, (indexer.dim, 0), Some(indexer.style))?;
                Some(index_q)
            }
            None => None,
        };
        let k = self.product((layer, Role::KvDown), &latent.kv_down, input, "kv");
        let compressed = k.columns(0, latent.rank);
        self.norm("kv_norm", &latent.kv_norm, latent.kv_norm.size, compressed, compressed)?;
        self.rotate(k, a.rope, (latent.rank + latent.rope, latent.rank), None)?;
        match latent.indexer().zip(index_q) {
            Some((indexer, index_q)) => self.index(layer, latent, indexer, (index_q, k), (input, a.rope))?,
            None => {
                let v = self.rows("no values", 0);
                self.emit(Op::KvWrite { layer, k, v });
            }
        }
        let mixed = self.attend_latent(layer, a, latent, q)?;
        self.open_gate(gate, mixed);
        Ok(self.product((layer, Role::Output), &a.o, mixed, "y"))
    }

    /// The indexer's keys and weights; the cache, and the choice of positions.
    fn index(
        &mut self,
        layer: usize,
        latent: &Latent,
        indexer: &Indexer,
        (q, k): (Slice, Slice),
        (input, rope): (Slice, Option<usize>),
    ) -> Result<(), Error> {
        let index_k = self.product((layer, Role::IndexK), &indexer.k, input, "index_k");
        self.norm("index_norm", &indexer.k_norm, indexer.k_norm.size, index_k, index_k)?;
        self.rotate(index_k, rope, (indexer.dim, 0), Some(indexer.style))?;
        let weights = self.product((layer, Role::IndexWeights), &indexer.weights, input, "index_weights");
        self.emit(Op::Scale { x: weights, factor: 1.0 / (indexer.heads as f32).sqrt() });
        self.emit(Op::KvWrite { layer, k, v: index_k });
        let scale = 1.0 / (indexer.dim as f32).sqrt();
        let index = Index { heads: indexer.heads, dim: indexer.dim, scale };
        let out = self.rows("selected", latent.selection.count());
        self.emit(Op::SelectPositions { layer, q, weights, index, out });
        self.selected = Some(out);
        Ok(())
    }

    /// Queries into the compressed space, attention there, and out of it.
    fn attend_latent(
        &mut self,
        layer: usize,
        a: &AttentionSpec,
        latent: &Latent,
        q: Slice,
    ) -> Result<Slice, Error> {
        let Latent { rank, nope, rope, value_dim, .. } = *latent;
        let latent_q = self.rows("latent_q", a.heads * (rank + rope));
        let copy = HeadCopy {
            from_dim: nope + rope,
            from_start: nope,
            to_dim: rank + rope,
            to_start: rank,
            len: rope,
        };
        self.emit(Op::CopyHeads { x: q, copy, out: latent_q });
        let into = Heads {
            rows: if latent.k_by_rows { nope } else { rank },
            x_pitch: nope + rope,
            x_cols: nope,
            y_pitch: rank + rope,
            y_cols: rank,
            by_inputs: latent.k_by_rows,
        };
        self.by_heads((layer, Role::K), q, latent_q, into);
        let shape = Attention {
            heads: a.heads,
            kv_heads: 1,
            key_dim: rank + rope,
            value_dim: rank,
            values_in_keys: true,
            scale: a.scale,
            softcap: a.softcap,
            window: a.window,
            ahead: false,
            alibi: None,
        };
        let latent_mixed = self.rows("latent_mixed", a.heads * rank);
        match latent.selection {
            Selection::All => {
                self.emit(Op::Attention {
                    layer,
                    q: latent_q,
                    shape,
                    extras: Extras::NONE,
                    out: latent_mixed,
                });
            }
            Selection::Own { .. } | Selection::Previous { .. } => {
                let selected =
                    self.selected.ok_or_else(|| defect!("no block before {layer} chooses positions"))?;
                self.emit(Op::SparseAttention { layer, q: latent_q, shape, selected, out: latent_mixed });
            }
        }
        let mixed = self.rows("mixed", a.heads * value_dim);
        let out = Heads {
            rows: value_dim,
            x_pitch: rank,
            x_cols: rank,
            y_pitch: value_dim,
            y_cols: value_dim,
            by_inputs: false,
        };
        self.by_heads((layer, Role::V), latent_mixed, mixed, out);
        Ok(mixed)
    }

    /// The product of a matrix that is one for each head.
    fn by_heads(&mut self, (block, role): (usize, Role), x: Slice, y: Slice, heads: Heads) {
        self.emit(Op::Multiply(Product { block, role, x, y, heads: Some(heads), row_norms: None }));
    }
}
