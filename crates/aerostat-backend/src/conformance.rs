//! The conformance suite: a table of cases that every device computes as another device does.
//!
//! A [`Case`] is one op with its shapes; its data follow from the shapes. [`run`] goes through [`cases`] as far as the
//! device declares the formats; property tests make cases of their own and give them to [`check`].

mod case;
mod cases;
mod data;
mod weights;

use case::other_case;
pub use case::{Case, Elementwise, Keep, Values};
pub use cases::cases;
use data::{Cache, Random, everything, matrix, portions, set_states, sweeps, tile_bytes, with_weight};

use crate::{Backend, Error, Extras, Mat, Tile};

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
    /// The same with the bound of each op, [`Case::bound`].
    Documented,
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
        if case.needs_a_fresh_device() {
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
    fn suits(&self, tolerance: Tolerance) -> bool {
        let special = match self {
            Self::Matmul { values, .. }
            | Self::MatmulKMajor { values, .. }
            | Self::RowNorms { values, .. }
            | Self::Elementwise { values, .. }
            | Self::RmsNorm { values, .. }
            | Self::ShortConv { values, .. }
            | Self::DeltaRule { values, .. }
            | Self::StateScan { values, .. }
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
            Self::GatherWeights { .. } => self.gather_weights(device, other, random),
            Self::RowNorms { .. } => self.row_norms(device, other, random),
            Self::Uploads { .. } => self.uploads(device, other, random),
            Self::CopyHeads { rows, heads, copy } => {
                let mut of = |dim, values| matrix(device, random, rows, heads * dim, values);
                let (x, out) = (of(copy.from_dim, Values::Special)?, of(copy.to_dim, Values::Plain)?);
                device.copy_heads(x, &copy, out)?;
                everything(device, out)
            }
            Self::ExpandRows { dtype, n, k } => {
                let rows: Vec<u32> = (0..n + 2).map(|_| random.below(n) as u32).collect();
                let out = matrix(device, random, rows.len(), k, Values::Plain)?;
                let bytes = &tile_bytes(random, dtype, n * k, Values::Plain);
                device.expand_rows(Tile { dtype, rows: n, cols: k, bytes }, &rows, out)?;
                everything(device, out)
            }
            Self::Elementwise { op, rows, cols, values } => {
                let a = matrix(device, random, rows, cols, values)?;
                let b = matrix(device, random, rows, cols, values)?;
                let out = matrix(device, random, rows, cols, Values::Plain)?;
                elementwise(device, op, a, b, out).and_then(|out| everything(device, out))
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
            Self::Attention { .. } => self.attention(device, other, random),
            Self::SparseAttention { .. } => self.sparse_attention(device, other, random),
            Self::ShortConv { .. } => self.short_conv(device, other, random),
            Self::DeltaRule { .. } => self.delta_rule(device, other, random),
            Self::StateScan { .. } => self.state_scan(device, other, random),
        }
    }

    fn short_conv(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::ShortConv { channels, kernel, bias, silu, ref lengths, values } = *self else {
            return Err(other_case());
        };
        let weights = matrix(device, random, kernel, channels, Values::Plain)?;
        let bias = bias.then(|| matrix(device, random, 1, channels, Values::Plain)).transpose()?;
        let state = matrix(device, random, lengths.len() + 2, (kernel - 1) * channels, Values::Special)?;
        let mut results = Vec::new();
        for rows in sweeps(lengths) {
            let x = matrix(device, random, rows.len(), channels, values)?;
            for (start, rows) in portions(&rows, other) {
                set_states(device, rows)?;
                device.short_conv(x.row_range(start, rows.len()), weights, bias, silu, state)?;
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
        let Self::DeltaRule { rule, ref lengths, values } = *self else { return Err(other_case()) };
        let (keys, heads) = (2 * rule.key_heads * rule.key_dim, rule.value_heads);
        let parameters = matrix(device, random, 2, heads, Values::Plain)?;
        let state = heads * rule.key_dim * rule.value_dim;
        let state = matrix(device, random, lengths.len() + 2, state, Values::Special)?;
        let mut results = Vec::new();
        for rows in sweeps(lengths) {
            let x = matrix(device, random, rows.len(), keys + heads * rule.value_dim, values)?;
            let strengths = matrix(device, random, rows.len(), heads + rule.decays(), values)?;
            let out = matrix(device, random, rows.len(), heads * rule.value_dim, Values::Plain)?;
            for (start, rows) in portions(&rows, other) {
                let part = |mat: Mat| mat.row_range(start, rows.len());
                set_states(device, rows)?;
                device.delta_rule(part(x), part(strengths), parameters, state, part(out), &rule)?;
            }
            results.extend(everything(device, out)?);
        }
        results.extend(everything(device, state)?);
        Ok(results)
    }

    fn state_scan(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::StateScan { scan, ref lengths, values } = *self else { return Err(other_case()) };
        let (heads, inputs) = (scan.heads, scan.heads * scan.head_dim);
        let (numbers, steps_of) = if scan.each { (scan.state_dim + 1, inputs) } else { (3, heads) };
        let parameters = matrix(device, random, numbers, steps_of, Values::Plain)?;
        let state = matrix(device, random, lengths.len() + 2, inputs * scan.state_dim, Values::Special)?;
        let mut results = Vec::new();
        for rows in sweeps(lengths) {
            let channels = inputs + 2 * scan.groups * scan.state_dim;
            let x = matrix(device, random, rows.len(), channels, values)?;
            let steps = matrix(device, random, rows.len(), steps_of, values)?;
            let out = matrix(device, random, rows.len(), inputs, Values::Plain)?;
            for (start, rows) in portions(&rows, other) {
                let part = |mat: Mat| mat.row_range(start, rows.len());
                set_states(device, rows)?;
                device.state_scan(part(x), part(steps), parameters, state, part(out), &scan)?;
            }
            results.extend(everything(device, out)?);
        }
        results.extend(everything(device, state)?);
        Ok(results)
    }

    fn attention(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::Attention { kv_type, ref shape, sinks, biases, page_tokens, ref lengths, values } = *self
        else {
            return Err(other_case());
        };
        let value_width = if shape.values_in_keys { 3 } else { shape.value_dim } * shape.kv_heads;
        let mut cache =
            Cache::new(device, random, (kv_type, page_tokens, values), shape, value_width, lengths)?;
        let q = matrix(device, random, cache.rows(), shape.heads * shape.key_dim, values)?;
        let out = matrix(device, random, cache.rows(), shape.heads * shape.value_dim, Values::Plain)?;
        let sinks = sinks.then(|| matrix(device, random, 1, shape.heads, values)).transpose()?;
        let biases =
            biases.map(|reach| matrix(device, random, shape.heads, 2 * reach + 1, values)).transpose()?;
        if !other {
            cache.move_first_page(device)?;
            // The end of a sequence that lies in a branch is seen by its own row alone.
            if !shape.ahead {
                cache.branch(device)?;
            }
        }
        cache.ask(device)?;
        device.attention(1, q, out, shape, Extras { sinks, biases })?;
        everything(device, out)
    }

    fn sparse_attention(
        &self,
        device: &mut dyn Backend,
        other: bool,
        random: &mut Random,
    ) -> Result<Vec<f32>, Error> {
        let Self::SparseAttention { kv_type, ref shape, ref index, count, page_tokens, ref lengths } = *self
        else {
            return Err(other_case());
        };
        let plain = Values::Plain;
        let mut cache = Cache::new(device, random, (kv_type, page_tokens, plain), shape, index.dim, lengths)?;
        let rows = cache.rows();
        if !other {
            cache.branch(device)?;
        }
        cache.ask(device)?;
        let q = matrix(device, random, rows, index.heads * index.dim, plain)?;
        let weights = matrix(device, random, rows, index.heads, plain)?;
        let chosen = matrix(device, random, rows, count, plain)?;
        device.select_positions(1, q, weights, chosen, index)?;
        let q = matrix(device, random, rows, shape.heads * shape.key_dim, plain)?;
        let out = matrix(device, random, rows, shape.heads * shape.value_dim, plain)?;
        device.sparse_attention(1, q, out, shape, chosen)?;
        Ok([everything(device, chosen)?, everything(device, out)?].concat())
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
            Tolerance::Documented => same || (a - b).abs() <= case.bound() * largest,
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
        Elementwise::Mul => device.mul(a, b)?,
        Elementwise::AddBias => device.add_bias(a, b.row_range(0, 1))?,
        Elementwise::MulColumns => device.mul_columns(a, b.row_range(0, 1))?,
        Elementwise::MulRows => device.mul_rows(a, b.col_range(0, 1))?,
        Elementwise::Activate(activation) => device.activate(a, activation)?,
        Elementwise::Scale(factor) => device.scale(a, factor)?,
        Elementwise::Softcap(cap) => device.softcap(a, cap)?,
        Elementwise::Clip(limit) => device.clip(a, limit)?,
        Elementwise::Glu(activation) => device.glu(a, b, activation, out)?,
        Elementwise::GluInPlace(activation) => device.glu(a, b, activation, a)?,
    }
    Ok(if matches!(op, Elementwise::Glu(_)) { out } else { a })
}
