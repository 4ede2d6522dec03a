//! The tiles of a sweep.

use aerostat_arch::{Block, Matrix, MlpSpec, ModelSpec, Role};
use aerostat_checkpoint::Extent;
use aerostat_checkpoint::packed::TileRows;
use aerostat_types::Home;

use crate::uses::ExpertUse;

/// One tile of a sweep: rows `start .. start + rows` of one matrix as it is stored, or of what is read before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The block; for the head, the number of blocks.
    pub block: usize,
    /// Which of its experts; `None`: what every sweep uses.
    pub expert: Option<u32>,
    /// Which matrix of it.
    pub role: Role,
    /// Which of its companions ([`Matrix::companions`]); `None`: the matrix itself.
    pub companion: Option<usize>,
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// It is the first tile of the matrix itself.
    pub first: bool,
    /// It is the last one.
    pub last: bool,
    /// Where its bytes lie.
    pub extent: Extent,
    /// Where it is between sweeps.
    pub home: Home,
}

impl Step {
    /// It is read in every sweep that uses it.
    pub fn is_streamed(&self) -> bool {
        self.home == Home::Disk
    }

    /// The matrix it is a tile of; `None`: another model's.
    pub fn matrix<'a>(&self, spec: &'a ModelSpec) -> Option<&'a Matrix> {
        if self.block == spec.blocks.len() {
            return Some(&spec.head.weight);
        }
        let block = spec.blocks.get(self.block)?;
        let found = match self.expert {
            None => block.linears().find(|(role, _)| *role == self.role),
            Some(expert) => mlp(block, expert)?.linears().find(|(role, _)| *role == self.role),
        };
        found.map(|(_, linear)| &linear.weight)
    }
}

fn mlp(block: &Block, expert: u32) -> Option<&MlpSpec> {
    block.experts.as_ref().and_then(|experts| experts.mlps.get(expert as usize))
}

/// The tiles that every sweep uses, in the order of use, none pinned.
pub(crate) fn tiles(spec: &ModelSpec, tile_bytes: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for (block, b) in spec.blocks.iter().enumerate() {
        for (role, linear) in b.linears() {
            split(&mut steps, (block, None, role), &linear.weight, tile_bytes);
        }
    }
    split(&mut steps, (spec.blocks.len(), None, Role::Head), &spec.head.weight, tile_bytes);
    steps
}

/// The tiles of one expert, in the order of use.
pub(crate) fn expert_tiles(spec: &ModelSpec, block: usize, expert: u32, tile_bytes: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mlp = spec.blocks.get(block).and_then(|b| mlp(b, expert));
    for (role, linear) in mlp.iter().flat_map(|mlp| mlp.linears()) {
        split(&mut steps, (block, Some(expert), role), &linear.weight, tile_bytes);
    }
    steps
}

/// Cuts a matrix into tiles of nearly equal size, none of which crosses a run; what is read before it comes first.
fn split(
    steps: &mut Vec<Step>,
    (block, expert, role): (usize, Option<u32>, Role),
    matrix: &Matrix,
    tile_bytes: u64,
) {
    if let Some(tiles) = &matrix.tiles {
        // Parts of a tensor that alternate may be multiplied one tile at a time.
        let bytes_max = if matrix.runs.is_some() { 0 } else { tile_bytes };
        return join(steps, (block, expert, role), tiles, matrix.rows, bytes_max);
    }
    let step = |companion, start, rows, extent| {
        let (first, last) = (false, false);
        Step { block, expert, role, companion, start, rows, first, last, extent, home: Home::Disk }
    };
    for (index, companion) in matrix.companions().iter().enumerate() {
        let row = companion.row_bytes();
        let count = companion.rows.div_ceil((tile_bytes / row.max(1)).max(1) as usize);
        for i in 0..count {
            let (start, end) = (companion.rows * i / count, companion.rows * (i + 1) / count);
            let (offset, bytes) = (companion.extent.offset + start as u64 * row, (end - start) as u64 * row);
            let extent = Extent { offset, bytes, ..companion.extent };
            steps.push(step(Some(index), start, end - start, extent));
        }
    }
    // All in units, of which a matrix and its runs are whole numbers.
    let unit = matrix.unit_rows().max(1);
    let units_max = (tile_bytes / (matrix.row_bytes() * unit as u64).max(1)).max(1) as usize;
    let run = (matrix.run_rows() / unit).max(1);
    let count = run.div_ceil(units_max);
    let all = matrix.stored().0;
    for i in 0..(all / unit).div_ceil(run) * count {
        let (base, i) = (i / count * run, i % count);
        let start = (base + run * i / count) * unit;
        let rows = (base + run * (i + 1) / count) * unit - start;
        let whole = step(None, start, rows, matrix.rows_extent(start, rows));
        steps.push(Step { first: start == 0, last: start + rows == all, ..whole });
    }
}

