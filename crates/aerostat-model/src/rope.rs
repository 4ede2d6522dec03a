//! Frequencies and angles of rotary position embedding, after transformers' `modeling_rope_utils.py`.

use aerostat_arch::{Divisors, RopeSpec, Scaling};
use aerostat_backend::Error;

use crate::angle;
use crate::constants::{Read, tensor};

/// The angles of one rotation.
#[derive(Debug)]
pub(crate) struct Frequencies {
    spec: RopeSpec,
    /// Radians per position, rounded to f32 as the reference does; one for each pair.
    inverse: Vec<f32>,
    /// The same for sequences beyond the trained length, where they have their own.
    long: Option<Vec<f32>>,
    /// The sequence length `inverse` was computed for, where it matters.
    length: u32,
    /// Factor on cosines and sines, and that of sequences beyond the trained length.
    factor: f32,
    long_factor: f32,
}

impl Frequencies {
    /// Reads the divisors that the checkpoint stores.
    pub(crate) fn load<E: From<Error>>(spec: &RopeSpec, read: Read<'_, E>) -> Result<Self, E> {
        let mut values = |divisors: &Option<Divisors>| -> Result<Option<Vec<f32>>, E> {
            Ok(match divisors {
                None => None,
                Some(Divisors::Given(values)) => Some(values.clone()),
                Some(Divisors::Stored(v)) => Some(tensor(v, read)?),
            })
        };
        let (divisors, long) = (values(&spec.divisors)?, values(&spec.long_divisors)?);
        Ok(Self::new(spec.clone(), divisors.as_deref(), long.as_deref()))
    }

    /// With the values of the divisors that the specification names.
    fn new(spec: RopeSpec, divisors: Option<&[f32]>, long_divisors: Option<&[f32]>) -> Self {
        let factor = match spec.scaling {
            Scaling::Yarn { attention_factor, .. } | Scaling::Long { attention_factor, .. } => {
                attention_factor as f32
            }
            _ => 1.0,
        };
        let long_factor = match spec.scaling {
            Scaling::Long { long_attention_factor, .. } => long_attention_factor as f32,
            _ => factor,
        };
        let inverse = inverse_frequencies(&spec, 0, divisors);
        let long = long_divisors.map(|long| inverse_frequencies(&spec, 0, Some(long)));
        Self { spec, inverse, long, length: 0, factor, long_factor }
    }

    pub(crate) fn rotary(&self) -> usize {
        self.spec.rotated()
    }

    /// Writes the cosines, then the sines, of a row at `position` in a sequence of `length` tokens.
    pub(crate) fn angles(&mut self, position: u32, length: u32, out: &mut [f32]) {
        let by_length = matches!(self.spec.scaling, Scaling::Dynamic { .. } | Scaling::Steps { .. });
        if by_length && self.length != length {
            self.inverse = inverse_frequencies(&self.spec, length, None);
            self.length = length;
        }
        let (inverse, factor) = match (self.spec.scaling, &self.long) {
            (Scaling::Long { original, .. }, Some(long)) if f64::from(length) > original => {
                (long, self.long_factor)
            }
            _ => (&self.inverse, self.factor),
        };
        let (cosines, sines) = out.split_at_mut(inverse.len());
        for ((c, s), &f) in cosines.iter_mut().zip(sines).zip(inverse) {
            let (sin, cos) = angle::sin_cos(f64::from(position as f32 * f));
            *c = cos as f32 * factor;
            *s = if self.spec.reversed { -sin as f32 } else { sin as f32 } * factor;
        }
    }
}

