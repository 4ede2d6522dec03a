//! Filters of numbers, and numbers from text.

use super::arguments::{Given, flag, integer};
use super::characters::{decimal_value, is_space};
use super::compare::Number;
use super::execute::Renderer;
use super::limits::{Fault, Outcome};
use super::operators::divided;
use super::print::float as float_text;
use super::value::Value;
use super::value::undefined_fault;

impl Renderer<'_> {
    pub(super) fn number_filter(&mut self, name: &str, value: &Value, given: Given) -> Outcome<Value> {
        if let Value::Text(text) = value {
            // Its digits are looked up one by one, and copied.
            self.heap.read(text.len().saturating_mul(8))?;
            self.heap.room(text.len().saturating_mul(3))?;
        }
        match name {
            "abs" => {
                let [] = given.bind(name, [], 0)?;
                match Number::of(value) {
                    Some(Number::Int(value)) => {
                        let size = value
                            .checked_abs()
                            .ok_or_else(|| Fault::new("an integer of more than 128 bits"))?;
                        Ok(Value::Int(size))
                    }
                    Some(Number::Float(value)) => Ok(Value::Float(value.abs())),
                    None if value.is_undefined() => Err(undefined_fault(value, value)),
                    None => Fault::err(format!("bad operand type for abs(): '{}'", value.type_name())),
                }
            }
            "int" => {
                let [default, base] = given.bind(name, ["default", "base"], 0)?;
                // Only texts have a base; a wrong one is caught as a wrong text is.
                let base = base.map_or(10, |base| base.as_index().unwrap_or(-1));
                to_int(value, base).map(|found| found.or(default).unwrap_or(Value::Int(0)))
            }
            "float" => {
                let [default] = given.bind(name, ["default"], 0)?;
                if value.is_undefined() {
                    return Err(undefined_fault(value, value));
                }
                let found = match value {
                    Value::Text(text) => parse_float(text),
                    other => Number::of(other).map(Number::to_float),
                };
                Ok(found.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
            }
            "round" => {
                let [precision, method] = given.bind(name, ["precision", "method"], 0)?;
                let method = match &method {
                    None => "common",
                    Some(Value::Text(method)) if matches!(&**method, "common" | "ceil" | "floor") => method,
                    Some(_) => return Fault::err("method must be common, ceil or floor"),
                };
                if let (Some(Value::None), "common") = (&precision, method) {
                    // To an integer.
                    return to_int(&round(value, 0, method)?, 10)?
                        .ok_or_else(|| Fault::new("cannot convert to integer"));
                }
                round(value, integer(&precision, 0)?, method)
            }
            _ => {
                let [binary] = given.bind(name, ["binary"], 0)?;
                let bytes = match value {
                    Value::Text(text) => parse_float(text),
                    other => Number::of(other).map(Number::to_float),
                };
                let bytes = bytes.ok_or_else(|| Fault::new("could not convert to float"))?;
                self.heap.text(file_size(bytes, flag(&binary, false))?)
            }
        }
    }
}

/// `None` where the default is taken.
fn to_int(value: &Value, base: i128) -> Outcome<Option<Value>> {
    let whole = |float: f64| match float.is_finite() {
        true if float.abs() < 1.7e38 => Ok(Some(Value::Int(float.trunc() as i128))),
        true => Fault::err("an integer of more than 128 bits"),
        false => Ok(None),
    };
    match value {
        Value::Undefined(_) => Err(undefined_fault(value, value)),
        Value::Float(value) if value.is_infinite() => Fault::err("cannot convert float infinity to integer"),
        Value::Float(value) => whole(*value),
        Value::Text(text) => {
            if !(base == 0 || (2..=36).contains(&base)) {
                return parse_float(text).map_or(Ok(None), whole);
            }
            match parse_int(text, base as u32)? {
                Some(value) => Ok(Some(Value::Int(value))),
                None => parse_float(text).map_or(Ok(None), whole),
            }
        }
        other => Ok(other.as_index().map(Value::Int)),
    }
}

/// Digits as ASCII, as Python takes those of any script.
fn ascii_digits(text: &str) -> String {
    let digit =
        |char: char| decimal_value(char).and_then(|value| char::from_digit(value, 10)).unwrap_or(char);
    text.trim_matches(is_space).chars().map(digit).collect()
}

