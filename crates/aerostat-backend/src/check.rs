//! The rules that operands obey, shared by all host devices: a kernel runs only on operands that passed.

use crate::{Attention, Error, HeadCopy, KvLayout, Mat, Rope, RowPlace, Tile, Window};

/// A matrix lies within a buffer of `len` elements and its rows do not overlap.
pub(crate) fn mat(mat: &Mat, len: usize) -> Result<(), Error> {
    if mat.stride < mat.cols && mat.rows > 1 {
        return Err(Error::shape(format!(
            "rows overlap: stride {} is below the {} columns",
            mat.stride, mat.cols
        )));
    }
    if mat.rows == 0 || mat.cols == 0 {
        return Ok(());
    }
    match last(mat) {
        Some(last) if last < len => Ok(()),
        _ => Err(Error::shape(format!(
            "a matrix of {} rows x {} columns, stride {}, at {} does not fit buffer {} of {len} elements",
            mat.rows, mat.cols, mat.stride, mat.offset, mat.buffer.0
        ))),
    }
}

/// Two matrices have the same shape; `what` names them.
pub(crate) fn same_shape(a: &Mat, b: &Mat, what: &str) -> Result<(), Error> {
    shape(b, a.rows, a.cols, what)
}

/// A matrix has this shape; `what` names it.
pub(crate) fn shape(mat: &Mat, rows: usize, cols: usize, what: &str) -> Result<(), Error> {
    if mat.rows == rows && mat.cols == cols {
        return Ok(());
    }
    Err(Error::shape(format!("{what} is {} x {} where {rows} x {cols} is needed", mat.rows, mat.cols)))
}

/// An output shares no element with an input.
pub(crate) fn apart(out: &Mat, input: &Mat) -> Result<(), Error> {
    if !overlap(out, input) {
        return Ok(());
    }
    Err(Error::shape(format!("the output {out:?} overlaps the input {input:?}")))
}

/// An output is one of the inputs, or shares no element with it.
pub(crate) fn same_or_apart(out: &Mat, input: &Mat) -> Result<(), Error> {
    if out == input { Ok(()) } else { apart(out, input) }
}

/// A tile has whole blocks in each row, and exactly its bytes.
pub(crate) fn tile(tile: &Tile<'_>) -> Result<(), Error> {
    let Tile { dtype, rows, cols, bytes } = *tile;
    if !cols.is_multiple_of(dtype.block_len()) {
        return Err(Error::shape(format!("{cols} columns are not a whole number of {dtype:?} blocks")));
    }
    let want = (rows as u64).checked_mul(cols as u64).and_then(|n| dtype.bytes_for(n));
    if want != Some(bytes.len() as u64) {
        return Err(Error::shape(format!(
            "a {dtype:?} tile of {rows} rows x {cols} columns has {} bytes where {want:?} are needed",
            bytes.len()
        )));
    }
    Ok(())
}

/// So many inputs from `k0` on are in `x`.
pub(crate) fn inputs(count: usize, x: &Mat, k0: usize) -> Result<(), Error> {
    match k0.checked_add(count) {
        Some(end) if end <= x.cols => Ok(()),
        _ => Err(Error::shape(format!(
            "a tile of {count} inputs from {k0} on does not fit the {} of {x:?}",
            x.cols
        ))),
    }
}

/// Row indices are below `rows`, and `out` has one row for each of them.
pub(crate) fn rows(indices: &[u32], rows: usize, cols: usize, out: &Mat) -> Result<(), Error> {
    shape(out, indices.len(), cols, "the output")?;
    match indices.iter().find(|&&row| row as usize >= rows) {
        Some(row) => Err(Error::shape(format!("row {row} was asked of a matrix of {rows} rows"))),
        None => Ok(()),
    }
}

