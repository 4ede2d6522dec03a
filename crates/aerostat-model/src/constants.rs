//! The values of a program's constants, made of a checkpoint's small tensors.

use aerostat_arch::Vector;
use aerostat_backend::{Error, ErrorKind, defect, formats, numerics};

use crate::program::Source;

/// Gives a vector's stored bytes.
pub(crate) type Read<'a, E> = &'a mut dyn FnMut(&Vector) -> Result<Vec<u8>, E>;

/// The values of a constant of so many rows and columns, row by row.
pub(crate) fn values<E: From<Error>>(
    source: &Source,
    (rows, cols): (usize, usize),
    read: Read<'_, E>,
) -> Result<Vec<f32>, E> {
    let values = match source {
        Source::Tensor(v) => {
            let values = tensor(v, read)?;
            // They repeat whole: a norm of one head serves all heads.
            let whole = values.len().max(1);
            values.into_iter().cycle().take(rows * cols / whole * whole).collect()
        }
        Source::Fill(value) => vec![*value; rows * cols],
        Source::Joined(vectors) => {
            let mut all = Vec::with_capacity(rows * cols);
            for v in vectors {
                all.extend(tensor(v, read)?);
            }
            all
        }
        Source::Rates { rate, times } => {
            let rates = tensor(rate, read)?.into_iter().map(|rate| -numerics::exp(rate));
            rates.flat_map(|rate| std::iter::repeat_n(rate, *times)).collect()
        }
        Source::ChannelDecays { rate, rate_is_log, skip } => {
            let rates = tensor(rate, read)?;
            let per = rows.saturating_sub(1);
            let rate_of = |r: f32| if *rate_is_log { numerics::exp(r) } else { -r };
            let at = |i: usize| rates.get(i % cols.max(1) * per + i / cols.max(1)).map(|r| rate_of(*r));
            let mut all: Vec<f32> = (0..per * cols).filter_map(at).collect();
            all.extend(tensor(skip, read)?);
            all
        }
        Source::Slopes(slopes) => {
            slopes.iter().copied().chain(std::iter::repeat_n(0.0, 2 * slopes.len())).collect()
        }
        Source::Transposed(vectors) => {
            let mut values = Vec::with_capacity(rows * cols);
            for v in vectors {
                values.extend(tensor(v, read)?);
            }
            let at = |i: usize| values.get(i % cols.max(1) * rows + i / cols.max(1)).copied();
            (0..rows * cols).filter_map(at).collect()
        }
        Source::Buckets(biases) => {
            let table = tensor(&biases.table, read)?;
            let (reach, heads) = (biases.reach() as i64, rows);
            let at = |i: usize| {
                let bucket = biases.bucket((i % cols.max(1)) as i64 - reach);
                table.get(bucket * heads + i / cols.max(1)).copied()
            };
            (0..rows * cols).filter_map(at).collect()
        }
        Source::Decays { rate, rate_is_log, bias, skip } => {
            let rate_of = |r: f32| if *rate_is_log { numerics::exp(r) } else { -r };
            let rates = tensor(rate, read)?.into_iter().map(rate_of);
            let biases = tensor(bias, read)?;
            let skips = skip.as_ref().map(|skip| tensor(skip, read)).transpose()?;
            rates.chain(biases).chain(skips.into_iter().flatten()).collect()
        }
    };
    if values.len() != rows * cols {
        let (found, wanted) = (values.len(), rows * cols);
        return Err(defect!("a constant of {rows} x {cols} has {found} values, not {wanted}").into());
    }
    Ok(values)
}

/// The elements of a small tensor.
pub(crate) fn tensor<E: From<Error>>(v: &Vector, read: Read<'_, E>) -> Result<Vec<f32>, E> {
    let bytes = read(v)?;
    let stored = bytes.len() / v.dtype.block_bytes().max(1) * v.dtype.block_len();
    let mut values = vec![0.0; stored];
    formats::expand(v.dtype, &bytes, &mut values)?;
    let short = || {
        let message = format!("tensor `{}` holds {stored} elements, too few for {}", v.name, v.len);
        Error::new(ErrorKind::Shape, message)
    };
    if let Some(runs) = v.runs {
        let picked = (0..v.len).map(|i| values.get(runs.place(i)).copied().ok_or_else(short));
        values = picked.collect::<Result<_, Error>>()?;
    }
    if values.len() < v.len {
        return Err(short().into());
    }
    values.truncate(v.len);
    if v.offset != 0.0 {
        values.iter_mut().for_each(|value| *value += v.offset);
    }
    Ok(values)
}
