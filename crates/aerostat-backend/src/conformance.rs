//! The conformance suite: a table of cases that every device computes as another device does.
//!
//! A [`Case`] is one op with its shapes; its data follow from the shapes. [`run`] goes through [`cases`] as far as the
//! device declares the formats; property tests make cases of their own and give them to [`check`].

mod cases;

use aerostat_checkpoint::DType;

pub use cases::cases;

use crate::coded::{self, Coding, Groups};
use crate::{
    Activation, Attention, Backend, BufferId, Capabilities, DeltaRule, Error, Index, KvLayout, KvType, Mat,
    Placement, Rope, RowPlace, Scaling, StateRow, Tile, Weight,
};

/// Makes a fresh device.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn Backend>;

/// How near results must be.
#[derive(Clone, Copy, Debug)]
pub enum Tolerance {
    /// The same bits; NaN equals NaN.
    Exact,
    /// The difference is at most this times the largest magnitude of the case's results. Cases with special values are
    /// left out.
    Relative(f32),
}

/// Where the values of a case come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Between -1 and 1, many digits.
    Plain,
    /// With zeros of both signs, subnormals, huge values, infinities and NaN among them.
    Special,
}

/// An op that works element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elementwise {
    /// [`Backend::add`].
    Add,
    /// [`Backend::add_bias`].
    AddBias,
    /// [`Backend::mul_columns`].
    MulColumns,
    /// [`Backend::scale`].
    Scale(f32),
    /// [`Backend::softcap`].
    Softcap(f32),
    /// [`Backend::clip`].
    Clip(f32),
    /// [`Backend::activate`].
    Activate(Activation),
    /// [`Backend::glu`], to a matrix of its own.
    Glu(Activation),
    /// [`Backend::glu`], over its first input.
    GluInPlace(Activation),
}

/// One op with its shapes.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are the shapes that the ops name")]
pub enum Case {
    Matmul {
        dtype: DType,
        rows: usize,
        n: usize,
        k: usize,
        weights: Keep,
        values: Values,
    },
    /// [`Backend::matmul_scaled`] of a tile from `first_row` on, or [`Backend::matmul_scaled_k_major`] by tiles of
    /// `tile_rows` from it on; the other device multiplies by the expanded weights.
    MatmulScaled {
        coding: Coding,
        rows: usize,
        n: usize,
        k: usize,
        block: (usize, usize),
        /// Zero points.
        zeros: bool,
        /// Groups by index.
        groups: bool,
        /// The matrix is stored by inputs.
        tile_rows: Option<usize>,
        first_row: usize,
        weights: Keep,
    },
    /// [`Backend::matmul_k_major`] by tiles of `tile_rows`; in plain formats the other device multiplies by the transposed
    /// matrix.
    MatmulKMajor {
        dtype: DType,
        rows: usize,
        n: usize,
        k: usize,
        tile_rows: usize,
        weights: Keep,
        values: Values,
    },
    ExpandRows {
        dtype: DType,
        n: usize,
        k: usize,
        weights: Keep,
    },
    Elementwise {
        op: Elementwise,
        rows: usize,
        cols: usize,
        values: Values,
    },
    RmsNorm {
        rows: usize,
        groups: usize,
        size: usize,
        in_place: bool,
        values: Values,
    },
    LayerNorm {
        rows: usize,
        groups: usize,
        size: usize,
        in_place: bool,
        values: Values,
    },
    Rope {
        rows: usize,
        heads: usize,
        rope: Rope,
    },
    Gather {
        rows: usize,
        cols: usize,
    },
    Scatter {
        rows: usize,
        cols: usize,
    },
    Attention {
        kv_type: KvType,
        shape: Attention,
        page_tokens: usize,
        lengths: Vec<usize>,
        values: Values,
    },
    SparseAttention {
        kv_type: KvType,
        shape: Attention,
        index: Index,
        count: usize,
        page_tokens: usize,
        lengths: Vec<usize>,
    },
    /// [`Backend::short_conv`] in two sweeps: of each sequence some rows, the rest by the same rows or, on the other device,
    /// one by one.
    ShortConv {
        channels: usize,
        kernel: usize,
        lengths: Vec<(usize, usize)>,
        values: Values,
    },
    /// The same of [`Backend::delta_rule`].
    DeltaRule {
        rule: DeltaRule,
        lengths: Vec<(usize, usize)>,
        values: Values,
    },
}