/// The columns of `out` lie in `x`, one every `step` from the `first`.
pub(crate) fn columns(x: &Mat, first: usize, step: usize, out: &Mat) -> Result<(), Error> {
    let last = out.cols.checked_sub(1).map(|last| last.saturating_mul(step).saturating_add(first));
    if step > 0 && x.rows == out.rows && last.is_none_or(|last| last < x.cols) {
        return Ok(());
    }
    let (rows, cols, wanted) = (x.rows, x.cols, out.cols);
    let message =
        format!("{wanted} columns from {first} by {step} do not lie in a matrix of {rows} x {cols}");
    Err(Error::shape(message))
}

/// One factor for each row.
pub(crate) fn factors(factors: &[f32], rows: usize) -> Result<(), Error> {
    if factors.len() == rows {
        return Ok(());
    }
    Err(Error::shape(format!("{} factors were given for {rows} rows", factors.len())))
}

/// Both matrices have as many whole heads, which have the columns that are copied.
pub(crate) fn copy_heads(x: &Mat, copy: &HeadCopy, out: &Mat) -> Result<(), Error> {
    let HeadCopy { from_dim, from_start, to_dim, to_start, len } = *copy;
    let within = |start: usize, dim: usize| start.checked_add(len).is_some_and(|end| end <= dim);
    let heads = |mat: &Mat, dim: usize| (dim > 0 && mat.cols.is_multiple_of(dim)).then(|| mat.cols / dim);
    let same = heads(x, from_dim).is_some_and(|count| heads(out, to_dim) == Some(count));
    if !same || x.rows != out.rows || !within(from_start, from_dim) || !within(to_start, to_dim) {
        return Err(Error::shape(format!("{copy:?} does not fit {x:?} and {out:?}")));
    }
    apart(out, x)
}

/// Rotation of a matrix by a table of angles.
pub(crate) fn rope(x: &Mat, rope: &Rope, angles: &Mat) -> Result<(), Error> {
    let Rope { head_dim, start, rotary, .. } = *rope;
    let within = start.checked_add(rotary).is_some_and(|end| end <= head_dim);
    if head_dim == 0 || !within || !rotary.is_multiple_of(2) || !x.cols.is_multiple_of(head_dim) {
        return Err(Error::shape(format!("{rope:?} does not fit rows of {} columns", x.cols)));
    }
    shape(angles, x.rows, rotary, "the table of angles")?;
    apart(x, angles)
}

/// The number of slots of a KV cache.
pub(crate) fn kv_layout(layout: &KvLayout) -> Result<usize, Error> {
    let slots = layout.pages.checked_mul(layout.page_tokens);
    match slots {
        Some(slots) if layout.page_tokens > 0 && whole_heads(layout) => Ok(slots),
        _ => Err(Error::shape(format!("{layout:?} makes no sense"))),
    }
}

/// Every layer has its heads, all of one size.
fn whole_heads(layout: &KvLayout) -> bool {
    let KvLayout { key_widths, value_widths, heads, .. } = layout;
    let whole = |widths: &[usize]| {
        let parts = |(width, &heads): (&usize, &usize)| heads > 0 && width.is_multiple_of(heads);
        widths.len() == heads.len() && widths.iter().zip(heads).all(parts)
    };
    whole(key_widths) && whole(value_widths)
}

/// The heads of a layer that exists are those of an attention.
pub(crate) fn heads(layout: &KvLayout, layer: usize, heads: usize) -> Result<(), Error> {
    match layout.heads.get(layer) {
        Some(&have) if have != heads => {
            Err(Error::shape(format!("layer {layer} of the KV cache has {have} heads, not {heads}")))
        }
        _ => Ok(()),
    }
}

/// The heads of an attention make sense; gives the widths of a key row and a value row, if it reads values.
pub(crate) fn attention(shape: &Attention) -> Result<(usize, Option<usize>), Error> {
    let Attention { heads, kv_heads, key_dim, value_dim, values_in_keys, window, ahead, .. } = *shape;
    let widths = kv_heads.checked_mul(key_dim).zip(kv_heads.checked_mul(value_dim));
    let values = !values_in_keys || value_dim <= key_dim;
    match widths {
        Some((key, value))
            if kv_heads > 0
                && heads > 0
                && heads.is_multiple_of(kv_heads)
                && sees(window, ahead)
                && values =>
        {
            Ok((key, (!values_in_keys).then_some(value)))
        }
        _ => Err(Error::shape(format!("{shape:?} makes no sense"))),
    }
}

