//! The conformance suite: a table of cases that every device computes as another device does.
//!
//! A [`Case`] is one op with its shapes; its data follow from the shapes. [`run`] goes through [`cases`] as far as the
//! device declares the formats; property tests make cases of their own and give them to [`check`].

use aerostat_checkpoint::DType;

use crate::coded::{self, Coding, Groups};
use crate::{
    Activation, Attention, Backend, BufferId, Capabilities, Error, Index, KvLayout, KvType, Mat, Placement,
    Rope, RopeStyle, RowPlace, Scaling, Tile, Weight, Window,
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
    /// [`Backend::matmul_scaled`] of a tile from `first_row` on; the other device multiplies by the expanded weights.
    MatmulScaled {
        coding: Coding,
        rows: usize,
        n: usize,
        k: usize,
        block: (usize, usize),
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

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    matmul_cases(&mut cases);
    k_major_cases(&mut cases);
    scaled_cases(&mut cases);
    elementwise_cases(&mut cases);
    row_cases(&mut cases);
    attention_cases(&mut cases);
    cases
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
            Self::Attention { kv_type, ref shape, page_tokens, ref lengths, values } => {
                let value_width = if shape.values_in_keys { 3 } else { shape.value_dim } * shape.kv_heads;
                let cache =
                    Cache::new(device, random, (kv_type, page_tokens, values), shape, value_width, lengths)?;
                let q = matrix(device, random, cache.asked.len(), shape.heads * shape.key_dim, values)?;
                let out =
                    matrix(device, random, cache.asked.len(), shape.heads * shape.value_dim, Values::Plain)?;
                let sinks =
                    shape.sinks.map(|_| matrix(device, random, 1, shape.heads, values)).transpose()?;
                device.attention(1, q, out, &Attention { sinks, ..*shape }, cache.places())?;
                everything(device, out)
            }
            Self::SparseAttention { kv_type, ref shape, ref index, count, page_tokens, ref lengths } => {
                let plain = Values::Plain;
                let cache =
                    Cache::new(device, random, (kv_type, page_tokens, plain), shape, index.dim, lengths)?;
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
        }
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
        let Self::MatmulScaled { coding, rows, n, k, block: (block_rows, block_cols), first_row, weights } =
            *self
        else {
            return Ok(Vec::new());
        };
        let x = matrix(device, random, rows, k, Values::Plain)?;
        let y = matrix(device, random, rows, n, Values::Plain)?;
        let (blocks, groups) = ((first_row + n).div_ceil(block_rows), k.div_ceil(block_cols));
        let values: Vec<f32> = (0..blocks * groups).map(|_| random.value(Values::Plain) * 0.05).collect();
        let row_bytes = coding.code.row_bytes(k);
        let codes: Vec<u8> = (0..n * row_bytes).map(|_| random.next() as u8).collect();
        if other {
            let mut expanded = vec![0.0; n * k];
            for (row, out) in expanded.chunks_mut(k).enumerate() {
                let scales = &values[(first_row + row) / block_rows * groups..][..groups];
                let codes = &codes[row * row_bytes..][..row_bytes];
                coded::expand(&coding, codes, Groups { len: block_cols, scales, zeros: &[] }, out)?;
            }
            let bytes: Vec<u8> = expanded.iter().flat_map(|w| w.to_le_bytes()).collect();
            with_weight(device, DType::F32, (n, k), &bytes, weights, |device, w| device.matmul(w, x, y))?;
        } else {
            let scales = Mat::new(device.allocate(blocks * groups)?, blocks, groups);
            device.write(scales, &values)?;
            let scaling = Scaling { coding, scales, block_rows, block_cols, first_row };
            with_weight(device, DType::U8, (n, row_bytes), &codes, weights, |device, w| {
                device.matmul_scaled(w, &scaling, x, y)
            })?;
        }
        everything(device, y)
    }
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

fn matmul_cases(cases: &mut Vec<Case>) {
    const ROWS: [usize; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 33, 130];
    const COLS: [usize; 11] = [1, 15, 16, 17, 31, 32, 33, 100, 256, 512, 1000];
    const OUTPUTS: [usize; 7] = [1, 2, 5, 7, 24, 25, 49];
    let values = Values::Plain;
    for &dtype in DType::COMPUTABLE {
        let fits = |k: &&usize| k.is_multiple_of(dtype.block_len());
        for (i, &rows) in ROWS.iter().enumerate() {
            for (j, &k) in COLS.iter().filter(fits).enumerate() {
                let n = OUTPUTS[(i + j) % OUTPUTS.len()];
                cases.push(Case::Matmul { dtype, rows, n, k, weights: Keep::Streamed((i + j) % 4), values });
            }
        }
        // Longer than a slab of columns, more rows than a block of activations, more outputs than threads.
        for (rows, n, k) in [(1, 130, 2304usize), (5, 26, 1280), (70, 25, 2304), (3, 30, 1041), (9, 30, 2065)]
        {
            if k.is_multiple_of(dtype.block_len()) {
                cases.push(Case::Matmul { dtype, rows, n, k, weights: Keep::Pinned, values });
            }
        }
        for (rows, k) in [(1, 33usize), (3, 48), (7, 47), (1, 512), (6, 512)] {
            if k.is_multiple_of(dtype.block_len()) {
                let values = Values::Special;
                cases.push(Case::Matmul { dtype, rows, n: 29, k, weights: Keep::Streamed(1), values });
            }
        }
        for (weights, k) in [(Keep::Pinned, 512), (Keep::Streamed(3), 768)] {
            cases.push(Case::ExpandRows { dtype, n: 5, k, weights });
        }
    }
}

/// Every code, with one scale for all, for each row, for runs of a row, and for blocks that tiles cut anywhere.
fn scaled_cases(cases: &mut Vec<Case>) {
    use coded::{Code, Rounding, Table};
    const CODES: [Code; 9] = [
        Code::E4M3,
        Code::E5M2,
        Code::I8,
        Code::LowFirst(Table::E2M1),
        Code::HighFirst(Table::Nf4),
        Code::HighFirst(Table::Fp4),
        Code::Packed(4),
        Code::Packed(8),
        Code::Packed(3),
    ];
    /// Rows, outputs, inputs, a block, the first row.
    type Shape = (usize, usize, usize, (usize, usize), usize);
    const SHAPES: [Shape; 6] = [
        (1, 1, 2, (1, 1), 0),
        (2, 29, 256, (16, 128), 5),
        (5, 7, 160, (1, 32), 3),
        (9, 40, 130, (1000, 1000), 9),
        (33, 130, 96, (1, 96), 0),
        (3, 17, 2050, (128, 128), 120),
    ];
    for (i, code) in CODES.into_iter().enumerate() {
        for (j, (rows, n, k, block, first_row)) in SHAPES.into_iter().enumerate() {
            let factor = if code == Code::I8 { 1.0 / 127.0 } else { 1.0 };
            let rounding = [Rounding::BF16, Rounding::F32, Rounding::F16][(i + j) % 3];
            let coding = Coding { code, factor, rounding };
            let weights = if j == 4 { Keep::Pinned } else { Keep::Streamed(j % 4) };
            cases.push(Case::MatmulScaled { coding, rows, n, k, block, first_row, weights });
        }
    }
}

/// Rows up to those of several register tiles, tiles cut anywhere.
fn k_major_cases(cases: &mut Vec<Case>) {
    const ROWS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33, 70];
    const SHAPES: [(usize, usize); 9] =
        [(1, 1), (15, 3), (16, 16), (17, 33), (100, 15), (96, 64), (130, 200), (200, 47), (300, 600)];
    const TILE_ROWS: [usize; 6] = [1000, 16, 1, 17, 50, 33];
    for (d, dtype) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
        for (i, &rows) in ROWS.iter().enumerate() {
            for (j, &(n, k)) in SHAPES.iter().enumerate() {
                let tile_rows = TILE_ROWS[(d + i + j) % TILE_ROWS.len()];
                let weights = if j == 5 { Keep::Pinned } else { Keep::Streamed((i + j) % 4) };
                let values = if (i + j) % 5 == 4 { Values::Special } else { Values::Plain };
                cases.push(Case::MatmulKMajor { dtype, rows, n, k, tile_rows, weights, values });
            }
        }
        let (weights, values) = (Keep::Streamed(1), Values::Plain);
        cases.push(Case::MatmulKMajor { dtype, rows: 3, n: 70, k: 2100, tile_rows: 1111, weights, values });
    }
    for &dtype in DType::COMPUTABLE.iter().filter(|dtype| dtype.block_len() > 1) {
        for (rows, n, k, tile_rows) in [(1, 256, 5, 2), (5, 512, 40, 33)] {
            let (weights, values) = (Keep::Streamed(rows), Values::Plain);
            cases.push(Case::MatmulKMajor { dtype, rows, n, k, tile_rows, weights, values });
        }
    }
}

