//! Products with weights, and what else is made of tiles.

use aerostat_backend::quantised::{self, Numbers, Rounding};
use aerostat_backend::reference::Reference;
use aerostat_backend::{
    Backend, Error, Mat, Nested, Scaling, Tile, TileShape, Weight, WeightId, formats, packed, rules,
};

use crate::budget::Buffer;
use crate::gpu::{Gpu, check_format};
use crate::pipelines::{Kernel, Weights, Words};
use crate::weights::Found;

/// Outputs of a workgroup.
const OUTPUTS: usize = 64;
/// Rows of a workgroup of the kernel for matrices stored by inputs.
const ROWS_BY_INPUTS: usize = 8;

/// A product as kernels take it.
struct Product<'a> {
    found: &'a Found,
    row_bytes: usize,
    /// Outputs and inputs of the tile.
    n: usize,
    k: usize,
    x: Mat,
    y: Mat,
    k0: usize,
    last: bool,
    by_inputs: bool,
}

impl<'a> Product<'a> {
    /// With a tile of outputs.
    fn rows(found: &'a Found, row_bytes: usize, (x, y): (Mat, Mat)) -> Self {
        Self { found, row_bytes, n: y.cols, k: x.cols, x, y, k0: 0, last: true, by_inputs: false }
    }
}

impl Gpu {
    pub(crate) fn multiply(&mut self, w: Weight, x: Mat, y: Mat) -> Result<(), Error> {
        let shape = self.weights.shape(w)?;
        check_format(shape.dtype)?;
        rules::shape(&x, x.rows, shape.cols, "the input")?;
        rules::shape(&y, x.rows, shape.rows, "the output")?;
        rules::apart(&y, &x)?;
        let found = self.weight(w)?;
        let row_bytes = row_bytes(&found.shape);
        let product = Product::rows(&found, row_bytes, (x, y));
        self.product(Weights::Plain(shape.dtype), &product, None)?;
        self.weights.used(w, &mut self.stream)
    }

    pub(crate) fn multiply_scaled(
        &mut self,
        w: Weight,
        scaling: &Scaling,
        x: Mat,
        y: Mat,
    ) -> Result<(), Error> {
        let shape = self.weights.shape(w)?;
        rules::check_codes((shape.rows, code_bytes(&shape, x.cols)), scaling, x.cols, false)?;
        rules::shape(&y, x.rows, shape.rows, "the output")?;
        rules::apart(&y, &x)?;
        let found = self.weight(w)?;
        let row_bytes = scaling.quantised.code.row_bytes(x.cols);
        let product = Product::rows(&found, row_bytes, (x, y));
        self.product(Weights::Codes(scaling.quantised.code), &product, Some(scaling))?;
        self.weights.used(w, &mut self.stream)
    }

    pub(crate) fn multiply_by_inputs(
        &mut self,
        w: Weight,
        scaling: Option<&Scaling>,
        (x, y): (Mat, Mat),
        k0: usize,
        last: bool,
    ) -> Result<(), Error> {
        let shape = self.weights.shape(w)?;
        let inputs = match scaling {
            Some(scaling) => {
                rules::check_codes((shape.rows, code_bytes(&shape, y.cols)), scaling, y.cols, true)?
            }
            None => {
                check_format(shape.dtype)?;
                rules::shape(&y, x.rows, shape.cols, "the output")?;
                shape.rows
            }
        };
        rules::inputs(inputs, &x, k0)?;
        rules::shape(&y, x.rows, y.cols, "the output")?;
        rules::apart(&y, &x)?;
        self.follow((x.rows, y.cols), (k0, inputs))?;
        let found = self.weight(w)?;
        let (weights, row_bytes) = match scaling {
            Some(Scaling { quantised, .. }) => {
                (Weights::Codes(quantised.code), quantised.code.row_bytes(y.cols) * quantised.code.run().0)
            }
            None => (Weights::Plain(shape.dtype), row_bytes(&found.shape)),
        };
        let product =
            Product { k: inputs, k0, last, by_inputs: true, ..Product::rows(&found, row_bytes, (x, y)) };
        self.product(weights, &product, scaling)?;
        if last {
            self.sums.next = None;
        }
        self.weights.used(w, &mut self.stream)
    }

