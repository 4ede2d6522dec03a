//! What the ops compute, bit for bit, in its plainest form.
//!
//! The canonical sum over `K` elements keeps 16 partial sums; element `k` goes to lane `k % 16`, in ascending order,
//! by fused multiply-add; the lanes are then added as a fixed tree: `i` with `i + 8`, `i + 4`, `i + 2`, `i + 1`.
//! Transcendental functions are polynomials made of IEEE operations that every instruction set has, so that a
//! vectorised twin gives the same bits.

use crate::{Activation, Alibi, Attention, Index};

/// Number of partial sums of a canonical sum.
pub const LANES: usize = 16;

/// Adds the lanes of a canonical sum as a fixed tree.
#[inline(always)]
pub fn reduce(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The canonical dot product of two slices of equal length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (i, (&x, &y)) in a.iter().zip(b).enumerate() {
        lanes[i % LANES] = x.mul_add(y, lanes[i % LANES]);
    }
    reduce(lanes)
}

/// The reciprocal of the norm of a row, `1 / max(sqrt(dot(w, w)), 1e-12)`: what makes it a unit vector. `squares` is its
/// canonical [`dot`] product with itself.
#[inline(always)]
pub fn inverse_norm(squares: f32) -> f32 {
    1.0 / squares.sqrt().max(1e-12)
}

/// Adds element `k` of the dot products of `x` and the columns of a matrix: `weights` is the matrix's row `k`, `x` the
/// vector's element `k`, `lanes` 16 rows of `weights.len()` partial sums, one for each column.
pub fn accumulate(weights: &[f32], x: f32, k: usize, lanes: &mut [f32]) {
    let lane = k % LANES * weights.len();
    for (sum, weight) in lanes[lane..].iter_mut().zip(weights) {
        *sum = weight.mul_add(x, *sum);
    }
}

/// `out = (x * 1/sqrt(mean(x²) + eps)) * weight`, the squares summed in canonical order.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = rms_scale(dot(x, x), x.len(), eps);
    for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = (v * scale) * w;
    }
}

/// The factor of [`rms_norm`] from the sum of squares of `len` values.
#[inline(always)]
pub fn rms_scale(sum_of_squares: f32, len: usize, eps: f32) -> f32 {
    1.0 / (sum_of_squares / len as f32 + eps).sqrt()
}

/// `out = (x - mean) * 1/sqrt(mean((x - mean)²) + eps)`, both sums in canonical order.
pub fn layer_norm(x: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0.0f32; LANES];
    for (i, v) in x.iter().enumerate() {
        lanes[i % LANES] += v;
    }
    let mean = reduce(lanes) / x.len() as f32;
    for (o, &v) in out.iter_mut().zip(x) {
        *o = v - mean;
    }
    let scale = rms_scale(dot(out, out), x.len(), eps);
    for o in out {
        *o *= scale;
    }
}

/// The slope of a head in attention with linear biases: of `2^n` heads, the powers of `2^(-most / 2^n)` from the first on;
/// heads beyond the largest power of two have every other slope of twice as many.
pub fn alibi_slope(biases: Alibi, heads: usize, head: usize) -> f32 {
    let whole = 1 << heads.max(1).ilog2();
    let (of, power) = if head < whole { (whole, head + 1) } else { (2 * whole, 2 * (head - whole) + 1) };
    // 2^(-most / of): halvings of the exponent are square roots, which are exact everywhere.
    let least = (0..biases.most).fold(1.0, |least, _| least * 0.5);
    let base = (0..of.ilog2()).fold(least, |base: f64, _| base.sqrt());
    let slope = (0..power).fold(1.0, |slope, _| slope * base) as f32;
    if biases.rounded { to_bf16(slope) } else { slope }
}

/// What a slope adds to the score of position `j` as seen from `p`, where scores are multiplied by `scale`: the further away on
/// either side, the less; rounded biases are of positions up to `p`.
#[inline(always)]
pub fn alibi(biases: Alibi, slope: f32, scale: f32, j: usize, p: usize) -> f32 {
    let rounded = |position: usize| to_bf16(slope * to_bf16(position as f32));
    match biases.rounded {
        false => slope * -(j as i32 - p as i32).abs() as f32,
        true => (rounded(j) - rounded(p)) * scale,
    }
}

