//! Arithmetic, as Python has it.

use super::ast::Operator;
use super::compare::Number;
use super::escape::escaped;
use super::format::percent;
use super::limits::{Buffer, Fault, Heap, Outcome};
use super::value::undefined_fault;
use super::value::{Items, Text, Value};

/// `one operator two`.
pub(super) fn binary(
    operator: Operator,
    one: &Value,
    two: &Value,
    names: &[Box<str>],
    heap: &Heap,
) -> Outcome<Value> {
    if let (Operator::Modulo, Value::Text(format)) = (operator, one) {
        return percent(format, two, names, heap);
    }
    if one.is_undefined() || two.is_undefined() {
        return Err(undefined_fault(one, two));
    }
    match (Number::of(one), Number::of(two)) {
        (Some(Number::Int(one)), Some(Number::Int(two))) => return integers(operator, one, two),
        (Some(one), Some(two)) => return floats(operator, one.to_float(), two.to_float()).map(Value::Float),
        _ => {}
    }
    match (operator, one, two) {
        (Operator::Add, Value::Text(one), Value::Text(two)) => concatenated(one, two, names, heap),
        (Operator::Add, Value::List(one), Value::List(two)) => joined(one, two, heap)?.list(),
        (Operator::Add, Value::Tuple(one), Value::Tuple(two)) => joined(one, two, heap)?.tuple(),
        (Operator::Add, Value::Bytes(one), Value::Bytes(two)) => {
            heap.room(one.bytes.len() + two.bytes.len())?;
            heap.bytes([&*one.bytes, &*two.bytes].concat())
        }
        (Operator::Multiply, value, times) if times.as_index().is_some() => {
            repeated(value, times.as_index().unwrap_or(0), times, heap)
        }
        (Operator::Multiply, times, value) if times.as_index().is_some() => {
            repeated(value, times.as_index().unwrap_or(0), times, heap)
        }
        _ => Err(unsupported(operator, one, two)),
    }
}

fn unsupported(operator: Operator, one: &Value, two: &Value) -> Box<Fault> {
    let sign = match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "** or pow()",
    };
    let (one, two) = (one.type_name(), two.type_name());
    Fault::new(match (operator, one) {
        (Operator::Add, "str" | "list" | "tuple") => {
            format!("can only concatenate {one} (not \"{two}\") to {one}")
        }
        _ => format!("unsupported operand type(s) for {sign}: '{one}' and '{two}'"),
    })
}

fn too_long() -> Box<Fault> {
    Fault::new("an integer of more than 128 bits")
}

fn integers(operator: Operator, one: i128, two: i128) -> Outcome<Value> {
    let by_zero = || Fault::new("division by zero");
    let value = match operator {
        Operator::Add => one.checked_add(two),
        Operator::Subtract => one.checked_sub(two),
        Operator::Multiply => one.checked_mul(two),
        Operator::Divide if two == 0 => return Err(by_zero()),
        Operator::Divide => return Ok(Value::Float(divided(one, two))),
        Operator::FloorDivide | Operator::Modulo if two == 0 => return Err(by_zero()),
        Operator::FloorDivide => one.checked_div_euclid(two).and_then(|quotient| {
            // Towards minus infinity, where Euclid's division leaves a positive rest.
            let rest = one.checked_rem_euclid(two)?;
            if two < 0 && rest != 0 { quotient.checked_sub(1) } else { Some(quotient) }
        }),
        Operator::Modulo => one
            .checked_rem_euclid(two)
            .and_then(|rest| if two < 0 && rest != 0 { rest.checked_add(two) } else { Some(rest) }),
        Operator::Power if two < 0 => return floats(operator, one as f64, two as f64).map(Value::Float),
        Operator::Power => match one {
            0 | 1 => Some(if two == 0 { 1 } else { one }),
            -1 => Some(if two % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(two).ok().and_then(|two| one.checked_pow(two)),
        },
    };
    value.map(Value::Int).ok_or_else(too_long)
}

/// The quotient, rounded once.
pub(super) fn divided(one: i128, two: i128) -> f64 {
    let exact = 1 << 53;
    if one.abs() <= exact && two.abs() <= exact {
        return one as f64 / two as f64;
    }
    let (large, small) = (one.unsigned_abs(), two.unsigned_abs());
    // As many bits as rounding needs and two more, the last of which says whether there is a rest.
    let bits = |value: u128| 128 - value.leading_zeros() as i32;
    let shift = 56 - (bits(large) - bits(small));
    if shift > 0 && bits(large) + shift > 127 {
        return one as f64 / two as f64;
    }
    let large = if shift > 0 { large << shift } else { large };
    let quotient = (large / small) | u128::from(large % small != 0);
    let value = quotient as f64 * 2f64.powi(-shift.max(0));
    if (one < 0) != (two < 0) { -value } else { value }
}

fn floats(operator: Operator, one: f64, two: f64) -> Outcome<f64> {
    let by_zero =
        matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Modulo) && two == 0.0;
    if by_zero || (operator == Operator::Power && one == 0.0 && two < 0.0) {
        return Fault::err("float division by zero");
    }
    Ok(match operator {
        Operator::Add => one + two,
        Operator::Subtract => one - two,
        Operator::Multiply => one * two,
        Operator::Divide => one / two,
        Operator::FloorDivide => floor_divided(one, two).0,
        Operator::Modulo => floor_divided(one, two).1,
        Operator::Power => {
            let power = one.powf(two);
            if power.is_nan() && !one.is_nan() && !two.is_nan() {
                return Fault::err("complex numbers are not known here");
            }
            if power.is_infinite() && one.is_finite() && two.is_finite() {
                return Fault::err("Numerical result out of range");
            }
            power
        }
    })
}

