//! Rotary position embedding.

use aerostat_types::RopeStyle;

use super::vector::Vector;

/// One rotary position embedding: which elements of a head are rotated, and by which angles.
#[derive(Clone, Debug)]
pub struct RopeSpec {
    /// The base of the geometric series of wavelengths: pair `i` turns by `theta^(-2 i / rotary)` radians a position, before
    /// scaling.
    pub theta: f64,
    /// Elements by which the base's exponent goes; of an odd number, one more is rotated.
    pub rotary: usize,
    /// Which two elements form a pair.
    pub style: RopeStyle,
    /// Whether pairs are rotated by the negative of their angle.
    pub reversed: bool,
    /// How frequencies are stretched beyond the trained context.
    pub scaling: Scaling,
    /// Divisors of the frequencies, `[rotated / 2]`; `None`: 1.
    pub divisors: Option<Divisors>,
    /// Divisors of the frequencies of long sequences, with [`Scaling::Long`], `[rotated / 2]`; `None`: 1.
    pub long_divisors: Option<Divisors>,
}

/// Divisors of the frequencies of a rotation, one for each pair, `[rotated / 2]`.
#[derive(Clone, Debug)]
pub enum Divisors {
    /// As the configuration lists them.
    Given(Vec<f32>),
    /// As a tensor of a GGUF file holds them.
    Stored(Vector),
}

impl RopeSpec {
    /// Elements that are rotated, at the start of each head; even.
    pub fn rotated(&self) -> usize {
        self.rotary.next_multiple_of(2)
    }

    /// The divisors that are tensors.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        [&self.divisors, &self.long_divisors].into_iter().flatten().filter_map(|d| match d {
            Divisors::Given(_) => None,
            Divisors::Stored(vector) => Some(vector),
        })
    }
}

/// How frequencies are stretched. The formulas are those of transformers' `modeling_rope_utils.py`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Frequencies are as the base makes them.
    None,
    /// All frequencies are divided by `factor`.
    Linear {
        /// Divisor of frequencies.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than `original` ("dynamic NTK").
    Dynamic {
        /// Growth of the base per trained length.
        factor: f64,
        /// Trained length in positions.
        original: f64,
    },
    /// The base grows in steps with the length of the sequence, each time that it doubles beyond `original` (Qwen 1).
    Steps {
        /// Trained length in positions.
        original: f64,
    },
    /// Long wavelengths are divided by `factor`, short ones kept, those between blended (Llama 3.1).
    Llama3 {
        /// Divisor of the frequencies of long wavelengths.
        factor: f64,
        /// Frequencies of wavelengths above `original / low` positions are divided.
        low: f64,
        /// Frequencies of wavelengths below `original / high` positions are kept.
        high: f64,
        /// Trained length in positions.
        original: f64,
    },
    /// YaRN: a ramp between kept and divided frequencies; cosines and sines are scaled.
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Rotations over the trained length above which a frequency is kept.
        beta_fast: f64,
        /// Rotations over the trained length below which a frequency is divided.
        beta_slow: f64,
        /// Trained length in positions.
        original: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded outwards to whole dimensions.
        truncate: bool,
    },
    /// The first pairs of whole heads are rotated, their frequencies divided by `factor`; the others are not.
    Proportional {
        /// The part of all pairs that is rotated, 0 to 1.
        part: f64,
        /// Divisor of frequencies.
        factor: f64,
    },
    /// LongRoPE: sequences longer than `original` have divisors of their own; cosines and sines are scaled.
    Long {
        /// Trained length in positions.
        original: f64,
        /// Factor on cosines and sines of sequences up to the trained length.
        attention_factor: f64,
        /// Factor on cosines and sines of longer sequences.
        long_attention_factor: f64,
    },
}