/// How a case gives its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Streamed, from an address that is this many bytes past an even one.
    Streamed(usize),
    /// Pinned.
    Pinned,
}

/// Runs every case that `make`'s device declares, and compares with `against`'s device.
///
/// # Panics
/// When a result differs or an op fails, naming the case.
pub fn run(make: Make<'_>, against: Make<'_>, tolerance: Tolerance) {
    let (mut device, mut other) = (make(), against());
    let capabilities = device.capabilities();
    let mut count = 0;
    for case in cases().iter().filter(|case| case.is_declared(&capabilities) && case.suits(tolerance)) {
        if matches!(case, Case::Attention { .. } | Case::SparseAttention { .. }) {
            // The KV cache is allocated once in a device's life.
            (device, other) = (make(), against());
        }
        if let Err(message) = compare(case, &mut *device, &mut *other, tolerance) {
            panic!("{} ({}): {message}", capabilities.device, capabilities.detail);
        }
        count += 1;
    }
    assert!(count > 0, "no case suits {capabilities:?}");
}

/// Runs one case on fresh devices.
///
/// # Errors
/// Says where the results differ, or which op failed.
pub fn check(case: &Case, make: Make<'_>, against: Make<'_>, tolerance: Tolerance) -> Result<(), String> {
    compare(case, &mut *make(), &mut *against(), tolerance)
}

impl Case {
    /// The device declares the formats of this case.
    pub fn is_declared(&self, capabilities: &Capabilities) -> bool {
        match self {
            Self::Matmul { dtype, .. }
            | Self::MatmulKMajor { dtype, .. }
            | Self::ExpandRows { dtype, .. } => capabilities.weights.contains(dtype),
            Self::Attention { kv_type, .. } | Self::SparseAttention { kv_type, .. } => {
                capabilities.kv.contains(kv_type)
            }
            _ => true,
        }
    }

    fn suits(&self, tolerance: Tolerance) -> bool {
        let special = match self {
            Self::Matmul { values, .. }
            | Self::MatmulKMajor { values, .. }
            | Self::Elementwise { values, .. }
            | Self::RmsNorm { values, .. }
            | Self::ShortConv { values, .. }
            | Self::DeltaRule { values, .. }
            | Self::Attention { values, .. } => *values == Values::Special,
            _ => false,
        };
        !special || matches!(tolerance, Tolerance::Exact)
    }