    /// Whether a tile of a matrix stored by inputs follows the one before it, and its sums have room.
    fn follow(&mut self, (rows, outputs): (usize, usize), (k0, inputs): (usize, usize)) -> Result<(), Error> {
        if k0 > 0 && self.sums.next != Some((rows, outputs, k0)) {
            return Err(Error::shape(format!(
                "a tile of {rows} rows and {outputs} outputs from input {k0} on does not follow the last one: (rows, \
                 outputs, next input) is {:?}",
                self.sums.next
            )));
        }
        let room = self.sums.buffer.as_ref().map_or(0, |buffer| buffer.bytes / 8);
        if (rows as u64).saturating_mul(outputs as u64) > room {
            return Err(Error::shape(format!(
                "partial sums of {rows} rows and {outputs} outputs are more than the {room} that are reserved"
            )));
        }
        self.sums.next = Some((rows, outputs, k0 + inputs));
        Ok(())
    }

    fn product(
        &mut self,
        weights: Weights,
        product: &Product<'_>,
        scaling: Option<&Scaling>,
    ) -> Result<(), Error> {
        let &Product { found, row_bytes, n, k, x, y, k0, last, by_inputs } = product;
        let (from, to) = (self.at(&x)?, self.at(&y)?);
        let words = [found.at as usize, row_bytes, n, k, from.offset, x.stride, to.offset, y.stride, x.rows];
        let words = Words::of(&words)?.and(&[k0, usize::from(last)])?;
        let (words, beside) =
            self.scaled_words(words, scaling, if by_inputs { n } else { k }, &to.buffer, &y)?;
        let [scales, zeros, groups] = beside;
        if by_inputs {
            let sums = self.sums.buffer.clone().unwrap_or_else(|| to.buffer.clone());
            let buffers = [&from.buffer, &to.buffer, &found.buffer, &scales, &zeros, &groups, &sums];
            let workgroups = (n.div_ceil(64), x.rows.div_ceil(ROWS_BY_INPUTS));
            return self.run(Kernel::KMajor(weights), &buffers, &words, workgroups);
        }
        let rows = match x.rows {
            0 | 1 => 1,
            2..=8 => 8,
            _ => 32,
        };
        let buffers = [&from.buffer, &to.buffer, &found.buffer, &scales, &zeros, &groups];
        let buffers = if scaling.is_some() { &buffers[..] } else { &buffers[..3] };
        let workgroups = (n.div_ceil(OUTPUTS), x.rows.div_ceil(rows as usize));
        self.run(Kernel::Matmul { weights, rows }, buffers, &words, workgroups)
    }

