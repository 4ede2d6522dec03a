//! Attention with compressed keys and values: what comes between its matrices.
//!
//! Each head's query is taken into the space of the compressed keys, so that the cache is attended to as it is: one key of
//! `rank + rope` elements for all heads, of which the first `rank` are the value too. Attention's output is then taken out
//! of that space, head by head.

use aerostat_arch::{AttentionSpec, Latent, Role, Selection};
use aerostat_backend::{Attention, Backend, Error, Index, Mat, Weight};
use aerostat_plan::Step;

use crate::forward::{Batch, Model, growth_of};

/// A tile of one head's matrix, and what it is multiplied with.
pub(crate) struct ByHead {
    x: Mat,
    y: Mat,
    /// Where the head's matrix is stored by inputs: running sums, the tile's first input, and whether it has the last.
    by_inputs: Option<(Mat, usize, bool)>,
}

impl Model {
    /// Multiplies it.
    pub(crate) fn multiply_head(
        &self,
        b: &mut dyn Backend,
        step: &Step,
        weight: Weight<'_>,
        head: ByHead,
    ) -> Result<(), Error> {
        let ByHead { x, y, by_inputs } = head;
        let Some((lanes, first, is_last)) = by_inputs else { return self.by_outputs(b, step, weight, x, y) };
        self.by_inputs(b, step, weight, x, lanes, first)?;
        if is_last { b.sum_lanes(lanes, y) } else { Ok(()) }
    }

    /// The operands of a tile that belongs to one head; `None` for all others.
    pub(crate) fn by_head(&self, batch: &Batch<'_>, step: &Step) -> Option<ByHead> {
        let a = self.spec.blocks.get(step.block)?.attention()?;
        let latent = a.latent.as_ref()?;
        let (rows, f) = (batch.places.rows.len(), &self.buffers);
        let queries = latent.nope + latent.rope;
        let q = Mat::new(f.q, rows, a.heads * queries);
        let latent_q = Mat::new(f.latent_q, rows, a.heads * (latent.rank + latent.rope));
        let within = |size: usize| (step.start / size, step.start % size);
        Some(match (step.role, latent.k_by_rows) {
            (Role::K, true) => {
                let (head, first) = within(latent.nope);
                let x = q.col_range(head * queries, latent.nope);
                let y = latent_q.col_range(head * (latent.rank + latent.rope), latent.rank);
                let lanes = Mat::new(f.lanes, rows, 16 * latent.rank);
                ByHead { x, y, by_inputs: Some((lanes, first, first + step.rows == latent.nope)) }
            }
            (Role::K, false) => {
                let (head, first) = within(latent.rank);
                let x = q.col_range(head * queries, latent.nope);
                let y = latent_q.col_range(head * (latent.rank + latent.rope) + first, step.rows);
                ByHead { x, y, by_inputs: None }
            }
            (Role::V, _) => {
                let head = within(latent.value_dim).0;
                let x = Mat::new(f.latent_mixed, rows, a.heads * latent.rank);
                let x = x.col_range(head * latent.rank, latent.rank);
                let y = Mat::new(f.mixed, rows, a.heads * latent.value_dim).col_range(step.start, step.rows);
                ByHead { x, y, by_inputs: None }
            }
            _ => return None,
        })
    }

