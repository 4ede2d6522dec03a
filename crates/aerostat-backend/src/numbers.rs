//! What lies beside codes, tile by tile: scales, zero points, the groups of inputs, and the rules that they obey.

use std::cell::Cell;

use aerostat_checkpoint::DType;

use crate::quantised::{self, Numbers};
use crate::weights::Operand;
use crate::{Error, ErrorKind, Nested, Scaling, Tile, View, formats};

/// A tile has the codes of its rows, each of `cols` elements as they are stored, and there are scales for all of them. Gives
/// the rows, of which several may share a row of words.
pub(crate) fn check_scaling(
    weight: Operand<'_>,
    scaling: &Scaling,
    cols: usize,
    by_inputs: bool,
) -> Result<usize, Error> {
    let found = match weight {
        Operand::Plain(tile) => Some(tile.bytes.len() as u64),
        // What they expand to; they are looked at when they are multiplied.
        Operand::Packed(tile, _) if tile.cols == cols => {
            (tile.rows as u64).checked_mul(cols as u64).and_then(|n| tile.dtype.bytes_for(n))
        }
        Operand::Packed(..) => None,
    };
    check_codes((weight.tile().rows, found), scaling, cols, by_inputs)
}

/// The same of a tile of so many stored rows and, if it has the right shape, so many bytes.
pub fn check_codes(
    (stored_rows, found): (usize, Option<u64>),
    scaling: &Scaling,
    cols: usize,
    by_inputs: bool,
) -> Result<usize, Error> {
    let Scaling { quantised, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
    let (run_rows, run) = quantised.code.run();
    let bytes = quantised.code.row_bytes(cols).checked_mul(stored_rows).map(|n| n as u64);
    let rows = (stored_rows / run_rows).checked_mul(run);
    let is_whole = stored_rows.is_multiple_of(run_rows) && (by_inputs || run == 1);
    let (Some(rows), true) = (rows, bytes.is_some() && bytes == found && is_whole) else {
        let message = format!(
            "{stored_rows} rows of {cols} codes in {:?} take {bytes:?} bytes, but the tile has {found:?}",
            quantised.code
        );
        return Err(Error::shape(message));
    };
    let end = first_row.checked_add(rows);
    let has_rows = end.is_some_and(|end| block_rows > 0 && end.div_ceil(block_rows) <= scales.rows);
    let has_cols = block_cols > 0 && cols.div_ceil(block_cols) == scales.cols;
    let fits = match groups {
        None => has_rows && has_cols,
        Some(groups) if by_inputs => {
            block_cols == 1 && has_cols && scales.rows > 0 && end.is_some_and(|end| end <= groups.cols)
        }
        Some(groups) => block_rows == 1 && has_rows && scales.cols > 0 && groups.cols == cols,
    };
    let fits = fits && groups.is_none_or(|groups| groups.rows == 1);
    if !fits || zeros.is_some_and(|zeros| (zeros.rows, zeros.cols) != (scales.rows, scales.cols)) {
        let message = format!(
            "scales of {} x {} blocks of {block_rows} x {block_cols} (zeros {zeros:?}, groups {groups:?}) are not those of \
             {rows} rows from {first_row} on of {cols} columns",
            scales.rows, scales.cols
        );
        return Err(Error::shape(message));
    }
    Ok(rows)
}

/// [`Backend::expand_numbers`](crate::Backend::expand_numbers); the tile has its bytes.
pub(crate) fn expand(
    tile: &Tile<'_>,
    numbers: Numbers,
    nested: Option<(Nested, View<'_>, View<'_>)>,
    out: View<'_>,
) -> Result<(), Error> {
    let (run_rows, run) = if let Numbers::Points { code, .. } = numbers { code.run() } else { (1, 1) };
    let row_bytes = match numbers {
        Numbers::Plain if [DType::F32, DType::F16, DType::BF16].contains(&tile.dtype) => {
            tile.dtype.block_bytes().checked_mul(out.cols())
        }
        Numbers::Plain => None,
        Numbers::E8M0 | Numbers::Nested => Some(out.cols()),
        Numbers::Points { code, .. } => Some(code.row_bytes(out.cols())),
        Numbers::Indices(_) => out.cols().checked_mul(4),
    };
    let has_rows = tile.rows.is_multiple_of(run_rows)
        && out.rows() <= (tile.rows / run_rows).saturating_mul(run)
        && (run > 1 || out.rows() == tile.rows);
    let Some(row_bytes) =
        row_bytes.filter(|n| has_rows && n.checked_mul(tile.rows) == Some(tile.bytes.len()))
    else {
        return Err(Error::shape(format!(
            "a tile of {} x {} in {} does not hold {} rows of {} {numbers:?}",
            tile.rows,
            tile.cols,
            tile.dtype,
            out.rows(),
            out.cols()
        )));
    };
    let mut values = vec![0.0; out.cols()];
    for row in 0..out.rows() {
        let bytes = &tile.bytes[row / run * run_rows * row_bytes..][..run_rows * row_bytes];
        match numbers {
            Numbers::Plain => formats::expand(tile.dtype, bytes, &mut values)?,
            Numbers::E8M0 => {
                values.iter_mut().zip(bytes).for_each(|(value, bits)| *value = quantised::e8m0(*bits))
            }
            Numbers::Nested => look_up(nested, row * out.cols(), bytes, &mut values)?,
            Numbers::Points { code, more } => quantised::points(code, more, bytes, row % run, &mut values),
            Numbers::Indices(end) => indices(end, bytes, &mut values)?,
        }
        out.row(row).iter().zip(&values).for_each(|(cell, value)| cell.set(*value));
    }
    Ok(())
}

/// Scales that are codes themselves, from the tile's number `start` on.
fn look_up(
    nested: Option<(Nested, View<'_>, View<'_>)>,
    start: usize,
    bytes: &[u8],
    out: &mut [f32],
) -> Result<(), Error> {
    let Some((Nested { len, first, offset, .. }, values, scales)) =
        nested.filter(|(nested, values, scales)| {
            nested.len > 0 && values.rows() == 1 && values.cols() == 256 && scales.rows() == 1
        })
    else {
        return Err(Error::shape("nested scales need 256 values, and scales of their own"));
    };
    let (values, scales) = (values.row(0), scales.row(0));
    let first = first.saturating_add(start);
    if first.saturating_add(bytes.len()).div_ceil(len) > scales.len() {
        let message =
            format!("scales {first} .. of {} more need more than {} of their own", bytes.len(), scales.len());
        return Err(Error::shape(message));
    }
    for (i, (out, byte)) in out.iter_mut().zip(bytes).enumerate() {
        *out = values[usize::from(*byte)].get() * scales.get((first + i) / len).map_or(f32::NAN, Cell::get)
            + offset;
    }
    Ok(())
}

fn indices(end: usize, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    for (out, word) in out.iter_mut().zip(bytes.as_chunks().0) {
        let index = u32::from_le_bytes(*word);
        if index as usize >= end {
            let message = format!("an input is said to be of group {index}, but there are {end} groups");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        *out = index as f32;
    }
    Ok(())
}
