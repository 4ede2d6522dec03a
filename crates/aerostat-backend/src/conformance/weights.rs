//! The cases of weights: products by tiles, tiles in flight, rows of tiles.

use aerostat_checkpoint::DType;

use super::case::{Case, Values, other_case};
use super::data::{Random, everything, keep, matrix, shifted, tile_bytes, transposed, with_weight};
use crate::quantised::{self, Groups};
use crate::{
    Backend, Error, Home, Mat, Scaling, ScratchNeed, Tile, TileShape, UploadId, Weight, WeightId, packed,
};

impl Case {
    pub(super) fn k_major(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::MatmulKMajor { dtype, rows, n, k, tile_rows, weights, values } = *self else {
            return Err(other_case());
        };
        let x = matrix(device, random, rows, k, values)?;
        let y = matrix(device, random, rows, n, Values::Plain)?;
        reserve(device, rows, n, None)?;
        let bytes = tile_bytes(random, dtype, n * k, values);
        if other && dtype.block_len() == 1 {
            let bytes = transposed(&bytes, k, n);
            let multiply = |device: &mut dyn Backend, w: Weight| device.matmul(w, x, y);
            with_weight(device, dtype, (n, k), &bytes, weights, multiply)?;
        } else {
            let row_bytes = n / dtype.block_len() * dtype.block_bytes();
            for (bytes, k0, last) in tiles(&bytes, tile_rows * row_bytes) {
                let (shape, k0) = ((bytes.len() / row_bytes, n), k0 * tile_rows);
                with_weight(device, dtype, shape, bytes, weights, |device, w| {
                    device.matmul_k_major(w, x, y, k0, last)
                })?;
            }
        }
        everything(device, y)
    }

    pub(super) fn scaled(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::MatmulScaled { quantised, rows, n, k, tile_rows, weights, .. } = *self else {
            return Err(other_case());
        };
        let x = matrix(device, random, rows, k, Values::Plain)?;
        let y = matrix(device, random, rows, n, Values::Plain)?;
        match tile_rows {
            Some(_) => reserve(device, rows, n, Some(0))?,
            None => reserve(device, rows, 0, Some(k))?,
        }
        // As they are stored.
        let (stored_rows, cols) = if tile_rows.is_some() { (k, n) } else { (n, k) };
        let (run_rows, run) = quantised.code.run();
        let row_bytes = quantised.code.row_bytes(cols);
        let codes: Vec<u8> =
            (0..stored_rows / run * run_rows * row_bytes).map(|_| random.next() as u8).collect();
        let scaling = self.scaling(device, random, stored_rows, cols)?;
        if other {
            let expanded = expanded(device, &scaling, tile_rows.is_some(), (stored_rows, cols), &codes)?;
            let bytes: Vec<u8> = expanded.iter().flat_map(|w| w.to_le_bytes()).collect();
            let bytes = if tile_rows.is_some() { transposed(&bytes, k, n) } else { bytes };
            with_weight(device, DType::F32, (n, k), &bytes, weights, |device, w| device.matmul(w, x, y))?;
        } else if let Some(tile_rows) = tile_rows {
            for (bytes, tile, last) in tiles(&codes, tile_rows * run_rows * row_bytes) {
                let k0 = tile * tile_rows * run;
                let scaling = Scaling { first_row: scaling.first_row + k0, ..scaling };
                let shape = (bytes.len() / row_bytes, row_bytes);
                with_weight(device, DType::U8, shape, bytes, weights, |device, w| {
                    device.matmul_scaled_k_major(w, &scaling, x, y, k0, last)
                })?;
            }
        } else {
            with_weight(device, DType::U8, (n, row_bytes), &codes, weights, |device, w| {
                device.matmul_scaled(w, &scaling, x, y)
            })?;
        }
        everything(device, y)
    }

