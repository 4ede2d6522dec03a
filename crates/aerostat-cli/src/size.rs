//! Sizes in bytes, `4GiB`, and rates in bytes per second, `3.5GB/s`, to numbers.

/// Reads `4GiB`, `512MB`, `1.5G`, `65536`. `K`, `M`, `G`, `T` alone are powers of 1024, as with `iB`; with `B` they are
/// powers of 1000.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write one as 4GiB, 512MB or 65536");
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = lower.split_at(lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len()));
    let number = number.trim_end();
    let factor = factor(unit).ok_or_else(wrong)?;
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor).ok_or_else(wrong)?,
        Err(_) if is_fraction(number) && factor > 1 => {
            let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
            if bytes >= u64::MAX as f64 {
                return Err(wrong());
            }
            bytes as u64
        }
        Err(_) => return Err(wrong()),
    };
    if bytes == 0 { Err("a size must be greater than zero".to_owned()) } else { Ok(bytes) }
}

/// Reads `3.5GB/s`; `3.5GB` is the same.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.trim_end().strip_suffix("/s").unwrap_or(text);
    parse(size).map_err(|_| format!("`{text}` is not a rate; write one as 3.5GB/s or 500MB/s"))
}

/// How fast tokens come, for people: below one a second, how long one takes.
pub(crate) fn token_rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1.0 => format!("{rate:.1} tokens/s"),
        rate if rate > 0.0 && rate < 0.1 => format!("{:.0} s a token", 1.0 / rate),
        rate if rate > 0.0 => format!("{:.1} s a token", 1.0 / rate),
        _ => "0 tokens/s".to_owned(),
    }
}

fn factor(unit: &str) -> Option<u64> {
    if matches!(unit, "" | "b") {
        return Some(1);
    }
    let (prefix, rest) = unit.split_at_checked(1)?;
    let power = "kmgt".find(prefix)? as u32 + 1;
    match rest {
        "" | "ib" => Some(1024u64.pow(power)),
        "b" => Some(1000u64.pow(power)),
        _ => None,
    }
}

/// Digits, a point, digits: what `f64` reads besides (signs, exponents, `inf`) is not a size.
fn is_fraction(number: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    number.split_once('.').is_some_and(|(whole, part)| digits(whole) && digits(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_and_refuses_nonsense() {
        let good = [
            ("65536", 65536),
            ("1b", 1),
            ("4GiB", 4 << 30),
            ("4g", 4 << 30),
            ("4 GB", 4_000_000_000),
            ("1.5MiB", 3 << 19),
            ("2T", 2 << 40),
            ("1kb", 1000),
        ];
        for (text, bytes) in good {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        let bad = [
            "",
            "0",
            "0GiB",
            "0.0G",
            "GiB",
            "-1G",
            "4GiBs",
            "1.5",
            "1e9",
            "inf",
            "nan",
            "4X",
            "4 G B",
            "99999999999T",
            "١G",
            ".",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }
    #[test]
    fn reads_rates() {
        for (text, rate) in [("3.5GB/s", 3_500_000_000), ("500 MB/s ", 500_000_000), ("2GiB", 2 << 30)] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["", "/s", "0GB/s", "fast", "3GB/h"] {
            assert!(parse_rate(text).is_err_and(|e| e.contains("rate")), "{text}");
        }
    }
}
