//! Parts of a tensor: some rows, or one of several matrices of equal shape.

use std::sync::Arc;

use aerostat_checkpoint::packed::TileRows;
use aerostat_checkpoint::{Extent, Tensor};

use crate::spec::Runs;

/// Some rows of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Rows of the tensor.
    pub(super) total: usize,
    pub(super) runs: Option<Runs>,
}

/// One of several matrices of equal shape that lie one after the other in a tensor.
#[derive(Clone, Copy)]
pub(super) struct Stack {
    pub(super) count: usize,
    pub(super) index: usize,
}

impl Stack {
    /// Some rows of this matrix among those of all.
    pub(super) fn part(self, part: Part) -> Part {
        Part { first: self.index * part.total + part.first, total: self.count * part.total, ..part }
    }
}

impl Part {
    pub(super) fn all(rows: usize) -> Self {
        Self { first: 0, rows, total: rows, runs: None }
    }

    /// The packed tiles of its rows, counted from its first; `None`: a tile crosses into other rows.
    pub(super) fn tiles(self, tiles: &Arc<[TileRows]>) -> Option<Arc<[TileRows]>> {
        if self.rows == self.total {
            return Some(Arc::clone(tiles));
        }
        let run = self.runs.map_or(self.rows, |runs| runs.rows).max(1);
        let mut own = Vec::new();
        for start in (0..self.rows).step_by(run) {
            let place = self.first + self.runs.map_or(start, |runs| runs.place(start));
            let (mut row, end) = (start, self.rows.min(start + run));
            let of_run = tiles.get(tiles.partition_point(|t| t.start < place)..)?;
            for tile in of_run.iter().take_while(|t| t.start < place + (end - start)) {
                if tile.start != place + (row - start) {
                    return None;
                }
                own.push(TileRows { start: row, ..*tile });
                row += tile.rows;
            }
            if row != end {
                return None;
            }
        }
        Some(Arc::from(own))
    }

    /// The bytes of `rows` rows from the first.
    pub(super) fn extent(self, tensor: &Tensor, rows: usize) -> Extent {
        let row = tensor.extent.bytes / self.total.max(1) as u64;
        let offset = tensor.extent.offset + self.first as u64 * row;
        Extent { file: tensor.extent.file, offset, bytes: rows as u64 * row }
    }
}