/// Each step is rounded to f32 as the reference rounds it: a unit in the last place here is multiplied by positions.
fn inverse_frequencies(spec: &RopeSpec, length: u32, divisors: Option<&[f32]>) -> Vec<f32> {
    let dim = spec.rotary as f32;
    let stretched = |stretch: f32| {
        let power = f64::from(dim) / (f64::from(dim) - 2.0);
        // Two rotated dimensions have one frequency, 1, whatever the base.
        let growth = if spec.rotary > 2 { angle::pow(f64::from(stretch), power) as f32 } else { 1.0 };
        f64::from(spec.theta as f32 * growth)
    };
    let theta = match spec.scaling {
        Scaling::Dynamic { factor, original } if f64::from(length) > original => {
            stretched(factor as f32 * length as f32 / original as f32 - (factor - 1.0) as f32)
        }
        Scaling::Steps { original } if f64::from(length) > original => {
            let mut doubled = original;
            let mut stretch = 1.0;
            while doubled < f64::from(length) {
                (doubled, stretch) = (2.0 * doubled, 2.0 * stretch + 1.0);
            }
            stretched(stretch)
        }
        _ => spec.theta,
    };
    let divisor = |i: usize| divisors.and_then(|d| d.get(i)).copied().unwrap_or(1.0);
    let wavelength = |i: usize| divisor(i) * angle::pow(theta, f64::from(2.0 * i as f32 / dim)) as f32;
    let scaled = |i: usize| match spec.scaling {
        Scaling::None | Scaling::Dynamic { .. } | Scaling::Steps { .. } | Scaling::Long { .. } => {
            1.0 / wavelength(i)
        }
        Scaling::Linear { factor } => 1.0 / wavelength(i) / factor as f32,
        Scaling::Proportional { part, .. } if i >= (part * f64::from(dim) / 2.0) as usize => 0.0,
        Scaling::Proportional { factor, .. } => 1.0 / wavelength(i) / factor as f32,
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
    (0..spec.rotated() / 2).map(scaled).collect()
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
        RopeSpec {
            theta: 10_000.0,
            rotary: 8,
            reversed: false,
            style: RopeStyle::Half,
            scaling,
            divisors: None,
            long_divisors: None,
        }
    }

    #[test]
    fn unscaled_frequencies_are_a_geometric_series() {
        let f = Frequencies::new(spec(Scaling::None), None, None);
        assert_eq!(f.inverse, [1.0, 0.1, 0.01, 0.001]);
    }

    #[test]
    fn dynamic_scaling_starts_beyond_the_original_length() {
        let mut f = Frequencies::new(spec(Scaling::Dynamic { factor: 2.0, original: 16.0 }), None, None);
        let mut short = [0.0; 8];
        let mut long = [0.0; 8];
        f.angles(5, 16, &mut short);
        let mut plain = [0.0; 8];
        Frequencies::new(spec(Scaling::None), None, None).angles(5, 16, &mut plain);
        assert_eq!(short, plain);
        f.angles(5, 17, &mut long);
        assert_ne!(long, plain);
        f.angles(5, 16, &mut short);
        assert_eq!(short, plain, "a short sequence beside a long one is not stretched");
    }

    #[test]
    fn long_sequences_have_divisors_of_their_own() {
        let scaling = Scaling::Long { original: 16.0, attention_factor: 1.5, long_attention_factor: 1.5 };
        let (short, long) = ([1.0, 1.0, 2.0, 2.0], [1.0, 4.0, 4.0, 8.0]);
        let mut f = Frequencies::new(spec(scaling), Some(&short), Some(&long));
        let angles = |f: &mut Frequencies, length: u32| {
            let mut out = [0.0; 8];
            f.angles(3, length, &mut out);
            out
        };
        let plain = |divisors: &[f32]| {
            angles(&mut Frequencies::new(spec(Scaling::None), Some(divisors), None), 16).map(|a| a * 1.5)
        };
        assert_eq!(angles(&mut f, 16), plain(&short));
        assert_eq!(angles(&mut f, 17), plain(&long));
        assert_eq!(angles(&mut f, 5), plain(&short));
    }

    #[test]
    fn divisors_divide_frequencies() {
        let f = Frequencies::new(spec(Scaling::None), Some(&[1.0, 2.0, 4.0, 8.0]), None);
        assert_eq!(f.inverse, [1.0, 0.05, 0.0025, 0.000_125]);
    }
}
