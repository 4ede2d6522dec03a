//! Scales of axes: where a value lies, and which values get a tick.

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By factors of ten.
    Log10,
    /// By factors of two.
    Log2,
}

/// A scale with its range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Scale {
    /// Whether the scale has a place for the value.
    pub(super) fn holds(self, value: f64) -> bool {
        value.is_finite() && (self == Scale::Linear && value >= 0.0 || value > 0.0)
    }

    /// A range that holds all values; `None` without values.
    pub(super) fn range(self, values: impl Iterator<Item = f64>) -> Option<Range> {
        let ends = values.filter(|&value| self.holds(value)).fold(None, |ends: Option<(f64, f64)>, value| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = ends?;
        if self == Scale::Linear {
            let high = if high > 0.0 { high } else { 1.0 };
            let step = step(high, LINEAR_STEPS_MAX);
            return Some(Range { scale: self, low: 0.0, high: (high / step - 1e-9).ceil() * step });
        }
        let margin = (high / low).powf(0.05).max(1.1);
        Some(Range { scale: self, low: low / margin, high: high * margin })
    }
}

const LINEAR_STEPS_MAX: f64 = 6.0;
const LOG_TICKS: std::ops::RangeInclusive<usize> = 3..=9;

impl Range {
    /// The place of a value: 0 at the low end, 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log2 | Scale::Log10 => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    /// The values to mark, with their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let values = match self.scale {
            Scale::Linear => self.even(LINEAR_STEPS_MAX),
            Scale::Log2 => self.logarithmic(2.0, &[1.0]),
            Scale::Log10 => self.logarithmic(10.0, &[1.0, 2.0, 5.0]),
        };
        values.into_iter().map(|value| (value, label(value))).collect()
    }

    /// Multiples of a round step.
    fn even(&self, steps: f64) -> Vec<f64> {
        let step = step(self.high - self.low, steps);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }

    /// Every `n`th power of the base; with the inner marks where powers are too few; else even steps.
    fn logarithmic(&self, base: f64, marks: &[f64]) -> Vec<f64> {
        let exponent = |value: f64| value.ln() / base.ln();
        let (first, last) =
            ((exponent(self.low).floor()) as i32, (exponent(self.high) + 1e-9).floor() as i32);
        let inside = |value: &f64| *value >= self.low * (1.0 - 1e-9) && *value <= self.high * (1.0 + 1e-9);
        let powers = |stride: i32, marks: &[f64]| -> Vec<f64> {
            let exponents = (first..=last).filter(|exponent| exponent.rem_euclid(stride) == 0);
            let values = exponents.flat_map(|exponent| marks.iter().map(move |m| m * base.powi(exponent)));
            values.filter(inside).collect()
        };
        let fits = |ticks: &Vec<f64>| LOG_TICKS.contains(&ticks.len());
        let candidates = [powers(1, marks), powers(1, &[1.0])];
        let strided = (2..=8).map(|stride| powers(stride, &[1.0]));
        candidates.into_iter().chain(strided).find(fits).unwrap_or_else(|| self.even(4.0))
    }
}

/// The smallest of 1, 2, 5 times a power of ten that divides the length into at most so many steps.
fn step(length: f64, steps: f64) -> f64 {
    let least = length / steps;
    let power = 10f64.powi(least.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A number as short as it can be, without what computing added to it.
fn label(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "0" && value > 0.0 { format!("{value:.0e}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let cases: &[(Scale, &[f64], &str)] = &[
            (Scale::Linear, &[0.3, 2.3], "0 0.5 1 1.5 2 2.5"),
            (Scale::Linear, &[97.0], "0 20 40 60 80 100"),
            (Scale::Linear, &[1.0], "0 0.2 0.4 0.6 0.8 1"),
            (Scale::Linear, &[0.0], "0 0.2 0.4 0.6 0.8 1"),
            (Scale::Log2, &[1.0, 32.0], "1 2 4 8 16 32"),
            (Scale::Log2, &[1.0, 4096.0], "1 4 16 64 256 1024 4096"),
            (Scale::Log2, &[4.0], "3.8 4 4.2 4.4"),
            (Scale::Log10, &[0.5, 60.0], "0.5 1 2 5 10 20 50"),
            (Scale::Log10, &[0.001, 1000.0], "0.001 0.01 0.1 1 10 100 1000"),
            (Scale::Log10, &[1e-9, 1e9], "1e-8 0.000001 0.0001 0.01 1 100 10000 1000000 100000000"),
        ];
        for (scale, values, ticks) in cases {
            let range = scale.range(values.iter().copied()).expect("there are values");
            let labels: Vec<_> = range.ticks().into_iter().map(|(_, label)| label).collect();
            assert_eq!(labels.join(" "), *ticks, "{scale:?} {values:?}");
        }
    }

    #[test]
    fn places_run_from_zero_to_one() {
        for scale in [Scale::Linear, Scale::Log2, Scale::Log10] {
            let range = scale.range([1.0, 3.0, 100.0].into_iter()).expect("there are values");
            let places = [range.low, 1.0, 3.0, 100.0, range.high].map(|value| range.place(value));
            assert!(places.is_sorted(), "{places:?}");
            assert!(places[0].abs() < 1e-12 && (places[4] - 1.0).abs() < 1e-12, "{places:?}");
        }
        assert!(Scale::Log10.range([0.0, -1.0, f64::NAN].into_iter()).is_none());
    }
}
