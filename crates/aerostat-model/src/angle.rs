//! `ln`, `exp`, `pow`, `sin` and `cos` in f64 from IEEE operations alone, so that tables made with them have the same
//! bits on every machine. Errors are a few units of 1e-16, far below the f32 that results are rounded to.

use std::f64::consts::{LN_2, SQRT_2};

/// The natural logarithm of a positive, normal number.
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 atanh(s); |s| < 0.172.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let mut sum = 0.0;
    for k in (0..12).rev() {
        sum = sum * z + 1.0 / f64::from(2 * k + 1);
    }
    exponent as f64 * LN_2 + 2.0 * s * sum
}

/// `1 / k!`
const INVERSE_FACTORIALS: [f64; 15] = {
    let mut table = [1.0; 15];
    let mut k = 1;
    while k < 15 {
        table[k] = table[k - 1] / k as f64;
        k += 1;
    }
    table
};

/// `e^x` for `|x| <= 700`.
#[inline]
pub fn exp(x: f64) -> f64 {
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52: adding it rounds to an integer
    let n = (x * std::f64::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let sum = INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, c| sum * r + c);
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// `base^power` for a positive base and results within f64's normal range.
pub fn pow(base: f64, power: f64) -> f64 {
    exp(power * ln(base))
}

/// `(sin x, cos x)` for `|x| < 2^20`.
pub fn sin_cos(x: f64) -> (f64, f64) {
    const HALF_PI_HIGH: f64 = 1.570_796_326_734_125_6; // 33 bits: n times it is exact
    const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;
    let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
    let r = (x - n * HALF_PI_HIGH) - n * HALF_PI_LOW;
    let (s, c) = (sin_near_zero(r), cos_near_zero(r));
    match (n as i64).rem_euclid(4) {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    }
}

/// Taylor series; `|r| <= pi/4`.
fn sin_near_zero(r: f64) -> f64 {
    let z = r * r;
    let mut sum = 1.0;
    for k in (1..9).rev() {
        sum = 1.0 - sum * z / f64::from(2 * k * (2 * k + 1));
    }
    r * sum
}

/// Taylor series; `|r| <= pi/4`.
fn cos_near_zero(r: f64) -> f64 {
    let z = r * r;
    let mut sum = 1.0;
    for k in (1..10).rev() {
        sum = 1.0 - sum * z / f64::from(2 * k * (2 * k - 1));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_the_systems() {
        for i in 1..20_000 {
            let x = f64::from(i) * 0.37;
            assert!((ln(x) - x.ln()).abs() < 4e-15, "ln({x})");
            let (s, c) = sin_cos(x * 7.3);
            assert!((s - (x * 7.3).sin()).abs() < 2e-15, "sin({})", x * 7.3);
            assert!((c - (x * 7.3).cos()).abs() < 2e-15, "cos({})", x * 7.3);
            let y = f64::from(i - 10_000) * 0.003;
            assert!((exp(y) / y.exp() - 1.0).abs() < 1e-14, "exp({y})");
        }
        assert!((pow(500_000.0, -0.75) / 500_000f64.powf(-0.75) - 1.0).abs() < 1e-14);
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }
}