/// The quotient rounded down and the rest, which has the sign of the divisor.
fn floor_divided(one: f64, two: f64) -> (f64, f64) {
    let mut rest = one % two;
    let mut quotient = (one - rest) / two;
    if rest == 0.0 {
        rest = 0f64.copysign(two);
    } else if (two < 0.0) != (rest < 0.0) {
        rest += two;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0f64.copysign(one / two), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

/// Two texts after each other; what is marked safe escapes what is not.
fn concatenated(one: &Text, two: &Text, names: &[Box<str>], heap: &Heap) -> Outcome<Value> {
    let mut out = Buffer::new(heap)?;
    let safe = one.safe || two.safe;
    for part in [one, two] {
        if safe && !part.safe {
            out.push(&escaped(&Value::Text(part.clone()), names, heap)?)?;
        } else {
            out.push(part)?;
        }
    }
    Ok(Value::Text(heap.new_text(out.into_text().into(), safe)?))
}

fn joined(one: &Items, two: &Items, heap: &Heap) -> Outcome<super::value::ItemsBuilder> {
    heap.collected(one.iter().chain(two.iter()).cloned())
}

/// `value * times`.
fn repeated(value: &Value, times: i128, other: &Value, heap: &Heap) -> Outcome<Value> {
    let count = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let items = |items: &Items| -> Outcome<super::value::ItemsBuilder> {
        heap.room(items.len().saturating_mul(count).saturating_mul(16))?;
        let mut all = heap.items()?;
        for _ in 0..if items.is_empty() { 0 } else { count } {
            items.iter().try_for_each(|item| all.push(item.clone()))?;
        }
        Ok(all)
    };
    match value {
        Value::Text(text) => {
            let mut out = Buffer::new(heap)?;
            out.repeat(text, if text.is_empty() { 0 } else { count })?;
            Ok(Value::Text(heap.new_text(out.into_text().into(), text.safe)?))
        }
        Value::Bytes(bytes) => {
            let length = bytes.bytes.len().saturating_mul(count);
            heap.room(length)?;
            heap.read(length)?;
            heap.bytes(bytes.bytes.repeat(if bytes.bytes.is_empty() { 0 } else { count }))
        }
        Value::List(list) => items(list)?.list(),
        Value::Tuple(tuple) => items(tuple)?.tuple(),
        _ => Err(unsupported(Operator::Multiply, value, other)),
    }
}

/// `-value`, or `+value`.
pub(super) fn signed(value: &Value, negative: bool) -> Outcome<Value> {
    match Number::of(value) {
        Some(Number::Int(value)) if negative => value.checked_neg().map(Value::Int).ok_or_else(too_long),
        Some(Number::Int(value)) => Ok(Value::Int(value)),
        Some(Number::Float(value)) => Ok(Value::Float(if negative { -value } else { value })),
        None if value.is_undefined() => Err(undefined_fault(value, value)),
        None => Fault::err(format!("bad operand type for unary operator: '{}'", value.type_name())),
    }
}