    /// Random scales, and what else the case has.
    fn scaling(
        &self,
        device: &mut dyn Backend,
        random: &mut Random,
        stored_rows: usize,
        cols: usize,
    ) -> Result<Scaling, Error> {
        let Self::MatmulScaled {
            quantised,
            block: (block_rows, block_cols),
            zeros,
            groups,
            tile_rows,
            first_row,
            ..
        } = *self
        else {
            return Err(other_case());
        };
        let all = first_row + stored_rows;
        let shape = (all.div_ceil(block_rows), cols.div_ceil(block_cols));
        let mut numbers = |shape: (usize, usize), value: &mut dyn FnMut(&mut Random) -> f32| {
            let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| value(random)).collect();
            let mat = Mat::new(device.allocate(values.len())?, shape.0, shape.1);
            device.write(mat, &values).map(|()| mat)
        };
        let scales = numbers(shape, &mut |random| random.value(Values::Plain) * 0.05)?;
        let zeros = zeros.then(|| numbers(shape, &mut |random| random.below(16) as f32)).transpose()?;
        let (inputs, ends) = if tile_rows.is_some() { (all, shape.0) } else { (cols, shape.1) };
        let groups = groups.then(|| numbers((1, inputs), &mut |random| random.below(ends) as f32));
        Ok(Scaling {
            quantised,
            scales,
            zeros,
            groups: groups.transpose()?,
            block_rows,
            block_cols,
            first_row,
        })
    }

    /// Rows of two resident tiles, or the same from the host.
    pub(super) fn gather_weights(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::GatherWeights { dtype, n, k, packed } = *self else { return Err(other_case()) };
        let tiles = [(); 2].map(|()| tile_bytes(random, dtype, n * k, Values::Plain));
        let picks: Vec<(usize, u32)> =
            (0..2 * n + 3).map(|_| (random.below(2), random.below(n) as u32)).collect();
        let out = matrix(device, random, picks.len(), k, Values::Plain)?;
        if other {
            for (i, &(tile, row)) in picks.iter().enumerate() {
                let table = Tile { dtype, rows: n, cols: k, bytes: &tiles[tile] };
                device.expand_rows(table, &[row], out.row_range(i, 1))?;
            }
        } else {
            let mut ids = Vec::new();
            for bytes in &tiles {
                let (shape, bytes) = maybe_packed(dtype, (n, k), bytes, packed)?;
                ids.push(device.pin(shape, Box::new(bytes), Home::Device)?);
            }
            let rows: Vec<(WeightId, u32)> = picks.iter().map(|&(tile, row)| (ids[tile], row)).collect();
            device.gather_weights(&rows, out)?;
        }
        everything(device, out)
    }

    /// Norms of the rows of one tile, or on the other device of many.
    pub(super) fn row_norms(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::RowNorms { dtype, n, k, packed, weights, values } = *self else { return Err(other_case()) };
        let bytes = tile_bytes(random, dtype, n * k, values);
        let out = matrix(device, random, 1, n, Values::Plain)?;
        if other {
            for (i, bytes) in bytes.chunks(bytes.len() / n).enumerate() {
                let out = out.col_range(i, 1);
                with_weight(device, dtype, (1, k), bytes, weights, |device, w| device.row_norms(w, out))?;
            }
        } else {
            let (shape, bytes) = maybe_packed(dtype, (n, k), &bytes, packed)?;
            keep(device, shape, &bytes, weights, |device, w| device.row_norms(w, out))?;
        }
        everything(device, out)
    }

    /// Tiles that are multiplied and released in another order than they arrive, while others take their places; on the other
    /// device, one by one.
    pub(super) fn uploads(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::Uploads { dtype, count, k } = *self else { return Err(other_case()) };
        let x = matrix(device, random, 2, k, Values::Plain)?;
        let shape = |i: usize| TileShape { dtype, rows: i + 1, cols: k, packed: false };
        let mut tile = |i: usize, device: &mut dyn Backend| -> Result<(Mat, Vec<u8>), Error> {
            let y = matrix(device, random, 2, i + 1, Values::Plain)?;
            Ok((y, tile_bytes(random, dtype, (i + 1) * k, Values::Plain)))
        };
        let mut tiles = Vec::new();
        for i in 0..count {
            tiles.push(tile(i, device)?);
        }
        let send = |device: &mut dyn Backend, i: usize, bytes: &[u8]| -> Result<UploadId, Error> {
            device.upload(shape(i), shifted(bytes, i % 4))
        };
        if other {
            for (i, (y, bytes)) in tiles.iter().enumerate() {
                let id = send(device, i, bytes)?;
                device.matmul(Weight::Arriving(id), x, *y)?;
                device.release(id);
            }
        } else {
            let unused = send(device, 0, &tiles[0].1)?;
            let mut ids = Vec::new();
            for (i, (_, bytes)) in tiles.iter().enumerate() {
                ids.push(send(device, i, bytes)?);
                if i == 1 {
                    device.release(unused);
                }
            }
            for (i, (y, bytes)) in tiles.iter().enumerate().rev() {
                device.matmul(Weight::Arriving(ids[i]), x, *y)?;
                device.release(ids[i]);
                ids.push(send(device, i, bytes)?);
            }
            device.release_all();
        }
        let mut results = Vec::new();
        for (y, _) in tiles {
            results.extend(everything(device, y)?);
        }
        Ok(results)
    }
}

