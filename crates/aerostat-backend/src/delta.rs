//! Recurrent states of delta nets, and short convolutions: the rules that their operands obey, and what is computed with them in
//! its plainest form.

use std::collections::HashSet;

use crate::numerics::{self, exp};
use crate::{Activation, DeltaRule, Error, Mat, StateRow, check};

/// Positions that a convolution can see.
pub const KERNEL_MAX: usize = 8;

/// Rows that follow each other in one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRun {
    /// Where the sequence's state lies.
    pub slot: usize,
    /// The first row of the run, among those of the sweep.
    pub start: usize,
    /// Number of rows in the run.
    pub rows: usize,
    /// The run begins with position 0 of its sequence, before which the state is zero.
    pub fresh: bool,
}

/// One position of a causal convolution of one channel, through SiLU if asked: `inputs` are those before it and its own, `weights`
/// as many; the products are added to the bias (0 where there is none) in ascending order by fused multiply-add.
pub fn convolve(inputs: &[f32], weights: &[f32], bias: f32, silu: bool) -> f32 {
    let sum = inputs.iter().zip(weights).fold(bias, |sum: f32, (&x, &w)| w.mul_add(x, sum));
    if silu { numerics::activate(sum, Activation::Silu) } else { sum }
}

/// `ln(1 + e^x)` within 4e-7 of its size; NaN for NaN.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    // ln(1 + u) is twice artanh(u / (2 + u)), of which this is the series; the argument is at most a third.
    let u = exp(-x.abs());
    let t = u / (2.0 + u);
    let z = t * t;
    let mut p = 2.0 / 15.0;
    p = z.mul_add(p, 2.0 / 13.0);
    p = z.mul_add(p, 2.0 / 11.0);
    p = z.mul_add(p, 2.0 / 9.0);
    p = z.mul_add(p, 2.0 / 7.0);
    p = z.mul_add(p, 2.0 / 5.0);
    p = z.mul_add(p, 2.0 / 3.0);
    let log = (t * z).mul_add(p, t + t);
    if x > 0.0 { x + log } else { log }
}

/// The strength of a position, `1 / (1 + e^-strength)`, and what it leaves of the state,
/// `e^(-rate * softplus(decay + bias))`.
#[inline(always)]
pub fn strengths(strength: f32, decay: f32, rate: f32, bias: f32) -> (f32, f32) {
    (numerics::activate(strength, Activation::Sigmoid), exp(-(rate * softplus(decay + bias))))
}