    /// What follows a whole matrix's output `y`.
    pub(crate) fn after_latent(
        &self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        step: &Step,
        y: Mat,
    ) -> Result<(), Error> {
        let Some(a) = self.spec.blocks[step.block].attention() else { return Ok(()) };
        let norms = self.blocks[step.block].latent.as_ref();
        let Some((latent, norms)) = a.latent.as_ref().zip(norms) else { return Ok(()) };
        let rope = a.rope.unwrap_or_default();
        let style = self.spec.ropes[rope].style;
        match (step.role, latent.indexer()) {
            (Role::QDown, _) => match latent.q_down.as_ref().zip(norms.q.as_ref()) {
                Some(((_, spec), norm)) => norm.apply(b, y, spec, y),
                None => Ok(()),
            },
            (Role::Q, _) => {
                self.rotate(b, y, rope, (latent.nope + latent.rope, latent.nope), style)?;
                a.growth.map_or(Ok(()), |growth| b.scale_rows(y, &growth_of(growth, batch)))
            }
            (Role::KvDown, _) => {
                let compressed = y.col_range(0, latent.rank);
                norms.kv.apply(b, compressed, &latent.kv_norm, compressed)?;
                self.rotate(b, y, rope, (latent.rank + latent.rope, latent.rank), style)
            }
            (Role::IndexQ, Some(indexer)) => self.rotate(b, y, rope, (indexer.dim, 0), indexer.style),
            (Role::IndexK, Some(indexer)) => {
                if let Some(norm) = &norms.index {
                    norm.apply(b, y, &indexer.k_norm, y)?;
                }
                self.rotate(b, y, rope, (indexer.dim, 0), indexer.style)
            }
            (Role::IndexWeights, Some(indexer)) => b.scale(y, 1.0 / (indexer.heads as f32).sqrt()),
            (Role::K, _) => self.attend_latent(b, batch, step.block, a, latent),
            _ => Ok(()),
        }
    }

    /// Before queries are taken into the compressed space: the cache, the choice of positions, and the queries' rotated parts.
    pub(crate) fn enter_latent(
        &self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        layer: usize,
    ) -> Result<(), Error> {
        let Some(a) = self.spec.blocks[layer].attention() else { return Ok(()) };
        let Some(latent) = &a.latent else { return Ok(()) };
        let (rows, f, widths) = (batch.places.rows.len(), &self.buffers, a.widths());
        let (k, v) = (Mat::new(f.k, rows, widths.k), Mat::new(f.v, rows, widths.v));
        b.kv_write(layer, k, v, batch.places)?;
        if let Selection::Own { count, indexer } = &latent.selection
            && is_sparse(*count, batch)
        {
            let q = Mat::new(f.index_q, rows, widths.index_q);
            let weights = Mat::new(f.index_weights, rows, widths.index_weights);
            let scale = 1.0 / (indexer.dim as f32).sqrt();
            let index = Index { heads: indexer.heads, dim: indexer.dim, scale };
            b.select_positions(layer, q, weights, Mat::new(f.selected, rows, *count), &index, batch.places)?;
        }
        let (q, latent_q) = (Mat::new(f.q, rows, widths.q), Mat::new(f.latent_q, rows, widths.latent_q));
        let all: Vec<u32> = (0..rows as u32).collect();
        for head in 0..a.heads {
            let from = head * (latent.nope + latent.rope) + latent.nope;
            let to = head * (latent.rank + latent.rope) + latent.rank;
            b.gather_rows(q.col_range(from, latent.rope), &all, latent_q.col_range(to, latent.rope))?;
        }
        Ok(())
    }

    /// Once queries are in the compressed space.
    fn attend_latent(
        &self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        layer: usize,
        a: &AttentionSpec,
        latent: &Latent,
    ) -> Result<(), Error> {
        let (rows, f, widths) = (batch.places.rows.len(), &self.buffers, a.widths());
        let q = Mat::new(f.latent_q, rows, widths.latent_q);
        let out = Mat::new(f.latent_mixed, rows, widths.latent_mixed);
        let shape = Attention {
            heads: a.heads,
            kv_heads: 1,
            key_dim: latent.rank + latent.rope,
            value_dim: latent.rank,
            values_in_keys: true,
            scale: a.scale,
            softcap: a.softcap,
            window: a.window,
            sinks: None,
            alibi: None,
        };
        match latent.selection.count() {
            count if is_sparse(count, batch) => {
                let selected = Mat::new(f.selected, rows, count);
                b.sparse_attention(layer, q, out, &shape, selected, batch.places)
            }
            _ => b.attention(layer, q, out, &shape, batch.places),
        }
    }
}

/// Some row sees more positions than it may choose; 0: it may choose all. Where none does, its choice is all it sees.
fn is_sparse(count: usize, batch: &Batch<'_>) -> bool {
    count > 0 && batch.places.rows.iter().any(|place| place.position as usize >= count)
}