/// Whether a row sees anything, and a window on both sides is of an attention that looks both ways.
fn sees(window: Option<Window>, ahead: bool) -> bool {
    match window {
        None => true,
        Some(Window::Last(n) | Window::Chunk(n)) => n > 0 && !ahead,
        Some(Window::Around(_)) => ahead,
    }
}

/// The first and the last position that a row sees.
pub fn visible(place: RowPlace, shape: &Attention) -> (usize, usize) {
    let (own, first) = (place.position as usize, first_visible(place.position as usize, shape.window));
    let last = if shape.ahead { place.last.max(place.position) as usize } else { own };
    match shape.window {
        Some(Window::Around(n)) => (first, last.min(own.saturating_add(n))),
        _ => (first, last),
    }
}

/// The first position that a row at `position` sees.
pub fn first_visible(position: usize, window: Option<Window>) -> usize {
    match window {
        None => 0,
        Some(Window::Last(n)) => (position + 1).saturating_sub(n),
        Some(Window::Chunk(n)) => position - position % n.max(1),
        Some(Window::Around(n)) => position.saturating_sub(n),
    }
}

/// Index of the last element, if it fits a usize and the matrix is not empty.
fn last(mat: &Mat) -> Option<usize> {
    let start = mat.rows.checked_sub(1)?.checked_mul(mat.stride)?.checked_add(mat.offset)?;
    start.checked_add(mat.cols.checked_sub(1)?)
}

/// Exact for matrices on one grid (the same stride, no row running past its grid row); else the whole spans count.
fn overlap(a: &Mat, b: &Mat) -> bool {
    let (Some(a_last), Some(b_last)) = (last(a), last(b)) else { return false };
    if a.buffer != b.buffer || a_last < b.offset || b_last < a.offset {
        return false;
    }
    let column = |m: &Mat| m.offset % m.stride;
    let one_grid =
        a.stride == b.stride && a.stride > 0 && [a, b].iter().all(|m| column(m) + m.cols <= m.stride);
    if !one_grid {
        return true;
    }
    column(a) < column(b) + b.cols && column(b) < column(a) + a.cols
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BufferId;

    fn at(offset: usize, rows: usize, cols: usize, stride: usize) -> Mat {
        Mat { buffer: BufferId(0), offset, rows, cols, stride }
    }

    #[test]
    fn a_matrix_must_fit_its_buffer() {
        let cases = [
            (at(0, 2, 3, 3), 6, true),
            (at(1, 2, 3, 3), 6, false),
            (at(0, 2, 3, 4), 7, true),
            (at(0, 2, 3, 4), 6, false),
            (at(0, 2, 3, 2), 100, false),
            (at(9, 0, 3, 3), 6, true),
            (at(usize::MAX, 2, 3, 3), 6, false),
            (at(0, usize::MAX, 3, usize::MAX), 6, false),
        ];
        for (m, len, fits) in cases {
            assert_eq!(mat(&m, len).is_ok(), fits, "{m:?} in {len}");
        }
    }

    #[test]
    fn overlap_is_exact_on_one_grid() {
        let qkv = at(0, 4, 10, 10);
        let cases = [
            (qkv.col_range(0, 4), qkv.col_range(4, 6), false),
            (qkv.col_range(0, 5), qkv.col_range(4, 6), true),
            (qkv.row_range(0, 2), qkv.row_range(2, 2), false),
            (qkv.row_range(0, 3), qkv.row_range(2, 2), true),
            (qkv, at(40, 1, 10, 10), false),
            (qkv, at(39, 1, 10, 10), true),
            (qkv.col_range(0, 2), at(5, 4, 2, 9), true),
            (qkv, Mat { buffer: BufferId(1), ..qkv }, false),
        ];
        for (a, b, want) in cases {
            assert_eq!((overlap(&a, &b), overlap(&b, &a)), (want, want), "{a:?} {b:?}");
        }
    }
}
