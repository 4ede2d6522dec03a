//! The tiles of a sweep.

use aerostat_arch::{Matrix, ModelSpec, Role};
use aerostat_checkpoint::Extent;

/// One tile of a sweep: rows `start .. start + rows` of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The block; for the head, the number of blocks.
    pub block: usize,
    /// Which matrix of it.
    pub role: Role,
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// It is the first tile of its matrix.
    pub first: bool,
    /// It is the last tile of its matrix.
    pub last: bool,
    /// Where its bytes lie.
    pub extent: Extent,
    /// Kept in memory between sweeps.
    pub pinned: bool,
}

impl Step {
    /// The matrix it is a tile of.
    pub fn matrix<'a>(&self, spec: &'a ModelSpec) -> &'a Matrix {
        match spec.blocks.get(self.block) {
            Some(block) => block
                .linears()
                .find(|(role, _)| *role == self.role)
                .map_or(&spec.head.weight, |(_, linear)| &linear.weight),
            None => &spec.head.weight,
        }
    }
}

/// All tiles in the order of use, none pinned.
pub(crate) fn tiles(spec: &ModelSpec, tile_bytes: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for (block, b) in spec.blocks.iter().enumerate() {
        for (role, linear) in b.linears() {
            split(&mut steps, block, role, &linear.weight, tile_bytes);
        }
    }
    split(&mut steps, spec.blocks.len(), Role::Head, &spec.head.weight, tile_bytes);
    steps
}

/// Cuts a matrix into tiles of nearly equal size, none of which crosses a run.
fn split(steps: &mut Vec<Step>, block: usize, role: Role, matrix: &Matrix, tile_bytes: u64) {
    let rows_max = (tile_bytes / matrix.row_bytes().max(1)).max(1) as usize;
    let run = matrix.run_rows().max(1);
    let count = run.div_ceil(rows_max);
    for i in 0..matrix.rows.div_ceil(run) * count {
        let (base, i) = (i / count * run, i % count);
        let start = base + run * i / count;
        let rows = base + run * (i + 1) / count - start;
        let extent = matrix.rows_extent(start, rows);
        let (first, last) = (start == 0, start + rows == matrix.rows);
        steps.push(Step { block, role, start, rows, first, last, extent, pinned: false });
    }
}

/// Pins tiles until `bytes` are used: the head first, since it is the largest matrix and often the embedding too,
/// then blocks from the first, so that the disk reads ahead while they compute. Returns the bytes pinned.
pub(crate) fn pin(steps: &mut [Step], bytes: u64) -> u64 {
    let head = steps.iter().position(|s| s.role == Role::Head).unwrap_or(steps.len());
    let mut used = 0;
    for i in (head..steps.len()).chain(0..head) {
        // Pinned tiles are allocated in whole pages.
        let need = steps[i].extent.bytes.next_multiple_of(4096);
        if used + need > bytes {
            break;
        }
        used += need;
        steps[i].pinned = true;
    }
    used
}

/// What pinning every tile would take.
pub(crate) fn pin_all_bytes(steps: &[Step]) -> u64 {
    steps.iter().map(|s| s.extent.bytes.next_multiple_of(4096)).sum()
}