/// Tiles of so many bytes, their numbers, and whether they are the last; the first comes twice, since the sums of a
/// matrix begin anew with it.
fn tiles(bytes: &[u8], tile_bytes: usize) -> impl Iterator<Item = (&[u8], usize, bool)> {
    let count = bytes.len().div_ceil(tile_bytes);
    let all = bytes.chunks(tile_bytes).enumerate().map(move |(i, tile)| (tile, i, i + 1 == count));
    bytes.chunks(tile_bytes).take(1).map(|tile| (tile, 0, false)).chain(all)
}

/// Scratch for one product: of a matrix stored by inputs with so many outputs, of codes in rows of so many.
fn reserve(
    device: &mut dyn Backend,
    rows: usize,
    k_major_outputs: usize,
    scaled_cols: Option<usize>,
) -> Result<(), Error> {
    device.reserve(&ScratchNeed { k_major_outputs, scaled_cols, scaled_packed: false, packed: false }, rows)
}

fn maybe_packed(
    dtype: DType,
    (rows, cols): (usize, usize),
    bytes: &[u8],
    is_packed: bool,
) -> Result<(TileShape, Vec<u8>), Error> {
    let shape = TileShape { dtype, rows, cols, packed: is_packed };
    let bytes = if is_packed { packed::pack(&shape.tile(bytes), true)? } else { bytes.to_vec() };
    Ok((shape, bytes))
}

/// What codes of this shape stand for.
fn expanded(
    device: &mut dyn Backend,
    scaling: &Scaling,
    by_inputs: bool,
    (rows, cols): (usize, usize),
    codes: &[u8],
) -> Result<Vec<f32>, Error> {
    let Scaling { quantised, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
    let mut read = |mat: Option<Mat>| mat.map_or(Ok(Vec::new()), |mat| Ok(device.read(mat)?.to_vec()));
    let (values, zeros, groups) = (read(Some(scales))?, read(zeros)?, read(groups)?);
    let (run_rows, run) = quantised.code.run();
    let run_bytes = quantised.code.row_bytes(cols) * run_rows;
    let mut expanded = vec![0.0; rows * cols];
    for (row, out) in expanded.chunks_mut(cols).enumerate() {
        let by_index = groups.get(first_row + row).filter(|_| by_inputs);
        let block = by_index.map_or((first_row + row) / block_rows, |group| *group as usize);
        let of_row = |values: &[f32]| values.chunks(scales.cols).nth(block).unwrap_or_default().to_vec();
        let index = Some(groups.as_slice()).filter(|groups| !by_inputs && !groups.is_empty());
        let of_groups = Groups { len: block_cols, index, scales: &of_row(&values), zeros: &of_row(&zeros) };
        let codes = &codes[row / run * run_bytes..][..run_bytes];
        quantised::expand(&quantised, codes, row % run, of_groups, out)?;
    }
    Ok(expanded)
}