    /// Computes the case; gives all that was written and what lies between. Where there are two ways to the same result,
    /// the tested device goes one and the `other` device the other.
    fn compute(&self, device: &mut dyn Backend, other: bool) -> Result<Vec<f32>, Error> {
        let random = &mut Random::new(self);
        match *self {
            Self::Matmul { dtype, rows, n, k, weights, values } => {
                let x = matrix(device, random, rows, k, values)?;
                let y = matrix(device, random, rows, n, Values::Plain)?;
                let bytes = tile_bytes(random, dtype, n * k, values);
                with_weight(device, dtype, (n, k), &bytes, weights, |device, w| device.matmul(w, x, y))?;
                everything(device, y)
            }
            Self::MatmulKMajor { .. } => self.k_major(device, other, random),
            Self::MatmulScaled { .. } => self.scaled(device, other, random),
            Self::ExpandRows { dtype, n, k, weights } => {
                let rows: Vec<u32> = (0..n + 2).map(|_| random.below(n) as u32).collect();
                let out = matrix(device, random, rows.len(), k, Values::Plain)?;
                let bytes = tile_bytes(random, dtype, n * k, Values::Plain);
                with_weight(device, dtype, (n, k), &bytes, weights, |device, w| {
                    device.expand_rows(w, &rows, out)
                })?;
                everything(device, out)
            }
            Self::Elementwise { op, rows, cols, values } => {
                let a = matrix(device, random, rows, cols, values)?;
                let b = matrix(device, random, rows, cols, values)?;
                let out = matrix(device, random, rows, cols, Values::Plain)?;
                let out = elementwise(device, op, a, b, out)?;
                everything(device, out)
            }
            Self::RmsNorm { rows, groups, size, in_place, values } => {
                let x = matrix(device, random, rows, groups * size, values)?;
                let weight = matrix(device, random, 1, size, Values::Plain)?;
                let out = matrix(device, random, rows, groups * size, Values::Plain)?;
                let out = if in_place { x } else { out };
                device.rms_norm(x, weight, 1e-6, out)?;
                everything(device, out)
            }
            Self::LayerNorm { rows, groups, size, in_place, values } => {
                let x = matrix(device, random, rows, groups * size, values)?;
                let out = matrix(device, random, rows, groups * size, Values::Plain)?;
                let out = if in_place { x } else { out };
                device.layer_norm(x, size, 1e-5, out)?;
                everything(device, out)
            }
            Self::Rope { rows, heads, rope } => {
                let x = matrix(device, random, rows, heads * rope.head_dim, Values::Plain)?;
                let angles = matrix(device, random, rows, rope.rotary, Values::Plain)?;
                device.rope(x, rope, angles)?;
                everything(device, x)
            }
            Self::Gather { rows, cols } => {
                let picks: Vec<u32> = (0..rows + 3).map(|_| random.below(rows) as u32).collect();
                let x = matrix(device, random, rows, cols, Values::Special)?;
                let out = matrix(device, random, picks.len(), cols, Values::Plain)?;
                device.gather_rows(x, &picks, out)?;
                everything(device, out)
            }
            Self::Scatter { rows, cols } => scatter(device, random, rows, cols),
            Self::Attention { .. } => self.attention(device, random),
            Self::SparseAttention { .. } => self.sparse_attention(device, random),
            Self::ShortConv { .. } => self.short_conv(device, other, random),
            Self::DeltaRule { .. } => self.delta_rule(device, other, random),
        }
    }

    fn short_conv(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::ShortConv { channels, kernel, ref lengths, values } = *self else { return Ok(Vec::new()) };
        let weights = matrix(device, random, kernel, channels, Values::Plain)?;
        let state = matrix(device, random, lengths.len() + 2, (kernel - 1) * channels, Values::Special)?;
        let mut results = Vec::new();
        for rows in sweeps(lengths) {
            let x = matrix(device, random, rows.len(), channels, values)?;
            for (start, rows) in portions(&rows, other) {
                device.short_conv(x.row_range(start, rows.len()), weights, state, rows)?;
            }
            results.extend(everything(device, x)?);
        }
        results.extend(everything(device, state)?);
        Ok(results)
    }

    fn delta_rule(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::DeltaRule { rule, ref lengths, values } = *self else { return Ok(Vec::new()) };
        let (keys, heads) = (2 * rule.key_heads * rule.key_dim, rule.value_heads);
        let parameters = matrix(device, random, 2, heads, Values::Plain)?;
        let state = heads * rule.key_dim * rule.value_dim;
        let state = matrix(device, random, lengths.len() + 2, state, Values::Special)?;
        let mut results = Vec::new();
        for rows in sweeps(lengths) {
            let x = matrix(device, random, rows.len(), keys + heads * rule.value_dim, values)?;
            let strengths = matrix(device, random, rows.len(), 2 * heads, values)?;
            let out = matrix(device, random, rows.len(), heads * rule.value_dim, Values::Plain)?;
            for (start, rows) in portions(&rows, other) {
                let part = |mat: Mat| mat.row_range(start, rows.len());
                device.delta_rule(part(x), part(strengths), parameters, state, part(out), &rule, rows)?;
            }
            results.extend(everything(device, out)?);
        }
        results.extend(everything(device, state)?);
        Ok(results)
    }

