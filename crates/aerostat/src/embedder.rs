//! The embeddings of a sweep's tokens, and what else is looked up for them: from memory where the embedding is a head that stays
//! there, else from disk.

use aerostat_arch::{Matrix, ModelSpec};
use aerostat_backend::{Backend, Mat, Tile, WeightId};
use aerostat_checkpoint::Extent;
use aerostat_plan::Plan;
use aerostat_stream::Ring;

use crate::checked::PackedRows;
use crate::kept::KeptRows;
use crate::store::WeightStore;
use crate::{Error, ErrorKind};

/// Gathers the rows of a table.
pub(crate) struct Embedder {
    /// Rows as stored, end to end, with room for those of `rows_max` tokens.
    gathered: Vec<u8>,
    /// Those that were read lately.
    kept: KeptRows,
    /// Where rows of a packed table lie.
    packed: Option<PackedRows>,
    /// The tiles of the head with their first rows, where the embedding is the head and all of it is in memory.
    head: Option<Vec<(usize, WeightId)>>,
}

impl Embedder {
    /// For this plan, before weights are loaded.
    pub(crate) fn new(plan: &Plan, table: &Matrix, ring: &mut Ring) -> Result<Self, Error> {
        let row_bytes = table.row_bytes() as usize;
        Ok(Self {
            gathered: vec![0; plan.rows_max * row_bytes],
            kept: KeptRows::new(plan.kept_rows, row_bytes),
            packed: PackedRows::open(table, ring)?,
            head: None,
        })
    }

    /// Called once, of the embedding, after weights are loaded: notes the head's tiles, if the head is the embedding and all of it stays in
    /// memory.
    pub(crate) fn look_at(&mut self, plan: &Plan, spec: &ModelSpec, store: &WeightStore) {
        self.head = Some(()).filter(|()| spec.tied()).and_then(|()| store.resident_head(plan));
    }

    /// Puts the row of each token into one of `out`; a token that the table has no row for uses the first.
    pub(crate) fn embed(
        &mut self,
        tokens: &[u32],
        table: &Matrix,
        ring: &mut Ring,
        backend: &mut dyn Backend,
        out: Mat,
    ) -> Result<(), Error> {
        if let Some(head) = &self.head {
            let row = |token: &u32| {
                let after = head.partition_point(|(start, _)| *start <= *token as usize);
                let (start, tile) = head.get(after.wrapping_sub(1))?;
                Some((*tile, token - *start as u32))
            };
            let rows: Option<Vec<(WeightId, u32)>> = tokens.iter().map(row).collect();
            let rows =
                rows.ok_or_else(|| Error::new(ErrorKind::Defect, "the head in memory lacks a token's row"))?;
            return Ok(backend.gather_weights(&rows, out)?);
        }
        let row = |token: &u32| if (*token as usize) < table.rows { *token } else { 0 };
        let tokens: Vec<u32> = tokens.iter().map(row).collect();
        let ids = self.gather(&tokens, table, ring)?;
        let bytes = &self.gathered[..tokens.len() * table.row_bytes() as usize];
        let gathered = Tile { dtype: table.dtype, rows: tokens.len(), cols: table.cols, bytes };
        Ok(backend.expand_rows(gathered, &ids, out)?)
    }

    /// Reads the rows of the tokens that are not here; gives which of the gathered rows is each token's.
    fn gather(&mut self, tokens: &[u32], table: &Matrix, ring: &mut Ring) -> Result<Vec<u32>, Error> {
        let row_bytes = table.row_bytes() as usize;
        // Rows that are read come first, those that are here behind them.
        let (here, read): (Vec<u32>, Vec<u32>) =
            tokens.iter().copied().partition(|token| self.kept.get(*token).is_some());
        let bytes = &mut self.gathered[..tokens.len() * row_bytes];
        let (fresh, rest) = bytes.split_at_mut(read.len() * row_bytes);
        match &self.packed {
            Some(packed) => packed.read(ring, &read, fresh)?,
            None => {
                let extents: Vec<Extent> =
                    read.iter().map(|token| table.rows_extent(*token as usize, 1)).collect();
                ring.read_many_now(&extents, fresh)?;
            }
        }
        let (mut next_read, mut next_here) = (0..read.len() as u32, read.len() as u32..);
        let ids = tokens
            .iter()
            .filter_map(|t| if self.kept.get(*t).is_some() { next_here.next() } else { next_read.next() })
            .collect();
        for (token, row) in here.iter().zip(rest.chunks_exact_mut(row_bytes)) {
            self.kept.get(*token).into_iter().for_each(|kept| row.copy_from_slice(kept));
        }
        read.iter().zip(fresh.chunks_exact(row_bytes)).for_each(|(token, row)| self.kept.keep(*token, row));
        Ok(ids)
    }

    /// Where rows of a packed table lie.
    pub(crate) fn packed(&self) -> Option<&PackedRows> {
        self.packed.as_ref()
    }
}