/// `int(text, base)`.
fn parse_int(text: &str, base: u32) -> Outcome<Option<i128>> {
    let text = ascii_digits(text);
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (if text.starts_with('-') { "-" } else { "" }, digits),
        None => ("", text.as_str()),
    };
    let prefix = digits.get(..2).unwrap_or_default().to_ascii_lowercase();
    let radix = match prefix.as_str() {
        "0b" if matches!(base, 0 | 2) => 2,
        "0o" if matches!(base, 0 | 8) => 8,
        "0x" if matches!(base, 0 | 16) => 16,
        _ => 0,
    };
    let mut digits = digits;
    let mut base = base;
    if radix > 0 {
        digits = digits.get(2..).unwrap_or_default();
        digits = digits.strip_prefix('_').unwrap_or(digits);
        base = radix;
    } else if base == 0 {
        base = 10;
        if digits.starts_with('0') && digits.chars().any(|char| !matches!(char, '0' | '_')) {
            return Ok(None);
        }
    }
    let grouped =
        !digits.is_empty() && !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    let digits = digits.replace('_', "");
    if !grouped || !digits.chars().all(|char| char.is_digit(base)) {
        return Ok(None);
    }
    match i128::from_str_radix(&format!("{sign}{digits}"), base) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Fault::err("an integer of more than 128 bits"),
    }
}

/// `float(text)`.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = ascii_digits(text);
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    for (at, _) in text.match_indices('_') {
        if !is_digit(at.checked_sub(1)) || !is_digit(Some(at + 1)) {
            return None;
        }
    }
    let plain = text.replace('_', "");
    let bare = plain.strip_prefix(['-', '+']).unwrap_or(&plain).to_ascii_lowercase();
    let is_word = matches!(bare.as_str(), "inf" | "infinity" | "nan");
    let is_number = bare.starts_with(|char: char| char.is_ascii_digit() || char == '.');
    if is_word || is_number { plain.parse().ok() } else { None }
}

fn round(value: &Value, precision: i128, method: &str) -> Outcome<Value> {
    let number = match (Number::of(value), value) {
        (Some(number), _) => number,
        (None, Value::Undefined(_)) => return Err(undefined_fault(value, value)),
        (None, other) => {
            return Fault::err(format!("type {} doesn't define __round__ method", other.type_name()));
        }
    };
    let places = precision.clamp(-400, 400) as i32;
    if method == "common" {
        return match number {
            Number::Float(value) => round_float(value, places).map(Value::Float),
            Number::Int(value) if places >= 0 => Ok(Value::Int(value)),
            Number::Int(value) => Ok(Value::Int(round_int(value, places.unsigned_abs()))),
        };
    }
    // 10 ** precision is an integer, or a float where it is below one.
    let scale = 10f64.powi(places);
    let scaled = match number {
        Number::Int(value) if places >= 0 => {
            let scale = 10i128.checked_pow(places.unsigned_abs());
            let both = scale.and_then(|scale| Some((value.checked_mul(scale)?, scale)));
            let (scaled, scale) = both.ok_or_else(|| Fault::new("an integer of more than 128 bits"))?;
            return Ok(Value::Float(divided(scaled, scale)));
        }
        number => number.to_float() * scale,
    };
    if !scaled.is_finite() {
        return Fault::err("cannot convert float infinity or NaN to integer");
    }
    let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
    // The integer between has no negative zero.
    let whole = if whole == 0.0 { 0.0 } else { whole };
    Ok(Value::Float(whole / scale))
}

/// Half to even, of the exact decimal value.
fn round_float(value: f64, places: i32) -> Outcome<f64> {
    if !value.is_finite() || places > 323 {
        return Ok(value);
    }
    if places >= 0 {
        return Ok(format!("{value:.*}", places as usize).parse().unwrap_or(value));
    }
    if places < -308 {
        return Ok(0f64.copysign(value));
    }
    let scale = 10f64.powi(-places);
    let scaled = value / scale;
    let rounded = scaled.round_ties_even() * scale;
    if rounded.is_infinite() {
        return Fault::err("rounded value too large to represent");
    }
    Ok(if rounded == 0.0 { 0f64.copysign(value) } else { rounded })
}

fn round_int(value: i128, places: u32) -> i128 {
    let Some(unit) = 10i128.checked_pow(places) else { return 0 };
    let (quotient, rest) = (value.div_euclid(unit), value.rem_euclid(unit));
    let up = match rest.cmp(&(unit - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
    };
    (quotient + i128::from(up)).saturating_mul(unit)
}

fn file_size(bytes: f64, binary: bool) -> Outcome<String> {
    let (base, prefixes) = match binary {
        true => (1024f64, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
        false => (1000f64, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    if bytes == 1.0 {
        return Ok("1 Byte".to_owned());
    }
    if bytes < base {
        if bytes.is_infinite() {
            return Fault::err("cannot convert float infinity to integer");
        }
        return Ok(format!("{} Bytes", bytes.trunc() as i128));
    }
    let mut unit = base;
    for (at, prefix) in prefixes.iter().enumerate() {
        unit *= base;
        if bytes < unit || at + 1 == prefixes.len() {
            let size = base * bytes / unit;
            let size = if size.is_finite() { format!("{size:.1}") } else { float_text(size) };
            return Ok(format!("{size} {prefix}"));
        }
    }
    Fault::err("no size")
}