/// One position of one value head: changes `state`, `[q.len(), v.len()]`, of whose rows `decays` says how much is left, and gives
/// what the query reads of it. Sums run over the elements of a key in ascending order, by fused multiply-add.
pub fn step(
    state: &mut [f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    (strength, decays): (f32, &[f32]),
    out: &mut [f32],
) {
    let at = |i: usize, j: usize| i * v.len() + j;
    for (j, out) in out.iter_mut().enumerate() {
        let known =
            k.iter().enumerate().fold(0.0, |sum, (i, &k)| (state[at(i, j)] * decays[i]).mul_add(k, sum));
        let change = (v[j] - known) * strength;
        *out = 0.0;
        for (i, (&q, &k)) in q.iter().zip(k).enumerate() {
            let s = k.mul_add(change, state[at(i, j)] * decays[i]);
            state[at(i, j)] = s;
            *out = s.mul_add(q, *out);
        }
    }
}

impl DeltaRule {
    /// Decays of a row: one for each value head, or for each row of its state.
    pub fn decays(&self) -> usize {
        self.value_heads * if self.each { self.key_dim } else { 1 }
    }

    /// Where the strength of a value head lies in its row, and its decay.
    #[inline(always)]
    pub fn strength_at(&self, head: usize) -> (usize, usize) {
        let at = head / self.run * 2 * self.run + head % self.run;
        (at, at + self.run)
    }

    /// Where the query, the key and the value of a value head begin in their row.
    #[inline(always)]
    pub fn places(&self, head: usize) -> (usize, usize, usize) {
        let keys = self.key_heads * self.key_dim;
        let group = self.value_heads / self.key_heads;
        let q = if self.tiled { head % self.key_heads } else { head / group } * self.key_dim;
        (q, keys + q, 2 * keys + head * self.value_dim)
    }
}

/// The runs of rows of sequences. Each sequence's rows follow each other, by ascending position.
pub(crate) fn runs(rows: &[StateRow]) -> Result<Vec<StateRun>, Error> {
    let (mut runs, mut seen): (Vec<StateRun>, HashSet<u32>) = (Vec::new(), HashSet::new());
    for (start, row) in rows.iter().enumerate() {
        let before = start.checked_sub(1).and_then(|before| rows.get(before));
        let follows =
            before.is_some_and(|b| b.slot == row.slot && b.position.checked_add(1) == Some(row.position));
        match runs.last_mut().filter(|_| follows) {
            Some(run) => run.rows += 1,
            None if seen.insert(row.slot) => {
                let (slot, fresh) = (row.slot as usize, row.position == 0);
                runs.push(StateRun { slot, start, rows: 1, fresh });
            }
            None => {
                let message =
                    format!("row {start} cannot go on from {row:?}: rows of one state follow each other");
                return Err(Error::shape(message));
            }
        }
    }
    Ok(runs)
}

/// The operands of a convolution: its rows, its weights by position, its bias, and what sequences keep.
pub fn check_conv([x, weights, state]: [Mat; 3], bias: Option<Mat>) -> Result<(), Error> {
    if !(2..=KERNEL_MAX).contains(&weights.rows) {
        return Err(Error::shape(format!("a convolution cannot see {} positions", weights.rows)));
    }
    check::shape(&weights, weights.rows, x.cols, "the convolution's weights")?;
    let kept = x.cols.checked_mul(weights.rows - 1);
    let kept = kept.ok_or_else(|| Error::shape(format!("{} channels overflow", x.cols)))?;
    check::shape(&state, state.rows, kept, "what the convolution keeps")?;
    if let Some(bias) = bias {
        check::shape(&bias, 1, x.cols, "the convolution's bias")?;
    }
    for read in [Some(weights), bias].into_iter().flatten() {
        check::apart(&x, &read)?;
        check::apart(&state, &read)?;
    }
    check::apart(&x, &state)
}

/// The operands of a delta rule, as [`crate::Backend::delta_rule`] names them.
pub fn check_rule([x, strengths, parameters, state, out]: [Mat; 5], rule: &DeltaRule) -> Result<(), Error> {
    let DeltaRule { key_heads, value_heads, key_dim, value_dim, run, each, .. } = *rule;
    let keys = key_heads.checked_mul(key_dim).and_then(|n| n.checked_mul(2));
    let values = value_heads.checked_mul(value_dim);
    let channels = keys.zip(values).and_then(|(keys, values)| keys.checked_add(values));
    let kept = values.and_then(|values| values.checked_mul(key_dim));
    let divides = |n: usize| n > 0 && value_heads > 0 && value_heads.is_multiple_of(n);
    let (Some(channels), Some(kept), true, true) = (channels, kept, divides(key_heads), divides(run)) else {
        return Err(Error::shape(format!("{rule:?} makes no sense")));
    };
    check::shape(&x, x.rows, channels, "queries, keys and values")?;
    check::shape(&strengths, x.rows, value_heads + rule.decays(), "strengths and decays")?;
    if !each {
        check::shape(&parameters, 2, value_heads, "rates and biases")?;
    }
    check::shape(&state, state.rows, kept, "the state")?;
    check::shape(&out, x.rows, value_heads * value_dim, "the output")?;
    for input in [x, strengths, parameters] {
        check::apart(&out, &input)?;
        check::apart(&state, &input)?;
    }
    check::apart(&out, &state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softplus_is_within_its_bound() {
        for x in (-40_000..40_000).map(|i| i as f32 * 0.002 + 0.000_13) {
            let want = f64::from(x).exp().ln_1p();
            let error = (f64::from(softplus(x)) - want).abs() / want;
            assert!(error < 4e-7, "softplus({x}): {} instead of {want}", softplus(x));
        }
        assert_eq!((softplus(f32::INFINITY), softplus(f32::NEG_INFINITY)), (f32::INFINITY, 0.0));
        assert!(softplus(f32::NAN).is_nan());
    }

    #[test]
    fn a_step_replaces_what_the_state_knows_of_a_key() {
        let mut state = vec![0.0; 6];
        let mut out = [0.0; 3];
        let key = [0.6, 0.8];
        step(&mut state, (&key, &key, &[1.0, 2.0, 3.0]), (1.0, &[1.0; 2]), &mut out);
        assert!(out.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
        step(&mut state, (&key, &key, &[5.0, 5.0, 5.0]), (0.5, &[1.0; 2]), &mut out);
        assert!(out.iter().zip([3.0, 3.5, 4.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
        step(&mut state, (&key, &[0.0; 2], &[9.0; 3]), (1.0, &[0.5; 2]), &mut out);
        assert!(out.iter().zip([1.5, 1.75, 2.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
        // Of the first row nothing is left, of the second all.
        let mut state = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        step(&mut state, (&[1.0, 10.0], &[0.0; 2], &[0.0; 3]), (1.0, &[0.0, 1.0]), &mut out);
        assert_eq!(out, [40.0, 50.0, 60.0]);
    }

    #[test]
    fn rows_of_a_state_follow_each_other() {
        let rows = |rows: &[(u32, u32)]| -> Vec<StateRow> {
            rows.iter().map(|&(slot, position)| StateRow { slot, position }).collect()
        };
        let run = |slot, start, rows, fresh| StateRun { slot, start, rows, fresh };
        let found = runs(&rows(&[(1, 0), (1, 1), (0, 7), (2, 3), (2, 4)])).unwrap();
        assert_eq!(found, [run(1, 0, 2, true), run(0, 2, 1, false), run(2, 3, 2, false)]);
        for bad in [[(0, 1), (0, 1)], [(0, 2), (0, 1)], [(0, 1), (0, 3)]] {
            assert!(runs(&rows(&bad)).is_err(), "{bad:?}");
        }
        assert!(runs(&rows(&[(0, 1), (1, 1), (0, 2)])).is_err());
    }
}