/// Where in a row of `width` biases that of position `j` lies as seen from `p`: its middle is that of `p` itself, those of
/// positions beyond its ends are at its ends.
#[inline(always)]
pub fn bias_place(width: usize, j: usize, p: usize) -> usize {
    let reach = width / 2;
    if j < p { reach.saturating_sub(p - j) } else { reach + (j - p).min(reach) }
}

#[inline(always)]
fn to_bf16(x: f32) -> f32 {
    half::bf16::from_f32(x).to_f32()
}

/// A query head as seen from its row.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its number.
    pub head: usize,
    /// The row's own position.
    pub position: usize,
    /// The score of its sink, if it has one.
    pub sink: Option<f32>,
    /// Its biases by distance, if it has some: see [`bias_place`].
    pub biases: Option<&'a [f32]>,
}

/// A query head over some positions of one KV head, ascending.
///
/// `key(j)` and `value(j)` give the rows at position `j`; `scores` is scratch, one for each position. Weights `exp(s - max)` are summed in lanes by position (`j % 16`), values are accumulated in
/// ascending position by fused multiply-add, and the result is multiplied once by the reciprocal of the sum.
pub fn attend<'a>(
    q: &[f32],
    shape: &Attention,
    Seen { head, position, sink, biases }: Seen<'_>,
    positions: &[usize],
    mut key: impl FnMut(usize) -> &'a [f32],
    mut value: impl FnMut(usize) -> &'a [f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let slope = shape.alibi.map_or(0.0, |biases| alibi_slope(biases, shape.heads, head));
    let mut max = f32::NEG_INFINITY;
    for (kept, &j) in scores.iter_mut().zip(positions) {
        let mut s = score(dot(q, key(j)), shape.scale, shape.softcap);
        if let Some(biases) = shape.alibi {
            s += alibi(biases, slope, shape.scale, j, position);
        }
        if let Some(biases) = biases {
            s += biases[bias_place(biases.len(), j, position)];
        }
        *kept = s;
        max = if s > max { s } else { max };
    }
    max = with_sink(max, sink);
    let mut lanes = [0.0f32; LANES];
    out.fill(0.0);
    for (s, &j) in scores.iter().zip(positions) {
        let weight = exp(s - max);
        lanes[j % LANES] += weight;
        for (o, &v) in out.iter_mut().zip(value(j)) {
            *o = weight.mul_add(v, *o);
        }
    }
    let scale = 1.0 / sum_with_sink(reduce(lanes), max, sink);
    for o in out {
        *o *= scale;
    }
}

/// The largest score, that of the sink included.
#[inline(always)]
pub fn with_sink(max: f32, sink: Option<f32>) -> f32 {
    match sink {
        Some(sink) if sink > max => sink,
        _ => max,
    }
}

/// The sum of weights, that of the sink included.
#[inline(always)]
pub fn sum_with_sink(sum: f32, max: f32, sink: Option<f32>) -> f32 {
    match sink {
        Some(sink) => sum + exp(sink - max),
        None => sum,
    }
}

/// How good a position is to attend to: over its heads by ascending number, the sum of a weight times what is positive of
/// a query's product with the position's key.
pub fn index_score<'a>(
    index: &Index,
    mut query: impl FnMut(usize) -> &'a [f32],
    weights: impl Iterator<Item = f32>,
    key: &[f32],
) -> f32 {
    let mut sum = 0.0;
    for (head, weight) in weights.enumerate() {
        sum = index_term(weight, dot(query(head), key), index.scale, sum);
    }
    sum
}

/// Adds one head's part to an [`index_score`].
#[inline(always)]
pub fn index_term(weight: f32, dot: f32, scale: f32, sum: f32) -> f32 {
    weight.mul_add(activate(dot * scale, Activation::Relu), sum)
}

/// Gives the `count` positions of the highest scores by ascending position; of equal ones the first. `room` is scratch as
/// long as `scores`.
pub fn select(scores: &[f32], room: &mut [f32], count: usize, mut give: impl FnMut(usize)) {
    if scores.len() <= count {
        return (0..scores.len()).for_each(give);
    }
    if count == 0 {
        return;
    }
    room.copy_from_slice(scores);
    let (better, least, _) = room.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let least = *least;
    let equal = |s: &f32| s.total_cmp(&least).is_eq();
    let mut ties = count - better.iter().filter(|s| !equal(s)).count();
    for (position, s) in scores.iter().enumerate() {
        if equal(s) {
            if ties > 0 {
                ties -= 1;
                give(position);
            }
        } else if s.total_cmp(&least).is_gt() {
            give(position);
        }
    }
}