    fn attention(&self, device: &mut dyn Backend, random: &mut Random) -> Result<Vec<f32>, Error> {
        let Self::Attention { kv_type, ref shape, page_tokens, ref lengths, values } = *self else {
            return Ok(Vec::new());
        };
        let value_width = if shape.values_in_keys { 3 } else { shape.value_dim } * shape.kv_heads;
        let cache = Cache::new(device, random, (kv_type, page_tokens, values), shape, value_width, lengths)?;
        let q = matrix(device, random, cache.asked.len(), shape.heads * shape.key_dim, values)?;
        let out = matrix(device, random, cache.asked.len(), shape.heads * shape.value_dim, Values::Plain)?;
        let sinks = shape.sinks.map(|_| matrix(device, random, 1, shape.heads, values)).transpose()?;
        device.attention(1, q, out, &Attention { sinks, ..*shape }, cache.places())?;
        everything(device, out)
    }

    fn sparse_attention(&self, device: &mut dyn Backend, random: &mut Random) -> Result<Vec<f32>, Error> {
        let Self::SparseAttention { kv_type, ref shape, ref index, count, page_tokens, ref lengths } = *self
        else {
            return Ok(Vec::new());
        };
        let plain = Values::Plain;
        let cache = Cache::new(device, random, (kv_type, page_tokens, plain), shape, index.dim, lengths)?;
        let rows = cache.asked.len();
        let q = matrix(device, random, rows, index.heads * index.dim, plain)?;
        let weights = matrix(device, random, rows, index.heads, plain)?;
        let chosen = matrix(device, random, rows, count, plain)?;
        device.select_positions(1, q, weights, chosen, index, cache.places())?;
        let q = matrix(device, random, rows, shape.heads * shape.key_dim, plain)?;
        let out = matrix(device, random, rows, shape.heads * shape.value_dim, plain)?;
        device.sparse_attention(1, q, out, shape, chosen, cache.places())?;
        Ok([everything(device, chosen)?, everything(device, out)?].concat())
    }

    fn k_major(&self, device: &mut dyn Backend, other: bool, random: &mut Random) -> Result<Vec<f32>, Error> {
        let Self::MatmulKMajor { dtype, rows, n, k, tile_rows, weights, values } = *self else {
            return Ok(Vec::new());
        };
        let x = matrix(device, random, rows, k, values)?;
        let y = matrix(device, random, rows, n, Values::Plain)?;
        let lanes = matrix(device, random, rows, 16 * n, Values::Special)?;
        let bytes = tile_bytes(random, dtype, n * k, values);
        if other && dtype.block_len() == 1 {
            let bytes = transposed(&bytes, k, n);
            let multiply = |device: &mut dyn Backend, w: Weight<'_>| device.matmul(w, x, y);
            with_weight(device, dtype, (n, k), &bytes, weights, multiply)?;
        } else {
            let row_bytes = n / dtype.block_len() * dtype.block_bytes();
            for (tile, bytes) in bytes.chunks(tile_rows * row_bytes).enumerate() {
                let shape = (bytes.len() / row_bytes, n);
                with_weight(device, dtype, shape, bytes, weights, |device, w| {
                    device.matmul_k_major(w, x, lanes, tile * tile_rows)
                })?;
            }
            device.sum_lanes(lanes, y)?;
        }
        everything(device, y)
    }

