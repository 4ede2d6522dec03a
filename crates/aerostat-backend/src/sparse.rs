//! Attention over chosen positions: the rules that its operands obey.

use std::cell::Cell;

use crate::rows::Rows;
use crate::{Attention, Error, Index, KvLayout, Mat, Placement, View, check};

/// Positions are stored as f32, which holds whole numbers up to here.
const POSITION_MAX: f32 = (1 << 24) as f32;

/// Queries, weights and positions fit an index over one layer's values.
pub fn check_index<'a>(
    layout: &KvLayout,
    layer: usize,
    [q, weights, out]: [Mat; 3],
    index: &Index,
    rows: &'a Rows,
) -> Result<Placement<'a>, Error> {
    check::shape(&q, q.rows, index.heads.saturating_mul(index.dim), "the queries")?;
    check::shape(&weights, q.rows, index.heads, "the weights")?;
    check::shape(&out, q.rows, out.cols, "the positions")?;
    check::apart(&out, &q)?;
    check::apart(&out, &weights)?;
    check::heads(layout, layer, 1)?;
    let key = layout.key_widths.get(layer).copied();
    let key = key.ok_or_else(|| Error::shape(format!("the KV cache has no layer {layer}")))?;
    let places = rows.places(layout, layer, (key, Some(index.dim)), q.rows, None)?;
    match places.rows.iter().find(|place| place.position as f32 >= POSITION_MAX) {
        Some(place) => Err(Error::shape(format!("an index cannot name position {}", place.position))),
        None => Ok(places),
    }
}

/// Queries, output and positions fit an attention over one layer.
pub fn check_attention<'a>(
    layout: &KvLayout,
    layer: usize,
    [q, out, selected]: [Mat; 3],
    shape: &Attention,
    rows: &'a Rows,
) -> Result<Placement<'a>, Error> {
    let widths = check::attention(shape)?;
    if shape.window.is_some() || shape.alibi.is_some() {
        return Err(Error::shape("attention over chosen positions has neither window nor linear biases"));
    }
    check::shape(&q, q.rows, shape.heads * shape.key_dim, "the queries")?;
    check::shape(&out, q.rows, shape.heads * shape.value_dim, "the output")?;
    check::shape(&selected, q.rows, selected.cols, "the positions")?;
    check::apart(&out, &q)?;
    check::apart(&out, &selected)?;
    rows.places(layout, layer, widths, q.rows, None)
}

/// Each row's positions ascend and none is above the row's own, up to the first that is negative.
pub(crate) fn check_positions(selected: View<'_>, places: &Placement<'_>) -> Result<(), Error> {
    for (row, place) in places.rows.iter().enumerate() {
        let mut chosen = selected.row(row).iter().map(Cell::get).take_while(|j| *j >= 0.0).map(|j| j as u32);
        let first = chosen.next();
        let last = chosen.try_fold(first, |last, j| (Some(j) > last).then_some(Some(j)));
        if last.flatten().is_none_or(|last| last > place.position) {
            let message = format!("row {row} at {place:?} has no ascending positions to attend to");
            return Err(Error::shape(message));
        }
    }
    Ok(())
}
