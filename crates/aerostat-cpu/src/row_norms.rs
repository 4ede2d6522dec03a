//! Norms of weight rows, computed once in a model's life.

use std::ops::Range;

use aerostat_backend::{Error, Tile, formats, numerics};

use crate::vector::LANES;

/// Elements that are expanded at a time: whole blocks of every format, and whole vectors.
const LEN: usize = 256;
const _: () = assert!(LEN.is_multiple_of(LANES));

/// Gives the reciprocal of the norm of each of these rows of a tile, which has its bytes.
pub(crate) fn norms(w: Tile<'_>, rows: Range<usize>, mut give: impl FnMut(usize, f32)) -> Result<(), Error> {
    let (block_len, block_bytes) = (w.dtype.block_len(), w.dtype.block_bytes());
    let row_bytes = w.cols / block_len * block_bytes;
    let mut values = [0.0; LEN];
    for row in rows {
        let bytes = &w.bytes[row * row_bytes..][..row_bytes];
        // Parts are whole vectors but for the last, so that lanes have their summands in the canonical order.
        let mut lanes = [0.0; LANES];
        for bytes in bytes.chunks(LEN / block_len * block_bytes) {
            let values = &mut values[..bytes.len() / block_bytes * block_len];
            formats::expand(w.dtype, bytes, values)?;
            for (i, &v) in values.iter().enumerate() {
                lanes[i % LANES] = v.mul_add(v, lanes[i % LANES]);
            }
        }
        give(row, numerics::inverse_norm(numerics::reduce(lanes)));
    }
    Ok(())
}