fn elementwise_cases(cases: &mut Vec<Case>) {
    const CLIPPED: Activation = Activation::ClippedSilu { alpha: 1.7, limit: 0.6 };
    const OPS: [Elementwise; 20] = [
        Elementwise::Add,
        Elementwise::AddBias,
        Elementwise::MulColumns,
        Elementwise::Scale(-1.7),
        Elementwise::Softcap(30.0),
        Elementwise::Softcap(0.5),
        Elementwise::Clip(0.5),
        Elementwise::Glu(Activation::Silu),
        Elementwise::Glu(Activation::GeluTanh),
        Elementwise::Glu(Activation::GeluErf),
        Elementwise::Glu(Activation::Relu),
        Elementwise::Glu(Activation::ReluSquared),
        Elementwise::Glu(CLIPPED),
        Elementwise::Activate(CLIPPED),
        Elementwise::Activate(Activation::Silu),
        Elementwise::Activate(Activation::GeluTanh),
        Elementwise::Activate(Activation::GeluErf),
        Elementwise::Activate(Activation::Relu),
        Elementwise::Activate(Activation::ReluSquared),
        Elementwise::GluInPlace(Activation::Silu),
    ];
    for op in OPS {
        for (rows, cols) in [(1, 1), (1, 15), (2, 16), (3, 17), (9, 100), (33, 1000)] {
            for values in [Values::Plain, Values::Special] {
                cases.push(Case::Elementwise { op, rows, cols, values });
            }
        }
    }
}

