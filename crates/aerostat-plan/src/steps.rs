//! The tiles of a sweep.

use aerostat_arch::{Block, Matrix, MlpSpec, ModelSpec, Role};
use aerostat_checkpoint::Extent;
use aerostat_checkpoint::packed::TileRows;
use aerostat_types::Home;

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
    // What lies beside codes is expanded on the host.
    let may = |step: &Step| step.is_streamed() && (home == Home::Host || step.companion.is_none());
    let total: u64 = steps.iter().filter(|s| may(s)).map(need).sum();
    let (mut used, mut passed) = (0, 0);
    for step in steps.iter_mut().filter(|s| may(s)) {
        passed += need(step);
        if u128::from(used + need(step)) * u128::from(total) <= u128::from(passed) * u128::from(bytes) {
            used += need(step);
            step.home = home;
        }
    }
    for step in steps.iter_mut().filter(|s| may(s)) {
        if used + need(step) <= bytes {
            used += need(step);
            step.home = home;
        }
    }
    used
}

/// The largest tile at each place among the tiles of a block's experts, in bytes: what a slot for any of them must hold.
pub(crate) fn expert_tile_sizes(spec: &ModelSpec, block: usize, tile_bytes: u64) -> Vec<u64> {
    let mlps = spec.blocks.get(block).and_then(|b| b.experts.as_ref()).map_or(&[][..], |e| &e.mlps);
    // What is packed is as large as its contents make it; all else is cut alike where it is as large.
    let alike = |mlp: &MlpSpec| {
        let (one, first) = (mlp.linears(), mlps.first().into_iter().flat_map(|first| first.linears()));
        let shape =
            |m: &Matrix| (m.stored(), m.row_bytes(), m.unit_rows(), m.run_rows(), m.companions().len());
        let same = |a: &Matrix, b: &Matrix| a.tiles.is_none() && b.tiles.is_none() && shape(a) == shape(b);
        one.zip(first).all(|((_, a), (_, b))| same(&a.weight, &b.weight))
    };
    let mut sizes: Vec<u64> = Vec::new();
    for (expert, mlp) in mlps.iter().enumerate() {
        if expert > 0 && alike(mlp) {
            continue;
        }
        for (place, step) in expert_tiles(spec, block, expert as u32, tile_bytes).iter().enumerate() {
            match sizes.get_mut(place) {
                Some(size) => *size = step.extent.bytes.max(*size),
                None => sizes.push(step.extent.bytes),
            }
        }
    }
    sizes
}

/// For how many experts of each block there are slots within `bytes`: as many for every block, and what is left for the
/// first of them. A slot for a tile takes what `slot_bytes` says. Gives the bytes of all slots too.
pub(crate) fn expert_slots(
    spec: &ModelSpec,
    tile_bytes: u64,
    bytes: u64,
    slot_bytes: impl Fn(u64) -> u64,
) -> (Vec<usize>, u64) {
    let each = |(i, block): (usize, &Block)| {
        let count = block.experts.as_ref().map_or(0, |experts| experts.mlps.len());
        let sizes = if count == 0 { Vec::new() } else { expert_tile_sizes(spec, i, tile_bytes) };
        (count, sizes.into_iter().map(&slot_bytes).sum::<u64>())
    };
    let blocks: Vec<(usize, u64)> = spec.blocks.iter().enumerate().map(each).collect();
    let all =
        |slots: usize| blocks.iter().map(|(count, each)| (*count).min(slots) as u64 * each).sum::<u64>();
    let most = blocks.iter().map(|(count, _)| *count).max().unwrap_or(0);
    let (mut base, mut over) = (0, most + 1);
    while base + 1 < over {
        let middle = base.midpoint(over);
        *(if all(middle) <= bytes { &mut base } else { &mut over }) = middle;
    }
    let mut used = all(base);
    let slots = blocks.iter().map(|(count, each)| {
        let more = base < *count && used + each <= bytes;
        used += if more { *each } else { 0 };
        base.min(*count) + usize::from(more)
    });
    (slots.collect(), used)
}

/// What pinning every expert would take.
pub(crate) fn pin_experts_bytes(spec: &ModelSpec, tile_bytes: u64) -> u64 {
    let count = |block: &Block| block.experts.as_ref().map_or(0, |experts| experts.mlps.len());
    let blocks = spec.blocks.iter().enumerate();
    let all = blocks.flat_map(|(i, block)| (0..count(block)).map(move |expert| (i, expert as u32)));
    all.map(|(block, expert)| pin_all_bytes(&expert_tiles(spec, block, expert, tile_bytes))).sum()
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