    fn scaled(&self, device: &mut dyn Backend, other: bool, random: &mut Random) -> Result<Vec<f32>, Error> {
        let Self::MatmulScaled { coding, rows, n, k, tile_rows, weights, .. } = *self else {
            return Ok(Vec::new());
        };
        let x = matrix(device, random, rows, k, Values::Plain)?;
        let y = matrix(device, random, rows, n, Values::Plain)?;
        let lanes = matrix(device, random, rows, 16 * n, Values::Special)?;
        // As they are stored.
        let (stored_rows, cols) = if tile_rows.is_some() { (k, n) } else { (n, k) };
        let (run_rows, run) = coding.code.run();
        let row_bytes = coding.code.row_bytes(cols);
        let codes: Vec<u8> =
            (0..stored_rows / run * run_rows * row_bytes).map(|_| random.next() as u8).collect();
        let scaling = self.scaling(device, random, stored_rows, cols)?;
        if other {
            let expanded = expanded(device, &scaling, tile_rows.is_some(), (stored_rows, cols), &codes)?;
            let bytes: Vec<u8> = expanded.iter().flat_map(|w| w.to_le_bytes()).collect();
            let bytes = if tile_rows.is_some() { transposed(&bytes, k, n) } else { bytes };
            with_weight(device, DType::F32, (n, k), &bytes, weights, |device, w| device.matmul(w, x, y))?;
        } else if let Some(tile_rows) = tile_rows {
            for (tile, bytes) in codes.chunks(tile_rows * run_rows * row_bytes).enumerate() {
                let k0 = tile * tile_rows * run;
                let scaling = Scaling { first_row: scaling.first_row + k0, ..scaling };
                let shape = (bytes.len() / row_bytes, row_bytes);
                with_weight(device, DType::U8, shape, bytes, weights, |device, w| {
                    device.matmul_scaled_k_major(w, &scaling, x, lanes, k0)
                })?;
            }
            device.sum_lanes(lanes, y)?;
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
            coding,
            block: (block_rows, block_cols),
            zeros,
            groups,
            tile_rows,
            first_row,
            ..
        } = *self
        else {
            return Err(Error::shape("a case of something else"));
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
        Ok(Scaling { coding, scales, zeros, groups: groups.transpose()?, block_rows, block_cols, first_row })
    }
}

/// What codes of this shape stand for.
fn expanded(
    device: &mut dyn Backend,
    scaling: &Scaling,
    by_inputs: bool,
    (rows, cols): (usize, usize),
    codes: &[u8],
) -> Result<Vec<f32>, Error> {
    let Scaling { coding, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
    let mut read = |mat: Option<Mat>| mat.map_or(Ok(Vec::new()), |mat| Ok(device.read(mat)?.to_vec()));
    let (values, zeros, groups) = (read(Some(scales))?, read(zeros)?, read(groups)?);
    let (run_rows, run) = coding.code.run();
    let run_bytes = coding.code.row_bytes(cols) * run_rows;
    let mut expanded = vec![0.0; rows * cols];
    for (row, out) in expanded.chunks_mut(cols).enumerate() {
        let by_index = groups.get(first_row + row).filter(|_| by_inputs);
        let block = by_index.map_or((first_row + row) / block_rows, |group| *group as usize);
        let of_row = |values: &[f32]| values.chunks(scales.cols).nth(block).unwrap_or_default().to_vec();
        let index = Some(groups.as_slice()).filter(|groups| !by_inputs && !groups.is_empty());
        let of_groups = Groups { len: block_cols, index, scales: &of_row(&values), zeros: &of_row(&zeros) };
        let codes = &codes[row / run * run_bytes..][..run_bytes];
        coded::expand(&coding, codes, row % run, of_groups, out)?;
    }
    Ok(expanded)
}

/// The rows of two sweeps, the first and the second part of each sequence; slots in descending order, the last unused.
fn sweeps(lengths: &[(usize, usize)]) -> [Vec<StateRow>; 2] {
    [0, 1].map(|sweep| {
        let rows = lengths.iter().enumerate().flat_map(|(i, &(first, second))| {
            let positions = if sweep == 0 { 0..first } else { first..first + second };
            let slot = (lengths.len() - i) as u32;
            positions.map(move |position| StateRow { slot, position: position as u32 })
        });
        rows.collect()
    })
}

/// All rows at once, or one by one, each with its place.
fn portions(rows: &[StateRow], one_by_one: bool) -> impl Iterator<Item = (usize, &[StateRow])> {
    let size = if one_by_one { 1 } else { rows.len().max(1) };
    rows.chunks(size).enumerate().map(move |(i, rows)| (i * size, rows))
}

fn scatter(
    device: &mut dyn Backend,
    random: &mut Random,
    rows: usize,
    cols: usize,
) -> Result<Vec<f32>, Error> {
    let places: Vec<u32> = (0..rows + 3).map(|_| random.below(rows) as u32).collect();
    let x = matrix(device, random, places.len(), cols, Values::Special)?;
    let out = matrix(device, random, rows + 1, cols, Values::Plain)?;
    let factors: Vec<f32> = places.iter().map(|p| 0.3 + *p as f32 / 7.0).collect();
    device.scatter_rows(x, &places, &factors, out)?;
    device.scale_rows(out, &factors[..rows + 1])?;
    device.clear(out.row_range(rows, 1))?;
    everything(device, out)
}

fn compare(
    case: &Case,
    device: &mut dyn Backend,
    other: &mut dyn Backend,
    tolerance: Tolerance,
) -> Result<(), String> {
    let got = case.compute(device, false).map_err(|error| format!("{case:?} failed: {error}"))?;
    let want =
        case.compute(other, true).map_err(|error| format!("{case:?} failed on the other device: {error}"))?;
    let largest = want.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
    let near = |a: f32, b: f32| {
        let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        match tolerance {
            Tolerance::Exact => same,
            Tolerance::Relative(bound) => same || (a - b).abs() <= bound * largest,
        }
    };
    match got.iter().zip(&want).position(|(&a, &b)| !near(a, b)) {
        _ if got.len() != want.len() => Err(format!("{case:?}: {} values, not {}", got.len(), want.len())),
        Some(i) => Err(format!("{case:?}: value {i} is {:e}, not {:e}", got[i], want[i])),
        None => Ok(()),
    }
}

fn elementwise(device: &mut dyn Backend, op: Elementwise, a: Mat, b: Mat, out: Mat) -> Result<Mat, Error> {
    match op {
        Elementwise::Add => device.add(a, b)?,
        Elementwise::AddBias => device.add_bias(a, b.row_range(0, 1))?,
        Elementwise::MulColumns => device.mul_columns(a, b.row_range(0, 1))?,
        Elementwise::Activate(activation) => device.activate(a, activation)?,
        Elementwise::Scale(factor) => device.scale(a, factor)?,
        Elementwise::Softcap(cap) => device.softcap(a, cap)?,
        Elementwise::Clip(limit) => device.clip(a, limit)?,
        Elementwise::Glu(activation) => device.glu(a, b, activation, out)?,
        Elementwise::GluInPlace(activation) => device.glu(a, b, activation, a)?,
    }
    Ok(if matches!(op, Elementwise::Glu(_)) { out } else { a })
}

/// Sequences in shuffled pages of a device's cache, and the rows that ask for them.
struct Cache {
    /// Every fifth and the last position of each sequence.
    asked: Vec<RowPlace>,
    pages: Vec<u32>,
}

impl Cache {
    /// Sequences of the given lengths.
    fn new(
        device: &mut dyn Backend,
        random: &mut Random,
        (kv_type, page_tokens, values): (KvType, usize, Values),
        shape: &Attention,
        value_width: usize,
        lengths: &[usize],
    ) -> Result<Self, Error> {
        let key_width = shape.kv_heads * shape.key_dim;
        let pages: usize = lengths.iter().map(|length| length.div_ceil(page_tokens)).sum();
        // Positions run up to the longest sequence; a spare page and a spare layer show wrong strides.
        device.kv_allocate(&KvLayout {
            kv_type,
            key_widths: vec![key_width; 2],
            value_widths: vec![value_width; 2],
            heads: vec![shape.kv_heads; 2],
            page_tokens,
            pages: pages + 1,
        })?;
        let mut order: Vec<u32> = (0..=pages as u32).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i + 1));
        }
        let (mut all, mut asked, mut table) = (Vec::new(), Vec::new(), 0);
        for &length in lengths {
            let places = (0..length as u32).map(|position| RowPlace { position, table });
            let picked =
                |place: &RowPlace| place.position.is_multiple_of(5) || place.position as usize == length - 1;
            asked.extend(places.clone().filter(picked));
            all.extend(places);
            table += length.div_ceil(page_tokens) as u32;
        }
        let k = matrix(device, random, all.len(), key_width, values)?;
        let v = matrix(device, random, all.len(), value_width, values)?;
        device.kv_write(1, k, v, Placement { rows: &all, pages: &order })?;
        Ok(Self { asked, pages: order })
    }

    fn places(&self) -> Placement<'_> {
        Placement { rows: &self.asked, pages: &self.pages }
    }
}