fn row_cases(cases: &mut Vec<Case>) {
    let sizes = [(1, 1), (3, 12), (2, 16), (7, 20), (4, 64), (1, 100), (2, 128), (1, 1000), (1, 4096)];
    for (i, (groups, size)) in sizes.into_iter().enumerate() {
        for (rows, values) in [(1, Values::Plain), (33, Values::Plain), (5, Values::Special)] {
            cases.push(Case::RmsNorm { rows, groups, size, in_place: i % 2 == 0, values });
            cases.push(Case::LayerNorm { rows, groups, size, in_place: i % 2 == 1, values });
        }
    }
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        for (head_dim, start, rotary) in [
            (12, 0, 12),
            (20, 0, 10),
            (64, 0, 64),
            (64, 0, 16),
            (80, 48, 32),
            (128, 0, 128),
            (256, 3, 64),
            (4, 0, 0),
            (576, 512, 64),
        ] {
            for (rows, heads) in [(1, 1), (9, 3), (130, 2)] {
                cases.push(Case::Rope { rows, heads, rope: Rope { head_dim, start, rotary, style } });
            }
        }
    }
    for (rows, cols) in [(1, 1), (5, 33), (9, 1000)] {
        cases.push(Case::Gather { rows, cols });
        cases.push(Case::Scatter { rows, cols });
    }
}

fn attention_cases(cases: &mut Vec<Case>) {
    let dims = [(12, 12), (20, 20), (64, 64), (80, 80), (128, 128), (256, 256), (192, 128)];
    let heads = [(1, 1), (4, 4), (6, 2), (9, 3), (8, 1), (10, 2), (5, 5)];
    let rules = [
        (None, None, false),
        (Some(1), None, false),
        (Some(17), Some(50.0), false),
        (None, Some(20.0), false),
        (Some(40), None, false),
        (None, None, true),
        (Some(21), Some(10.0), true),
    ];
    for kv_type in [KvType::F16, KvType::BF16, KvType::F32] {
        for (i, (key_dim, value_dim)) in dims.into_iter().enumerate() {
            for (j, (window, softcap, alibi)) in rules.into_iter().enumerate() {
                let (heads, kv_heads) = heads[(i + j) % heads.len()];
                let scale = 1.0 / (key_dim as f32).sqrt();
                let window = window.map(if j == 4 { Window::Chunk } else { Window::Last });
                // Any matrix: a case makes its own.
                let sinks = (j % 3 == 1).then(|| Mat::new(BufferId(0), 1, heads));
                let values_in_keys = j == 3;
                let shape = Attention {
                    heads,
                    kv_heads,
                    key_dim,
                    value_dim,
                    values_in_keys,
                    scale,
                    softcap,
                    window,
                    alibi,
                    sinks,
                };
                let page_tokens = [16, 32, 5][(i + j) % 3];
                let values = if (i + j) % 6 == 5 { Values::Special } else { Values::Plain };
                let lengths = if j == 0 { vec![1, 17, 33] } else { vec![70, 3] };
                cases.push(Case::Attention { kv_type, shape, page_tokens, lengths, values });
            }
        }
        for (i, (heads, key_dim, value_dim)) in
            [(1, 12, 9), (6, 40, 32), (16, 576, 512)].into_iter().enumerate()
        {
            let index = Index { heads: 1 + 3 * i, dim: 7 + 16 * i, scale: 0.3 };
            let (values_in_keys, scale) = (i > 0, 0.2);
            let (softcap, window, alibi) = ((i == 1).then_some(20.0), None, false);
            let kv_heads = 1;
            let shape = Attention {
                heads,
                kv_heads,
                key_dim,
                value_dim,
                values_in_keys,
                scale,
                softcap,
                window,
                alibi,
                sinks: None,
            };
            let index = if values_in_keys { index } else { Index { dim: value_dim, ..index } };
            for (count, page_tokens, lengths) in [(1, 16, vec![1, 33]), (20, 5, vec![50, 3, 21])] {
                cases.push(Case::SparseAttention { kv_type, shape, index, count, page_tokens, lengths });
            }
        }
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
