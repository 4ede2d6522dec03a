//! Quantising: f32 to the blocks of ggml's formats, each block by a search for the scales with the smallest error.
//!
//! The layouts are those that `aerostat_backend::formats` expands. A scale is found by trying many; for each the integers
//! follow, and for these the best scale (and offset) follows from a line through them. Errors are weighted: a large weight
//! counts up to a few times as much as a small one. The same input gives the same blocks everywhere: all arithmetic is
//! IEEE, in one order.

use aerostat_backend::Tile;
use aerostat_backend::formats::{self, q8_0};
use aerostat_checkpoint::DType;
use half::f16;

use crate::{Error, ErrorKind};

/// Elements of the blocks called K.
const SUPER: usize = 256;
/// Scales that are tried for a block, each way.
const TRIES: i32 = 16;

/// What was lost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    squares: f64,
    errors: f64,
}

impl Loss {
    pub(crate) fn add(&mut self, other: Loss) {
        self.squares += other.squares;
        self.errors += other.errors;
    }

    /// Root of the mean square of the error over that of the weights.
    pub(crate) fn relative(&self) -> f64 {
        if self.squares > 0.0 { (self.errors / self.squares).sqrt() } else { 0.0 }
    }
}

/// The rows of a tile in another format.
pub(crate) fn quantise_lossy(tile: &Tile<'_>, to: DType) -> Result<(Vec<u8>, Loss), Error> {
    let (mut out, mut loss) = (Vec::new(), Loss::default());
    let (mut row, mut back) = (vec![0.0; tile.cols], vec![0.0; tile.cols]);
    for bytes in tile.bytes.chunks_exact(tile.bytes.len() / tile.rows.max(1)) {
        formats::expand(tile.dtype, bytes, &mut row)?;
        let start = out.len();
        quantise(to, &row, &mut out)?;
        formats::expand(to, &out[start..], &mut back)?;
        for (&was, &is) in row.iter().zip(&back) {
            let (was, is) = (f64::from(was), f64::from(is));
            loss.squares += was * was;
            loss.errors += (was - is) * (was - is);
        }
    }
    Ok((out, loss))
}

/// Appends `values`, whole blocks, to `out`.
///
/// # Errors
/// [`ErrorKind::Source`]: a value is not finite; [`ErrorKind::Usage`]: there is no way to this format, or the values are not
/// whole blocks.
pub fn quantise(to: DType, values: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::new(
            ErrorKind::Source,
            "a weight is NaN or infinite, which no integer stands for",
        ));
    }
    let block: fn(&[f32], &mut [u8]) = match to {
        DType::Q8_0 => q8_0,
        DType::Q5_0 => q5_0,
        DType::Q4_K => q4_k,
        DType::Q5_K => q5_k,
        DType::Q6_K => q6_k,
        _ => return Err(Error::new(ErrorKind::Usage, format!("nothing is quantised to {}", to.name()))),
    };
    if !values.len().is_multiple_of(to.block_len()) {
        return Err(Error::new(ErrorKind::Usage, format!("{} values are not whole blocks", values.len())));
    }
    for values in values.chunks_exact(to.block_len()) {
        let start = out.len();
        out.resize(start + to.block_bytes(), 0);
        block(values, &mut out[start..]);
    }
    Ok(())
}

fn q5_0(x: &[f32], out: &mut [u8]) {
    let d = put_half(out, 0, symmetric(x, &importance(x), -16.0, 15.0));
    let mut high = 0u32;
    for (i, &v) in x.iter().enumerate() {
        let q = (integer(v, inverse(d), -16.0, 15.0) + 16.0) as u8;
        out[6 + i % 16] |= (q & 15) << (4 * (i / 16));
        high |= u32::from(q >> 4) << i;
    }
    out[2..6].copy_from_slice(&high.to_le_bytes());
}

fn q4_k(x: &[f32], out: &mut [u8]) {
    for (i, q) in with_minima(x, 15.0, out).into_iter().enumerate() {
        out[16 + 32 * (i / 64) + i % 32] |= q << (4 * (i / 32 % 2));
    }
}

fn q5_k(x: &[f32], out: &mut [u8]) {
    for (i, q) in with_minima(x, 31.0, out).into_iter().enumerate() {
        out[48 + 32 * (i / 64) + i % 32] |= (q & 15) << (4 * (i / 32 % 2));
        out[16 + i % 32] |= (q >> 4) << (i / 32);
    }
}

fn q6_k(x: &[f32], out: &mut [u8]) {
    let subs = || x.chunks_exact(16);
    let scales: Vec<f32> = subs().map(|x| symmetric(x, &importance(x), -32.0, 31.0)).collect();
    let largest = scales.iter().fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
    let d = put_half(out, 208, -largest / 128.0);
    for (sub, (x, &scale)) in subs().zip(&scales).enumerate() {
        let w = importance(x);
        let near = integer(scale, inverse(d), -128.0, 127.0);
        let tried = [near - 1.0, near, near + 1.0].map(|s| s.clamp(-128.0, 127.0));
        let s = best(tried, |s| error(x, &w, |v| d * s * integer(v, inverse(d * s), -32.0, 31.0)));
        out[192 + sub] = s as i8 as u8;
        for (i, &v) in x.iter().enumerate() {
            let q = (integer(v, inverse(d * s), -32.0, 31.0) + 32.0) as u8;
            let (half, within) = ((16 * sub + i) / 128, (16 * sub + i) % 128);
            out[64 * half + within % 64] |= (q & 15) << (4 * (within / 64));
            out[128 + 32 * half + within % 32] |= (q >> 4) << (2 * (within / 32));
        }
    }
}