/// An op that works element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Map {
    /// `a + b`.
    Add,
    /// `a * b`.
    Multiply,
    /// `a * factor`.
    Scale(f32),
    /// `cap * tanh(a / cap)`.
    Softcap(f32),
    /// `a`, but at most `limit` and at least `-limit`; NaN stays.
    Clip(f32),
    /// `activation(a)`.
    Activate(Activation),
    /// `activation(a) * b`.
    Gated(Activation),
}

impl Map {
    /// One element.
    #[inline(always)]
    pub fn apply(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Add => a + b,
            Self::Multiply => a * b,
            Self::Activate(activation) => activate(a, activation),
            Self::Scale(factor) => a * factor,
            Self::Softcap(cap) => softcap_one(a, cap),
            Self::Clip(limit) => clip_one(a, limit),
            Self::Gated(activation) => activate(a, activation) * gated(b, activation),
        }
    }
}

/// One rotated pair.
#[inline(always)]
pub fn rotate(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}

/// A raw dot product made a score: scaled, then capped.
#[inline(always)]
pub fn score(dot: f32, scale: f32, softcap: Option<f32>) -> f32 {
    let s = dot * scale;
    match softcap {
        Some(cap) => softcap_one(s, cap),
        None => s,
    }
}

/// `cap * tanh(x / cap)`.
#[inline(always)]
pub fn softcap_one(x: f32, cap: f32) -> f32 {
    cap * tanh(x / cap)
}

/// `x` between `-limit` and `limit`; NaN stays.
#[inline(always)]
pub fn clip_one(x: f32, limit: f32) -> f32 {
    let x = if x > limit { limit } else { x };
    if x < -limit { -limit } else { x }
}

/// The activation of an MLP.
#[inline(always)]
pub fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Sigmoid => 1.0 / (1.0 + exp(-x)),
        Activation::Silu => x / (1.0 + exp(-x)),
        Activation::GeluTanh => {
            let inner = 0.797_884_6 * (x + 0.044_715 * (x * x * x));
            0.5 * x * (1.0 + tanh(inner))
        }
        Activation::Relu => positive(x),
        Activation::ReluSquared => positive(x) * positive(x),
        Activation::Relu6 => {
            let x = positive(x);
            if x > 6.0 { 6.0 } else { x }
        }
        Activation::QuickGelu => x / (1.0 + exp(-(1.702 * x))),
        Activation::Mish => {
            // tanh(ln(1 + e)) is n / (n + 2) with n = e (e + 2), which f32 cannot tell from 1 beyond 20.
            let e = exp(if x > 20.0 { 20.0 } else { x });
            let n = e * (e + 2.0);
            x * (n / (n + 2.0))
        }
        Activation::Tanh => tanh(x),
        Activation::Exp => exp(x),
        Activation::Softplus => crate::delta::softplus(x),
        Activation::ClippedSilu { alpha, limit } => {
            let x = if x > limit { limit } else { x };
            x / (1.0 + exp(-(alpha * x)))
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}

/// `x` where it is not negative, else 0; NaN stays NaN. Apart from [`activate`], which would not be inlined if it called
/// itself.
#[inline(always)]
fn positive(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// What an MLP's gate multiplies.
#[inline(always)]
fn gated(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::ClippedSilu { limit, .. } => clip_one(x, limit) + 1.0,
        _ => x,
    }
}

/// `e^x` within 2 ULP; 0 below -104, infinity above 88.73, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let e = p.mul_add(r * r, r) + 1.0;
    // 2^n in two factors, so that subnormal results and n = 128 work.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let low = n >> 1;
    let high = n.wrapping_sub(low);
    e * power_of_two(low) * power_of_two(high)
}

/// `tanh(x)`, absolute error below 1e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3f32;
    p = p.mul_add(z, 2.063_909e-2);
    p = p.mul_add(z, -5.373_971_6e-2);
    p = p.mul_add(z, 1.333_144_2e-1);
    p = p.mul_add(z, -3.333_328e-1);
    let small = (p * z).mul_add(x, x);
    let a = x.abs();
    let large = (1.0 - 2.0 / (exp(a + a) + 1.0)).copysign(x);
    if a < 0.625 { small } else { large }
}

