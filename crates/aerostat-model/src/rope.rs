//! Frequencies and angles of rotary position embedding, after transformers' `modeling_rope_utils.py`.

use aerostat_arch::{RopeSpec, Scaling};

use crate::angle;

/// The angles of one rotation.
#[derive(Debug)]
pub(crate) struct Frequencies {
    spec: RopeSpec,
    /// Radians per position, rounded to f32 as the reference does; `rotary / 2`.
    inverse: Vec<f32>,
    /// The sequence length `inverse` was computed for, where it matters.
    length: u32,
    /// Factor on cosines and sines.
    factor: f32,
}

impl Frequencies {
    /// `divisors` are the values of the tensor that the specification names, if it names one.
    pub(crate) fn new(spec: RopeSpec, divisors: Option<&[f32]>) -> Self {
        let factor = match spec.scaling {
            Scaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        };
        let mut inverse = inverse_frequencies(&spec, 0);
        for (f, d) in inverse.iter_mut().zip(divisors.unwrap_or_default()) {
            *f /= d;
        }
        Self { spec, inverse, length: 0, factor }
    }

    pub(crate) fn rotary(&self) -> usize {
        self.spec.rotary
    }

    /// Writes the cosines, then the sines, of a row at `position` in a sequence of `length` tokens.
    pub(crate) fn angles(&mut self, position: u32, length: u32, out: &mut [f32]) {
        if matches!(self.spec.scaling, Scaling::Dynamic { .. }) && self.length != length {
            self.inverse = inverse_frequencies(&self.spec, length);
            self.length = length;
        }
        let (cosines, sines) = out.split_at_mut(self.inverse.len());
        for ((c, s), &f) in cosines.iter_mut().zip(sines).zip(&self.inverse) {
            let (sin, cos) = angle::sin_cos(f64::from(position as f32 * f));
            *c = cos as f32 * self.factor;
            *s = sin as f32 * self.factor;
        }
    }
}

/// Each step is rounded to f32 as the reference rounds it: a unit in the last place here is multiplied by positions.
fn inverse_frequencies(spec: &RopeSpec, length: u32) -> Vec<f32> {
    let dim = spec.rotary as f32;
    let theta = match spec.scaling {
        Scaling::Dynamic { factor, original } if f64::from(length) > original => {
            let stretch = factor as f32 * length as f32 / original as f32 - (factor - 1.0) as f32;
            let power = f64::from(dim) / (f64::from(dim) - 2.0);
            // Two rotated dimensions have one frequency, 1, whatever the base.
            let growth = if spec.rotary > 2 { angle::pow(f64::from(stretch), power) as f32 } else { 1.0 };
            f64::from(spec.theta as f32 * growth)
        }
        _ => spec.theta,
    };
    let wavelength = |i: usize| angle::pow(theta, f64::from(2.0 * i as f32 / dim)) as f32;
    let scaled = |i: usize| match spec.scaling {
        Scaling::None | Scaling::Dynamic { .. } => 1.0 / wavelength(i),
        Scaling::Linear { factor } => 1.0 / wavelength(i) / factor as f32,
        Scaling::Llama3 { factor, low, high, original } => {
            llama3(1.0 / wavelength(i), factor as f32, low as f32, high as f32, original as f32)
        }
        Scaling::Yarn { factor, beta_fast, beta_slow, original, truncate, .. } => {
            let (low, high) = yarn_range(f64::from(dim), theta, original, beta_fast, beta_slow, truncate);
            let kept = 1.0 - ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let (divided, whole) = (1.0 / (factor as f32 * wavelength(i)), 1.0 / wavelength(i));
            divided * (1.0 - kept) + whole * kept
        }
    };
    (0..spec.rotary / 2).map(scaled).collect()
}

fn llama3(frequency: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    let wavelength = std::f32::consts::TAU / frequency;
    if wavelength > original / low {
        frequency / factor
    } else if wavelength < original / high {
        frequency
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

/// The dimensions between which YaRN's ramp runs.
fn yarn_range(dim: f64, theta: f64, original: f64, fast: f64, slow: f64, truncate: bool) -> (f64, f64) {
    let at = |rotations: f64| {
        dim * angle::ln(original / (rotations * std::f64::consts::TAU)) / (2.0 * angle::ln(theta))
    };
    let (low, high) = if truncate { (at(fast).floor(), at(slow).ceil()) } else { (at(fast), at(slow)) };
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high { (low, high + 0.001) } else { (low, high) }
}

#[cfg(test)]
mod tests {
    use aerostat_arch::RopeStyle;

    use super::*;

    fn spec(scaling: Scaling) -> RopeSpec {
        RopeSpec { theta: 10_000.0, rotary: 8, style: RopeStyle::Half, scaling, divisors: None }
    }

    #[test]
    fn unscaled_frequencies_are_a_geometric_series() {
        let f = Frequencies::new(spec(Scaling::None), None);
        assert_eq!(f.inverse, [1.0, 0.1, 0.01, 0.001]);
    }

    #[test]
    fn dynamic_scaling_starts_beyond_the_original_length() {
        let mut f = Frequencies::new(spec(Scaling::Dynamic { factor: 2.0, original: 16.0 }), None);
        let mut short = [0.0; 8];
        let mut long = [0.0; 8];
        f.angles(5, 16, &mut short);
        let mut plain = [0.0; 8];
        Frequencies::new(spec(Scaling::None), None).angles(5, 16, &mut plain);
        assert_eq!(short, plain);
        f.angles(5, 17, &mut long);
        assert_ne!(long, plain);
        f.angles(5, 16, &mut short);
        assert_eq!(short, plain, "a short sequence beside a long one is not stretched");
    }

    #[test]
    fn divisors_divide_frequencies() {
        let f = Frequencies::new(spec(Scaling::None), Some(&[1.0, 2.0, 4.0, 8.0]));
        assert_eq!(f.inverse, [1.0, 0.05, 0.0025, 0.000_125]);
    }
}
