//! Recurrent states of state spaces: the rules that their operands obey, and what is computed with them in its plainest form.

use crate::delta::softplus;
use crate::numerics::exp;
use crate::{Error, Mat, StateScan, check};

/// The time step of a position, `softplus(step + bias)` within the limits, and what it leaves of the state, `e^(-rate * step)`.
/// NaN stays.
#[inline(always)]
pub fn time_step(step: f32, rate: f32, bias: f32, (least, most): (f32, f32)) -> (f32, f32) {
    let step = softplus(step + bias);
    let step = if step > most { most } else { step };
    let step = if step < least { least } else { step };
    (step, exp(-(rate * step)))
}

/// One position of one head: changes `state`, `[b.len(), x.len()]`, by what `b` writes of `x`, and gives what `c` reads of it and
/// `skip` takes of `x`. Sums run over the state's rows in ascending order, by fused multiply-add, from `skip * x` on.
pub fn step(
    state: &mut [f32],
    (b, c, x): (&[f32], &[f32], &[f32]),
    (step, decay, skip): (f32, f32, f32),
    out: &mut [f32],
) {
    for (j, (out, &value)) in out.iter_mut().zip(x).enumerate() {
        let taken = value * step;
        *out = value * skip;
        for (i, (&b, &c)) in b.iter().zip(c).enumerate() {
            let kept = &mut state[i * x.len() + j];
            *kept = b.mul_add(taken, *kept * decay);
            *out = kept.mul_add(c, *out);
        }
    }
}

/// What a time step leaves of an element of the state whose rate is its own.
#[inline(always)]
pub fn decay(rate: f32, step: f32) -> f32 {
    exp(-(rate * step))
}

/// Of each element of the state, by its row and its column.
type OfElements<'a> = &'a dyn Fn(usize, usize) -> f32;
/// Of each element of the input.
type OfInputs<'a> = &'a dyn Fn(usize) -> f32;

/// The same where each element of the input has a time step and a skip of its own, and each element of the state a decay.
pub fn step_each(
    state: &mut [f32],
    (b, c, x): (&[f32], &[f32], &[f32]),
    (steps, decay, skip): (&[f32], OfElements<'_>, OfInputs<'_>),
    out: &mut [f32],
) {
    for (j, (out, &value)) in out.iter_mut().zip(x).enumerate() {
        let taken = value * steps[j];
        *out = value * skip(j);
        for (i, (&b, &c)) in b.iter().zip(c).enumerate() {
            let kept = &mut state[i * x.len() + j];
            *kept = b.mul_add(taken, *kept * decay(i, j));
            *out = kept.mul_add(c, *out);
        }
    }
}

impl StateScan {
    /// Where the input of a head begins in its row, what its group writes with, and what it reads with.
    #[inline(always)]
    pub fn places(&self, head: usize) -> (usize, usize, usize) {
        let inputs = self.heads * self.head_dim;
        let b = inputs + head / (self.heads / self.groups) * self.state_dim;
        (head * self.head_dim, b, b + self.groups * self.state_dim)
    }
}

/// The operands of a scan, as [`crate::Backend::state_scan`] names them.
pub fn check_scan([x, steps, parameters, state, out]: [Mat; 5], scan: &StateScan) -> Result<(), Error> {
    let StateScan { heads, head_dim, groups, state_dim, each, .. } = *scan;
    let inputs = heads.checked_mul(head_dim);
    let shared = groups.checked_mul(state_dim).and_then(|n| n.checked_mul(2));
    let channels = inputs.zip(shared).and_then(|(inputs, shared)| inputs.checked_add(shared));
    let kept = inputs.and_then(|inputs| inputs.checked_mul(state_dim));
    let divides = groups > 0 && heads > 0 && heads.is_multiple_of(groups);
    let (Some(channels), Some(kept), true) = (channels, kept, divides) else {
        return Err(Error::shape(format!("{scan:?} makes no sense")));
    };
    check::shape(&x, x.rows, channels, "inputs, and what is written and read with")?;
    let (rows, numbers) = if each { (state_dim + 1, heads * head_dim) } else { (3, heads) };
    check::shape(&steps, x.rows, numbers, "time steps")?;
    check::shape(&parameters, rows, numbers, "rates, biases and skips")?;
    check::shape(&state, state.rows, kept, "the state")?;
    check::shape(&out, x.rows, heads * head_dim, "the output")?;
    for input in [x, steps, parameters] {
        check::apart(&out, &input)?;
        check::apart(&state, &input)?;
    }
    check::apart(&out, &state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_adds_to_what_is_left_of_the_state() {
        let (mut state, mut out) = (vec![1.0, 2.0, 3.0, 4.0], [0.0; 2]);
        // Half of the state stays; half of the input is written, by 1 into the first row and by 2 into the second.
        step(&mut state, (&[1.0, 2.0], &[1.0, 10.0], &[2.0, 4.0]), (0.5, 0.5, 3.0), &mut out);
        assert_eq!(state, [1.5, 3.0, 3.5, 6.0]);
        assert_eq!(out, [6.0 + 1.5 + 35.0, 12.0 + 3.0 + 60.0]);
    }

    #[test]
    fn elements_may_forget_at_rates_of_their_own() {
        let (mut state, mut out) = (vec![1.0, 2.0, 3.0, 4.0], [0.0; 2]);
        // What a rate of 0 keeps is all, and what one of 400 does is nothing.
        let kept = |i: usize, j: usize| decay(if i == j { 0.0f32 } else { 400.0 }, 0.5);
        let numbers =
            (&[1.0, 0.5][..], &kept as &dyn Fn(usize, usize) -> f32, &(|_| 1.0f32) as &dyn Fn(usize) -> f32);
        step_each(&mut state, (&[1.0, 2.0], &[1.0, 10.0], &[2.0, 4.0]), numbers, &mut out);
        assert_eq!(state, [3.0, 2.0, 4.0, 8.0]);
        assert_eq!(out, [2.0 + 3.0 + 40.0, 4.0 + 2.0 + 80.0]);
    }

    #[test]
    fn time_steps_have_limits() {
        let (step, decay) = time_step(0.0, 2.0, 0.0, (0.0, f32::INFINITY));
        assert!((f64::from(step) - 2f64.ln()).abs() < 1e-6 && (decay - 0.25).abs() < 1e-6, "{step} {decay}");
        assert_eq!(time_step(-20.0, 1.0, 0.0, (0.01, 1.0)).0, 0.01);
        assert_eq!(time_step(20.0, 1.0, 0.0, (0.01, 1.0)).0, 1.0);
        assert!(time_step(f32::NAN, 1.0, 0.0, (0.01, 1.0)).0.is_nan());
    }
}