/// Joins packed tiles that lie one behind the other to steps of up to `tile_bytes`.
fn join(
    steps: &mut Vec<Step>,
    place: (usize, Option<u32>, Role),
    tiles: &[TileRows],
    rows: usize,
    tile_bytes: u64,
) {
    let begun = steps.len();
    for &TileRows { start, rows, extent } in tiles {
        let end = |e: &Extent| (e.file, e.offset + e.bytes);
        match steps.get_mut(begun..).and_then(<[Step]>::last_mut) {
            Some(step)
                if end(&step.extent) == (extent.file, extent.offset)
                    && step.extent.bytes + extent.bytes <= tile_bytes =>
            {
                step.extent.bytes += extent.bytes;
                step.rows += rows;
            }
            _ => {
                let ((block, expert, role), first) = (place, start == 0);
                steps.push(Step {
                    block,
                    expert,
                    role,
                    companion: None,
                    start,
                    rows,
                    first,
                    last: false,
                    extent,
                    home: Home::Disk,
                });
            }
        }
    }
    for step in steps.iter_mut().skip(begun) {
        step.last = step.start + step.rows == rows;
    }
}

/// Pins tiles of up to `bytes`, spread evenly over the sweep: the disk then never waits for a long run of pinned tiles
/// to be computed, so that the time of a sweep falls in proportion to what is pinned. What is pinned elsewhere stays so.
/// Returns the bytes pinned.
pub(crate) fn pin(steps: &mut [Step], bytes: u64, home: Home) -> u64 {
    // Pinned tiles are allocated in whole pages.
    let need = |step: &Step| step.extent.bytes.next_multiple_of(4096);
    let total: u64 = steps.iter().filter(|s| s.is_streamed()).map(need).sum();
    let (mut used, mut passed) = (0, 0);
    for step in steps.iter_mut().filter(|s| s.is_streamed()) {
        passed += need(step);
        if u128::from(used + need(step)) * u128::from(total) <= u128::from(passed) * u128::from(bytes) {
            used += need(step);
            step.home = home;
        }
    }
    for step in steps.iter_mut().filter(|s| s.is_streamed()) {
        if used + need(step) <= bytes {
            used += need(step);
            step.home = home;
        }
    }
    used
}

/// Pins whole experts of up to `bytes`, those first that were used most, else as many of each block, and gives those of
/// each block in ascending order. Returns the bytes pinned too.
pub(crate) fn pin_experts(
    spec: &ModelSpec,
    uses: Option<&ExpertUse>,
    tile_bytes: u64,
    bytes: u64,
) -> (Vec<Vec<u32>>, u64) {
    let count = |block: &Block| block.experts.as_ref().map_or(0, |experts| experts.mlps.len());
    let mut order: Vec<(u64, usize, usize)> = Vec::new();
    for (i, block) in spec.blocks.iter().enumerate() {
        let used = |expert| uses.map_or(0, |uses| uses.count(i, expert));
        order.extend((0..count(block)).map(|expert| (u64::MAX - used(expert), expert, i)));
    }
    order.sort_unstable();
    let mut pinned = vec![Vec::new(); spec.blocks.len()];
    let mut used = 0;
    for (_, expert, block) in order {
        let need = pin_all_bytes(&expert_tiles(spec, block, expert as u32, tile_bytes));
        if used + need > bytes {
            break;
        }
        used += need;
        pinned[block].push(expert as u32);
    }
    pinned.iter_mut().for_each(|experts| experts.sort_unstable());
    (pinned, used)
}

/// What pinning every tile would take.
pub(crate) fn pin_all_bytes(steps: &[Step]) -> u64 {
    steps.iter().map(|s| s.extent.bytes.next_multiple_of(4096)).sum()
}

/// What pinning every tile would take if packed exponents were expanded.
pub(crate) fn expanded_bytes(spec: &ModelSpec, tile_bytes: u64) -> u64 {
    let mut total = 0;
    for matrix in spec.matrices() {
        let mut steps = Vec::new();
        split(&mut steps, (0, None, Role::Head), matrix, tile_bytes);
        let bytes = |step: &Step| match matrix.has_packed_exponents() && step.companion.is_none() {
            true => matrix.row_bytes() * step.rows as u64,
            false => step.extent.bytes,
        };
        total += steps.iter().map(|s| bytes(s).next_multiple_of(4096)).sum::<u64>();
    }
    total
}

#[cfg(test)]
mod tests {
    use aerostat_checkpoint::FileId;

    use super::*;

    #[test]
    fn pinned_tiles_are_spread_evenly_and_use_what_they_may() {
        let tile = |i: u64| Step {
            block: 0,
            expert: None,
            role: Role::Up,
            companion: None,
            start: 0,
            rows: 1,
            first: true,
            last: true,
            extent: Extent { file: FileId(0), offset: 0, bytes: 4096 * (1 + i % 3) },
            home: Home::Disk,
        };
        let all: Vec<Step> = (0..90).map(tile).collect();
        let total = pin_all_bytes(&all);
        for percent in [0, 1, 25, 50, 75, 99, 100] {
            let mut steps = all.clone();
            let bytes = total * percent / 100;
            let used = pin(&mut steps, bytes, Home::Host);
            assert!(used <= bytes && bytes - used < 12288, "{percent} %: {used} of {bytes}");
            let (mut pinned, mut passed) = (0.0, 0.0);
            for step in &steps {
                passed += step.extent.bytes as f64;
                pinned += if step.home == Home::Host { step.extent.bytes as f64 } else { 0.0 };
                let due = passed * percent as f64 / 100.0;
                assert!((pinned - due).abs() <= 3.0 * 12288.0, "{percent} %: {pinned} of {due}");
            }
        }
    }
}