/// The error function, absolute error below 3e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / 0.327_591_1f32.mul_add(a, 1.0);
    let mut p = 1.061_405_4f32;
    p = p.mul_add(t, -1.453_152_1);
    p = p.mul_add(t, 1.421_413_8);
    p = p.mul_add(t, -0.284_496_72);
    p = p.mul_add(t, 0.254_829_6);
    let y = 1.0 - p * t * exp(-(a * a));
    if x < 0.0 { -y } else { y }
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> impl Iterator<Item = f32> {
        (-40_000..40_000).map(|i| i as f32 * 0.0025 + 0.000_13)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for x in samples().filter(|x| x.abs() < 87.0) {
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2.4e-7, "exp({x}): {} instead of {want}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(200.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_and_erf_are_within_their_bounds() {
        for x in samples() {
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 1e-7, "tanh({x})");
        }
        // erf at some points, to 9 digits.
        for (x, want) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916),
            (0.5, 0.520_499_878),
            (1.0, 0.842_700_793),
            (2.5, 0.999_593_048),
        ] {
            assert!((f64::from(erf(x)) - want).abs() < 3e-7, "erf({x})");
            assert!((f64::from(erf(-x)) + want).abs() < 3e-7, "erf(-{x})");
        }
    }

    #[test]
    fn layer_norm_gives_mean_zero_and_deviation_one() {
        let x: Vec<f32> = (0..37).map(|i| 5.0 + (i as f32 * 0.7).sin()).collect();
        let mut out = vec![0.0; 37];
        layer_norm(&x, 0.0, &mut out);
        let mean = out.iter().map(|v| f64::from(*v)).sum::<f64>() / 37.0;
        let squares = out.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 37.0;
        assert!(mean.abs() < 1e-6 && (squares - 1.0).abs() < 1e-6, "{mean} {squares}");
        assert!(out[2] > out[0] && out[7] < out[2], "order stays");
        layer_norm(&[3.0; 5], 1e-5, &mut out[..5]);
        assert_eq!(out[..5], [0.0; 5]);
    }

    #[test]
    fn alibi_slopes_are_those_of_the_paper() {
        let paper = Alibi { most: 8, rounded: false };
        let of = |biases, heads: usize| (0..heads).map(|h| alibi_slope(biases, heads, h)).collect::<Vec<_>>();
        let slopes = |heads| of(paper, heads);
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        assert_eq!(slopes(6)[4..], [0.5, 0.125]);
        assert!((slopes(16)[0] - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-7);
        assert_eq!(slopes(1), [1.0 / 256.0]);
        assert_eq!(
            of(Alibi { most: 16, ..paper }, 4),
            [1.0 / 16.0, 1.0 / 256.0, 1.0 / 4096.0, 1.0 / 65536.0]
        );
        assert_eq!((alibi(paper, 0.5, 3.0, 3, 7), alibi(paper, 0.5, 3.0, 7, 7)), (-2.0, 0.0));
        let rounded = Alibi { rounded: true, ..paper };
        assert_eq!(of(rounded, 16)[0], 0.707_031_25);
        // 257 and 259 are no BF16 numbers: they become 256 and 260.
        assert_eq!(alibi(rounded, 0.5, 0.25, 257, 259), -0.5);
    }

    #[test]
    fn dot_adds_in_lanes_then_as_a_tree() {
        let a: Vec<f32> = (0..37).map(|i| (i as f32).sin() * 1e3).collect();
        let b: Vec<f32> = (0..37).map(|i| (i as f32).cos()).collect();
        let mut lanes = [0.0f32; 16];
        for k in 0..37 {
            lanes[k % 16] = a[k].mul_add(b[k], lanes[k % 16]);
        }
        let s = |i: usize, step: usize| -> f32 {
            fn sum(l: &[f32; 16], i: usize, step: usize) -> f32 {
                if step == 16 { l[i] } else { sum(l, i, step * 2) + sum(l, i + step, step * 2) }
            }
            sum(&lanes, i, step)
        };
        assert_eq!(dot(&a, &b).to_bits(), s(0, 1).to_bits());
    }
}