    /// Adds the parameters of codes, and finds the buffers of what lies beside them.
    fn scaled_words(
        &self,
        words: Words,
        scaling: Option<&Scaling>,
        columns: usize,
        none: &Buffer,
        y: &Mat,
    ) -> Result<(Words, [Buffer; 3]), Error> {
        const NONE: usize = u32::MAX as usize;
        let Some(scaling) = scaling else {
            let words = words.bits(&[0; 13])?;
            return Ok((words, [none.clone(), none.clone(), none.clone()]));
        };
        let Scaling { quantised, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
        for mat in [Some(scales), zeros, groups].into_iter().flatten() {
            rules::apart(y, &mat)?;
        }
        let place = |mat: Option<Mat>| -> Result<(Buffer, usize, usize), Error> {
            let Some(mat) = mat else { return Ok((none.clone(), NONE, 0)) };
            let at = self.at(&mat)?;
            Ok((at.buffer, at.offset, mat.stride))
        };
        let (scale_buffer, scales, scales_stride) = place(Some(scales))?;
        let (zero_buffer, zero_at, zeros_stride) = place(zeros)?;
        let (group_buffer, groups, _) = place(groups)?;
        let words = words.and(&[
            scales,
            scales_stride,
            zero_at,
            zeros_stride,
            groups,
            block_rows.min(NONE),
            block_cols.min(NONE),
            first_row,
            quantised.code.run().1,
            columns,
            match quantised.rounding {
                Rounding::F32 => 0,
                Rounding::F16 => 1,
                Rounding::BF16 => 2,
            },
        ])?;
        let middle = if zeros.is_none() { quantised::middle(quantised.code) } else { 0.0 };
        Ok((words.floats(&[middle, quantised.factor])?, [scale_buffer, zero_buffer, group_buffer]))
    }

    pub(crate) fn norms_of_rows(&mut self, w: Weight, out: Mat) -> Result<(), Error> {
        let shape = self.weights.shape(w)?;
        check_format(shape.dtype)?;
        rules::shape(&out, 1, shape.rows, "the output")?;
        let (found, to) = (self.weight(w)?, self.at(&out)?);
        let words = [found.at as usize, row_bytes(&found.shape), shape.rows, shape.cols, 0, 0, to.offset];
        let words = Words::of(&words)?.bits(&[0; 17])?;
        let buffers = [&to.buffer, &to.buffer, &found.buffer];
        self.run(Kernel::RowNorms(shape.dtype), &buffers, &words, (shape.rows.min(65_535), 1))?;
        self.weights.used(w, &mut self.stream)
    }

    pub(crate) fn expand_beside(
        &mut self,
        w: Weight,
        numbers: Numbers,
        nested: Option<Nested>,
        out: Mat,
    ) -> Result<(), Error> {
        let shape = self.weights.shape(w)?;
        if shape.packed {
            return Err(Error::shape("what lies beside codes cannot be packed"));
        }
        if numbers == Numbers::Nested {
            return self.expand_nested((w, shape), nested, out);
        }
        let values = {
            let tile = self.weights.host_tile(w)?;
            let mut host = Reference::new();
            let mat = Mat::new(host.allocate(out.rows * out.cols)?, out.rows, out.cols);
            let tile = Weight::Arriving(host.upload(shape, Box::new(tile.bytes.to_vec()))?);
            host.expand_numbers(tile, numbers, None, mat)?;
            host.read(mat)?.to_vec()
        };
        self.write_values(out, &values)
    }

    fn expand_nested(
        &mut self,
        (w, shape): (Weight, TileShape),
        nested: Option<Nested>,
        out: Mat,
    ) -> Result<(), Error> {
        let bytes = shape.dtype.bytes_for((shape.rows * shape.cols) as u64);
        let holds = out.rows == shape.rows && bytes == (out.rows as u64).checked_mul(out.cols as u64);
        let nested = nested.filter(|nested| {
            nested.len > 0 && (nested.values.rows, nested.values.cols, nested.scales.rows) == (1, 256, 1)
        });
        let Some(Nested { values, scales, len, first, offset }) = nested.filter(|_| holds) else {
            return Err(Error::shape("nested scales need 256 values, and scales of their own"));
        };
        let end = first.saturating_add(out.rows * out.cols);
        if end.div_ceil(len) > scales.cols {
            let have = scales.cols;
            return Err(Error::shape(format!("scales {first} .. {end} need more than {have} of their own")));
        }
        let found = self.weight(w)?;
        let (value_at, scale_at, to) = (self.at(&values)?, self.at(&scales)?, self.at(&out)?);
        let words = [found.at as usize, value_at.offset, scale_at.offset, to.offset, out.stride];
        let words = Words::of(&words)?.and(&[out.rows, out.cols, first, len])?.floats(&[offset])?;
        let buffers = [&value_at.buffer, &scale_at.buffer, &to.buffer, &found.buffer];
        self.run(Kernel::Nested, &buffers, &words, (out.cols.div_ceil(64), out.rows))?;
        self.weights.used(w, &mut self.stream)
    }

    pub(crate) fn expand_host_rows(&mut self, table: Tile<'_>, rows: &[u32], out: Mat) -> Result<(), Error> {
        check_format(table.dtype)?;
        rules::tile(&table)?;
        rules::rows(rows, table.rows, table.cols, &out)?;
        let row_bytes = row_bytes(&shape_of(&table));
        let mut values = vec![0.0; rows.len() * table.cols];
        for (row, values) in rows.iter().zip(values.chunks_mut(table.cols.max(1))) {
            formats::expand(table.dtype, &table.bytes[*row as usize * row_bytes..][..row_bytes], values)?;
        }
        self.write_values(out, &values)
    }

    pub(crate) fn gather_resident(&mut self, rows: &[(WeightId, u32)], out: Mat) -> Result<(), Error> {
        rules::shape(&out, rows.len(), out.cols, "the output")?;
        // By tile, in the order in which tiles are first named.
        let mut tiles: Vec<(WeightId, Vec<u32>)> = Vec::new();
        for (to, &(id, row)) in rows.iter().enumerate() {
            let shape = self.weights.shape(Weight::Resident(id))?;
            check_format(shape.dtype)?;
            rules::rows(&[row], shape.rows, shape.cols, &out.row_range(0, 1))?;
            match tiles.iter_mut().find(|(of, _)| *of == id) {
                Some((_, pairs)) => pairs.extend([row, to as u32]),
                None => tiles.push((id, vec![row, to as u32])),
            }
        }
        for (id, pairs) in tiles {
            let weight = Weight::Resident(id);
            match self.weights.host_tile(weight) {
                Ok(_) => self.gather_on_host(weight, &pairs, out)?,
                Err(_) => self.gather_on_device(weight, &pairs, out)?,
            }
        }
        Ok(())
    }

    fn gather_on_host(&mut self, weight: Weight, pairs: &[u32], out: Mat) -> Result<(), Error> {
        let is_packed = self.weights.shape(weight)?.packed;
        let (mut values, mut buffer) = (vec![0.0; out.cols], Vec::new());
        for pair in pairs.as_chunks::<2>().0 {
            let tile = self.weights.host_tile(weight)?;
            let row_bytes = row_bytes(&shape_of(&tile));
            let bytes = match is_packed {
                true => packed::row(&tile, pair[0] as usize, &mut buffer)?,
                false => &tile.bytes[pair[0] as usize * row_bytes..][..row_bytes],
            };
            formats::expand(tile.dtype, bytes, &mut values)?;
            self.write_values(out.row_range(pair[1] as usize, 1), &values)?;
        }
        Ok(())
    }

    fn gather_on_device(&mut self, weight: Weight, pairs: &[u32], out: Mat) -> Result<(), Error> {
        let (found, to, list) = (self.weight(weight)?, self.at(&out)?, self.list(pairs)?);
        let (shape, count) = (found.shape, pairs.len() / 2);
        let words = [found.at as usize, row_bytes(&shape), shape.rows, shape.cols, 0, 0, to.offset];
        let words = Words::of(&words)?.and(&[out.stride, count])?.bits(&[0; 15])?;
        let buffers = [&to.buffer, &to.buffer, &found.buffer, &list];
        self.run(Kernel::WeightRows(shape.dtype), &buffers, &words, (shape.cols.div_ceil(64), count))
    }

    /// Writes values to a matrix, which was checked to have so many.
    pub(crate) fn write_values(&mut self, to: Mat, values: &[f32]) -> Result<(), Error> {
        let at = self.at(&to)?;
        let is_dense = to.stride == to.cols || to.rows <= 1;
        let run = if is_dense { values.len() } else { to.cols };
        for (row, values) in values.chunks(run.max(1)).enumerate() {
            let mut bytes = Vec::with_capacity(values.len() * 4);
            values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
            let place = (at.offset + row * to.stride) as u64 * 4;
            self.write_bytes(&bytes, (&at.buffer, place))?;
        }
        Ok(())
    }
}

fn shape_of(tile: &Tile<'_>) -> TileShape {
    TileShape { dtype: tile.dtype, rows: tile.rows, cols: tile.cols, packed: false }
}

/// Bytes of a stored row.
fn row_bytes(shape: &TileShape) -> usize {
    shape.cols / shape.dtype.block_len() * shape.dtype.block_bytes()
}

/// Bytes that a tile's codes take if it may have rows of so many.
fn code_bytes(shape: &TileShape, columns: usize) -> Option<u64> {
    if shape.packed && shape.cols != columns {
        return None;
    }
    shape.dtype.bytes_for((shape.rows as u64).checked_mul(shape.cols as u64)?)
}