/// A matrix of random values, somewhere in a buffer of random values.
fn matrix(
    device: &mut dyn Backend,
    random: &mut Random,
    rows: usize,
    cols: usize,
    values: Values,
) -> Result<Mat, Error> {
    let (offset, stride) = (random.below(20), cols + random.below(3) * 3);
    let len = offset + rows * stride;
    let buffer = device.allocate(len)?;
    let data: Vec<f32> = (0..len).map(|_| random.value(values)).collect();
    device.write(Mat::new(buffer, 1, len), &data)?;
    Ok(Mat { buffer, offset, rows, cols, stride })
}

/// The buffer of a matrix up to its end.
fn everything(device: &mut dyn Backend, mat: Mat) -> Result<Vec<f32>, Error> {
    let Mat { buffer: BufferId(id), offset, rows, stride, .. } = mat;
    Ok(device.read(Mat::new(BufferId(id), 1, offset + rows * stride))?.to_vec())
}

fn with_weight(
    device: &mut dyn Backend,
    dtype: DType,
    (rows, cols): (usize, usize),
    bytes: &[u8],
    keep: Keep,
    op: impl FnOnce(&mut dyn Backend, Weight<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let shift = if let Keep::Streamed(shift) = keep { shift } else { 0 };
    let shifted = [vec![0xa5; shift].as_slice(), bytes].concat();
    let tile = Tile { dtype, rows, cols, bytes: &shifted[shift..] };
    match keep {
        Keep::Streamed(_) => op(device, Weight::Streamed(tile)),
        Keep::Pinned => {
            let id = device.pin(tile)?;
            op(device, Weight::Pinned(id))
        }
    }
}

/// Random weights: plain formats hold values, blocks hold random bits and scales of 0.05 or so.
fn tile_bytes(random: &mut Random, dtype: DType, len: usize, values: Values) -> Vec<u8> {
    let scales: &[usize] = match dtype {
        DType::F32 => return (0..len).flat_map(|_| random.value(values).to_le_bytes()).collect(),
        DType::F16 => {
            return (0..len).flat_map(|_| half::f16::from_f32(random.value(values)).to_le_bytes()).collect();
        }
        DType::BF16 => {
            return (0..len).flat_map(|_| half::bf16::from_f32(random.value(values)).to_le_bytes()).collect();
        }
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        DType::MXFP4 => &[],
        _ => &[0],
    };
    let mut bytes: Vec<u8> =
        (0..len / dtype.block_len() * dtype.block_bytes()).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &at in scales {
            let scale = half::f16::from_f32(random.value(values) * 0.05);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if dtype == DType::MXFP4 && values == Values::Plain {
            block[0] = 110 + block[0] % 16;
        }
    }
    bytes
}

/// The transpose of a plain matrix of this shape.
fn transposed(bytes: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let element = bytes.len() / (rows * cols);
    let at = |i: usize| (i % rows * cols + i / rows) * element;
    (0..rows * cols).flat_map(|i| &bytes[at(i)..][..element]).copied().collect()
}

/// A small generator (splitmix64), the same on every machine.
struct Random(u64);

impl Random {
    /// Seeded by the text of a case (FNV-1a).
    fn new(case: &Case) -> Self {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(format!("{case:?}").bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn value(&mut self, values: Values) -> f32 {
        const SPECIAL: [f32; 10] =
            [0.0, -0.0, 1e-40, -1e-45, -1e-30, 3e38, -65_504.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        // Most rows of a special case stay finite, so that the other lanes are compared too.
        if values == Values::Special && self.below(40) == 0 {
            let end = if self.below(4) == 0 { SPECIAL.len() } else { 5 };
            return SPECIAL[self.below(end)];
        }
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
