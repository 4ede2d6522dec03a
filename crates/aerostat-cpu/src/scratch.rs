//! The scratch of a thread, and how much of it there is.

use aerostat_backend::packed::GROUP_ELEMENTS_MAX;
use aerostat_backend::packed::exponents::BLOCK_LEN;
use aerostat_backend::{Error, Footprint, ScratchNeed};

use crate::attention::{HEADS_MAX, QUERIES_MAX};
use crate::k_major;
use crate::matmul::SCRATCH_LEN;
use crate::memory::{Line, grow};
use crate::packed_matmul::STEP_BYTES;
use crate::scaled;
use crate::vector::LANES;

/// Scores of a thread, where fewer do not hold all queries of a task; more where even one row needs them.
const SCORES_LEN: usize = 128 * 1024;
/// Positions of which a thread has room for all queries of a task.
const POSITIONS_OF_ALL: usize = SCORES_LEN / QUERIES_MAX;
/// What expanding takes of a matrix of codes that is stored by inputs.
pub(crate) const BY_INPUTS_LEN: usize = scaled::TASK_INPUTS * k_major::TASK_COLS;
/// An allowance for what kernels touch of a worker's stack.
const STACK_BYTES: usize = 32 << 10;

/// What a thread works in.
pub(crate) struct Scratch {
    /// [`SCRATCH_LEN`] values.
    pub(crate) matmul: Vec<Line>,
    /// Weight rows, expanded: of packed tiles, or of codes whose scales lie apart.
    pub(crate) expanded: Vec<Line>,
    /// Lines of scores, at least [`HEADS_MAX`].
    pub(crate) scores: Vec<Line>,
}

impl Scratch {
    /// With room for products of weights that are neither packed nor scaled.
    pub(crate) fn new() -> Result<Self, Error> {
        let mut matmul = Vec::new();
        grow(&mut matmul, SCRATCH_LEN)?;
        Ok(Self { matmul, expanded: Vec::new(), scores: Vec::new() })
    }

    /// What is allocated.
    pub(crate) fn bytes(&self) -> u64 {
        let lines = self.matmul.capacity() + self.expanded.capacity() + self.scores.capacity();
        (lines * size_of::<Line>()) as u64
    }
}

/// Values that expanding codes takes, in rows of so many inputs.
pub(crate) fn scaled_len(cols: usize) -> usize {
    scaled::task_rows(cols).saturating_mul(cols)
}

/// Values of expanded rows that are allocated at open; where there are packed tiles alone, what they take is allocated when
/// the first one comes.
pub(crate) fn expanded_len(need: &ScratchNeed) -> usize {
    let Some(cols) = need.scaled_cols else { return 0 };
    // Codes of one byte each come before.
    let codes = if need.scaled_packed { codes_bytes(1, cols).div_ceil(size_of::<Line>()) * LANES } else { 0 };
    scaled_len(cols).max(BY_INPUTS_LEN).next_multiple_of(LANES).saturating_add(codes)
}

/// Scores that attention over so many positions takes.
pub(crate) fn scores_len(positions: usize) -> Result<usize, Error> {
    let pitch = positions.checked_next_multiple_of(LANES);
    let len = pitch.and_then(|pitch| pitch.checked_mul(QUERIES_MAX));
    let len = len.ok_or_else(|| Error::shape("the KV cache has more positions than fit a usize"))?;
    Ok(len.min(SCORES_LEN).max(len / QUERIES_MAX * HEADS_MAX))
}

/// The most that a thread takes, whatever it multiplies. Packed rows of more than [`GROUP_ELEMENTS_MAX`] elements without
/// scales take more.
pub(crate) fn footprint(need: &ScratchNeed) -> Footprint {
    let bytes = |values: usize| (values * size_of::<f32>()) as u64;
    // Of two bytes an element.
    let packed = if need.packed { codes_bytes(2, 1).div_ceil(size_of::<Line>()) * LANES } else { 0 };
    // A line of scores is at most a vector longer than its positions.
    let scores = QUERIES_MAX * LANES;
    let values = SCRATCH_LEN.next_multiple_of(LANES) + expanded_len(need).max(packed) + scores;
    Footprint {
        fixed_bytes: bytes(values) + STACK_BYTES as u64,
        row_bytes: 0,
        position_bytes: bytes(HEADS_MAX),
        // Of few positions there is room for the scores of more queries.
        first_position_bytes: bytes(QUERIES_MAX - HEADS_MAX),
        first_positions: POSITIONS_OF_ALL,
    }
}

/// Bytes that packed rows are expanded to at a time, of elements of so many bytes in rows of `cols`: a step, or a group if
/// that is more, and a block.
fn codes_bytes(element_bytes: usize, cols: usize) -> usize {
    STEP_BYTES.max(GROUP_ELEMENTS_MAX.max(cols) * element_bytes) + element_bytes * BLOCK_LEN
}