/// The scales and minima of `Q4_K` and `Q5_K` to the first 16 bytes of a block, and the integers up to `most`.
fn with_minima(x: &[f32], most: f32, out: &mut [u8]) -> [u8; SUPER] {
    let fits: Vec<(f32, f32)> = x.chunks_exact(32).map(|x| line(x, &importance(x), most)).collect();
    let largest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0f32, f32::max);
    let (d, dmin) = (put_half(out, 0, largest(|f| f.0) / 63.0), put_half(out, 2, largest(|f| f.1) / 63.0));
    let mut all = [0; SUPER];
    for (sub, (x, &(scale, minimum))) in x.chunks_exact(32).zip(&fits).enumerate() {
        let w = importance(x);
        let near = [integer(scale, inverse(d), 0.0, 63.0), integer(minimum, inverse(dmin), 0.0, 63.0)];
        let tried: [(f32, f32); 25] = std::array::from_fn(|i| {
            let by = |near: f32, i: usize| (near + i as f32 - 2.0).clamp(0.0, 63.0);
            (by(near[0], i / 5), by(near[1], i % 5))
        });
        let value = |(s, m): (f32, f32), v: f32| integer(v + dmin * m, inverse(d * s), 0.0, most);
        let (s, m) = best(tried, |(s, m)| error(x, &w, |v| d * s * value((s, m), v) - dmin * m));
        for (q, &v) in all[32 * sub..].iter_mut().zip(x) {
            *q = value((s, m), v) as u8;
        }
        let (s, m, scales) = (s as u8, m as u8, &mut out[4..16]);
        match sub {
            0..4 => {
                scales[sub] |= s;
                scales[sub + 4] |= m;
            }
            _ => {
                scales[sub + 4] = (s & 15) | (m & 15) << 4;
                scales[sub - 4] |= (s >> 4) << 6;
                scales[sub] |= (m >> 4) << 6;
            }
        }
    }
    all
}

/// How much the error of each value counts.
fn importance(x: &[f32]) -> Vec<f32> {
    let mean = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let root = mean.sqrt();
    x.iter().map(|v| root + v.abs()).collect()
}

/// The best `s` for `x = s * q`, `q` from `low` to `high`.
fn symmetric(x: &[f32], w: &[f32], low: f32, high: f32) -> f32 {
    let largest = x.iter().fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
    if largest == 0.0 {
        return 0.0;
    }
    let tries = (-TRIES..=TRIES).flat_map(|k| [low, high].map(|end| (end + 0.1 * k as f32) / largest));
    let (mut gain, mut scale) = (0.0, largest / low);
    for inverse in tries {
        let (mut xq, mut qq) = (0.0, 0.0);
        for (&v, &w) in x.iter().zip(w) {
            let q = integer(v, inverse, low, high);
            xq += w * v * q;
            qq += w * q * q;
        }
        if qq > 0.0 && xq * xq > gain * qq {
            (gain, scale) = (xq * xq / qq, xq / qq);
        }
    }
    scale
}

/// The best `(s, m)` for `x = s * q - m`, `q` from 0 to `most`, neither below 0.
fn line(x: &[f32], w: &[f32], most: f32) -> (f32, f32) {
    let low = x.iter().copied().fold(0.0, f32::min);
    let high = x.iter().copied().fold(low, f32::max);
    if high <= low {
        return (0.0, -low);
    }
    let (mut least, mut found) = (f32::INFINITY, ((high - low) / most, -low));
    for k in -TRIES..=TRIES {
        let inverse = (most + 0.15 * k as f32) / (high - low);
        let (mut sums, mut xs) = ([0.0f32; 3], [0.0f32; 2]);
        for (&v, &w) in x.iter().zip(w) {
            let q = integer(v - low, inverse, 0.0, most);
            sums = [sums[0] + w, sums[1] + w * q, sums[2] + w * q * q];
            xs = [xs[0] + w * v, xs[1] + w * v * q];
        }
        let determinant = sums[0] * sums[2] - sums[1] * sums[1];
        let mut s = (sums[0] * xs[1] - sums[1] * xs[0]) / determinant;
        let mut m = (sums[1] * xs[1] - sums[2] * xs[0]) / determinant;
        // Written so that NaN is taken for nothing, too.
        if !(m >= 0.0 && determinant > 0.0) {
            (s, m) = (xs[1] / sums[2], 0.0);
        }
        if s > 0.0 {
            let of = error(x, w, |v| s * integer(v + m, 1.0 / s, 0.0, most) - m);
            if of < least {
                (least, found) = (of, (s, m));
            }
        }
    }
    found
}

/// The sum of the weighted squares of what `value` differs by.
fn error(x: &[f32], w: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    x.iter().zip(w).map(|(&v, &w)| w * (value(v) - v) * (value(v) - v)).sum()
}

/// The first of those with the smallest error.
fn best<T: Copy, const N: usize>(tried: [T; N], error: impl Fn(T) -> f32) -> T {
    let mut found = (tried[0], f32::INFINITY);
    for one in tried {
        let of = error(one);
        if of < found.1 {
            found = (one, of);
        }
    }
    found.0
}

/// The integer nearest to `v * inverse` within bounds.
#[inline(always)]
fn integer(v: f32, inverse: f32, low: f32, high: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds what is below 2^22.
    const ROUND: f32 = 12_582_912.0;
    let bounded = (v * inverse).clamp(low - 1.0, high + 1.0);
    ((bounded + ROUND) - ROUND).clamp(low, high)
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Rounds to f16, stores it, and gives what was stored.
fn put_half(out: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    out[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}
