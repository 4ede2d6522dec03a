//! `%` and `str.format`.

use super::compare::Number;
use super::escape::escaped;
use super::limits::{Buffer, Fault, Heap, Outcome};
use super::print::{float, to_text, write_repr};
use super::value::undefined_fault;
use super::value::{Text, Value};

/// The widest field, in characters.
const WIDTH_MAX: usize = 1 << 20;

/// The most digits after the point.
const PRECISION_MAX: usize = 1000;

/// How a value is written into a field.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) fill: char,
    /// `<`, `>`, `^` or `=`.
    pub(super) align: Option<char>,
    /// `+`, `-` or a space.
    pub(super) sign: char,
    pub(super) alternate: bool,
    pub(super) width: usize,
    /// `,` or `_` between groups of digits.
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Spec {
    const PLAIN: Spec = Spec {
        fill: ' ',
        align: None,
        sign: '-',
        alternate: false,
        width: 0,
        grouping: None,
        precision: None,
        kind: None,
    };

    /// Reads `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        let mut spec = Spec::PLAIN;
        let chars: Vec<char> = text.chars().collect();
        let is_align = |char: Option<&char>| char.is_some_and(|char| matches!(char, '<' | '>' | '^' | '='));
        let mut at = 0;
        if is_align(chars.get(1)) {
            spec.fill = chars[0];
            spec.align = chars.get(1).copied();
            at = 2;
        } else if is_align(chars.first()) {
            spec.align = chars.first().copied();
            at = 1;
        }
        if let Some(sign) = chars.get(at).filter(|char| matches!(char, '+' | '-' | ' ')) {
            spec.sign = *sign;
            at += 1;
        }
        if chars.get(at) == Some(&'z') {
            at += 1;
        }
        if chars.get(at) == Some(&'#') {
            spec.alternate = true;
            at += 1;
        }
        if chars.get(at) == Some(&'0') {
            if spec.align.is_none() {
                spec.fill = '0';
                spec.align = Some('=');
            }
            at += 1;
        }
        spec.width = digits(&chars, &mut at, WIDTH_MAX)?.unwrap_or(0);
        if let Some(grouping) = chars.get(at).filter(|char| matches!(char, ',' | '_')) {
            spec.grouping = Some(*grouping);
            at += 1;
        }
        if chars.get(at) == Some(&'.') {
            at += 1;
            match digits(&chars, &mut at, WIDTH_MAX)? {
                Some(precision) => spec.precision = Some(precision),
                None => return Fault::err("Format specifier missing precision"),
            }
        }
        spec.kind = chars.get(at).copied();
        if chars.len() > at + 1 {
            return Fault::err(format!("Invalid format specifier '{text}'"));
        }
        Ok(spec)
    }
}

fn digits(chars: &[char], at: &mut usize, most: usize) -> Outcome<Option<usize>> {
    let start = *at;
    let mut value = 0usize;
    while let Some(digit) = chars.get(*at).and_then(|char| char.to_digit(10)) {
        value = value.saturating_mul(10).saturating_add(digit as usize);
        *at += 1;
    }
    if value > most {
        return Err(Fault::limit(format!("a field of {value} characters, more than {most}")));
    }
    Ok((*at > start).then_some(value))
}

/// `format(value, spec)`.
pub(super) fn formatted(value: &Value, spec: &str, names: &[Box<str>], heap: &Heap) -> Outcome<String> {
    if let Value::Text(text) = value {
        heap.read(text.len())?;
        heap.room(text.len().saturating_mul(3))?;
    }
    heap.room(spec.len().saturating_mul(8))?;
    if spec.is_empty() {
        return Ok(to_text(value, names, heap)?.to_string());
    }
    match value {
        Value::Text(text) => {
            let spec = Spec::parse(spec)?;
            if !matches!(spec.kind, None | Some('s')) {
                return Fault::err(format!(
                    "Unknown format code '{}' for object of type 'str'",
                    spec.kind.unwrap_or(' ')
                ));
            }
            if spec.align == Some('=') && spec.fill != '0'
                || spec.sign != '-'
                || spec.grouping.is_some()
                || spec.alternate
            {
                return Fault::err("this format specifier does not go with a string");
            }
            let align = spec.align.filter(|align| *align != '=');
            let cut: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            Ok(padded(&cut, &Spec { align, ..spec }, '<'))
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => number(value, &Spec::parse(spec)?, heap),
        other => Fault::err(format!("unsupported format string passed to {}.__format__", other.type_name())),
    }
}

/// A text in its field.
fn padded(text: &str, spec: &Spec, default: char) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    let (before, after) = match spec.align.unwrap_or(default) {
        '<' => (0, missing),
        '^' => (missing / 2, missing - missing / 2),
        _ => (missing, 0),
    };
    let fill = |count: usize| spec.fill.to_string().repeat(count);
    format!("{}{text}{}", fill(before), fill(after))
}

fn number(value: &Value, spec: &Spec, heap: &Heap) -> Outcome<String> {
    if !matches!(value, Value::Int(_) | Value::Bool(_))
        || matches!(spec.kind, Some('e' | 'f' | 'g' | 'E' | 'F' | 'G' | '%'))
    {
        // Long expansions take longer than what they write.
        heap.step(64 + spec.precision.unwrap_or(0).min(PRECISION_MAX))?;
    }
    let (negative, prefix, digits) = match (Number::of(value), spec.kind) {
        (Some(Number::Int(value)), None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X')) => {
            if spec.precision.is_some() {
                return Fault::err("Precision not allowed in integer format specifier");
            }
            let size = value.unsigned_abs();
            let (prefix, digits) = match spec.kind {
                Some('b') => ("0b", format!("{size:b}")),
                Some('o') => ("0o", format!("{size:o}")),
                Some('x') => ("0x", format!("{size:x}")),
                Some('X') => ("0X", format!("{size:X}")),
                _ => ("", size.to_string()),
            };
            (value < 0, if spec.alternate { prefix } else { "" }, digits)
        }
        (Some(Number::Int(value)), Some('c')) => {
            let char = u32::try_from(value).ok().and_then(char::from_u32);
            let Some(char) = char else { return Fault::err("%c arg not in range(0x110000)") };
            return Ok(padded(&char.to_string(), spec, '<'));
        }
        (Some(number), kind) => {
            let value = number.to_float();
            let digits = float_digits(value.abs(), kind, spec.precision, spec.alternate)?;
            (value.is_sign_negative() && !value.is_nan(), "", digits)
        }
        (None, _) => return Fault::err("a number is required"),
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, '+') => "+",
        (false, ' ') => " ",
        _ => "",
    };
    let group = if matches!(spec.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
    // Zeros that fill a field are grouped with the digits.
    let zeros = spec.fill == '0' && spec.align == Some('=');
    let room = spec.width.saturating_sub(sign.len() + prefix.len());
    let digits = match spec.grouping {
        Some(separator) => grouped(&digits, separator, group, if zeros { room } else { 0 }),
        None => digits,
    };
    if spec.align == Some('=') {
        let missing = room.saturating_sub(digits.chars().count());
        return Ok(format!("{sign}{prefix}{}{digits}", spec.fill.to_string().repeat(missing)));
    }
    Ok(padded(&format!("{sign}{prefix}{digits}"), spec, '>'))
}

/// The whole part in groups, filled with zeros up to a width.
fn grouped(digits: &str, separator: char, group: usize, width: usize) -> String {
    let end = digits.find(|char: char| !char.is_ascii_hexdigit() || char == 'e').unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut out = Vec::new();
    let mut count = 0;
    let mut push = |char: char, out: &mut Vec<char>| {
        if count > 0 && count % group == 0 {
            out.push(separator);
        }
        out.push(char);
        count += 1;
    };
    whole.chars().rev().for_each(|char| push(char, &mut out));
    while out.len() + rest.len() < width {
        push('0', &mut out);
    }
    let whole: String = out.into_iter().rev().collect();
    whole + rest
}

/// A float that is not negative, as its type says.
fn float_digits(
    value: f64,
    kind: Option<char>,
    precision: Option<usize>,
    alternate: bool,
) -> Outcome<String> {
    let upper = matches!(kind, Some('E' | 'F' | 'G'));
    if precision.is_some_and(|precision| precision > PRECISION_MAX) {
        return Err(Fault::limit(format!("more than {PRECISION_MAX} digits")));
    }
    let text = match kind {
        _ if !value.is_finite() => float(value),
        None if precision.is_none() => float(value),
        None => general(value, precision.unwrap_or(6), alternate, true),
        Some('f' | 'F') => format!("{value:.*}", precision.unwrap_or(6)),
        Some('e' | 'E') => exponential(value, precision.unwrap_or(6)),
        Some('g' | 'G' | 'n') => general(value, precision.unwrap_or(6), alternate, false),
        Some('%') => format!("{:.*}%", precision.unwrap_or(6), value * 100.0),
        Some(kind) => return Fault::err(format!("Unknown format code '{kind}' for object of type 'float'")),
    };
    let text = if kind == Some('%') && !value.is_finite() { text + "%" } else { text };
    let text = match kind {
        Some('f' | 'F' | 'e' | 'E') if alternate && precision == Some(0) => point_added(&text),
        _ => text,
    };
    Ok(if upper { text.to_uppercase() } else { text })
}

fn point_added(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{digits}.e{exponent}"),
        None => format!("{text}."),
    }
}

fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// So many significant digits, with an exponent where the number is very small or large.
fn general(value: f64, precision: usize, alternate: bool, at_least_one: bool) -> String {
    let precision = precision.max(1);
    let text = exponential(value, precision - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let most = if at_least_one { precision as i32 - 1 } else { precision as i32 };
    let plain = (-4..most.max(1)).contains(&exponent) && (exponent < precision as i32);
    let trimmed = |digits: &str| match digits.contains('.') && !alternate {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if plain {
        let after = (precision as i32 - 1 - exponent).max(0) as usize;
        let digits = trimmed(&format!("{value:.after$}"));
        return if at_least_one && !digits.contains('.') { digits + ".0" } else { digits };
    }
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
    format!("{}e{exponent}", trimmed(digits))
}

/// `format % arguments`.
pub(super) fn percent(format: &Text, arguments: &Value, names: &[Box<str>], heap: &Heap) -> Outcome<Value> {
    let mut out = Buffer::new(heap)?;
    let single = [arguments.clone()];
    let values: &[Value] = match arguments {
        Value::Tuple(items) => items,
        _ => &single,
    };
    let mut taken = 0;
    let mut by_name = false;
    let mut rest: &str = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push(before)?;
        heap.step(1)?;
        let mut field = after;
        let mut named = None;
        if let Some(name) = field.strip_prefix('(') {
            let end = name.find(')').ok_or_else(|| Fault::new("incomplete format key"))?;
            let Value::Dict(dict) = arguments else { return Fault::err("format requires a mapping") };
            let key = heap.text(name.get(..end).unwrap_or_default())?;
            let value = dict.get(&key)?.ok_or_else(|| Fault::new(format!("KeyError: '{}'", &name[..end])))?;
            named = Some(value.clone());
            by_name = true;
            field = name.get(end + 1..).unwrap_or_default();
        }
        let mut next = || {
            taken += 1;
            values.get(taken - 1).cloned().ok_or_else(|| Fault::new("not enough arguments for format string"))
        };
        let (spec, after) = percent_spec(field, &mut next)?;
        rest = after;
        if spec.kind == Some('%') {
            out.push("%")?;
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next()?,
        };
        let text = percent_field(&value, &spec, format.safe, names, heap)?;
        out.push(&text)?;
    }
    out.push(rest)?;
    // What has items is a mapping to Python, of which any part may be left.
    let is_mapping = matches!(
        arguments,
        Value::Dict(_)
            | Value::List(_)
            | Value::Range(_)
            | Value::Undefined(_)
            | Value::Bytes(_)
            | Value::Template
    );
    if taken < values.len() && !by_name && !is_mapping {
        return Fault::err("not all arguments converted during string formatting");
    }
    Ok(Value::Text(heap.new_text(out.into_text().into(), format.safe)?))
}

/// Reads flags, width, precision and type; `*` takes an argument.
fn percent_spec<'f>(field: &'f str, next: &mut impl FnMut() -> Outcome<Value>) -> Outcome<(Spec, &'f str)> {
    let mut spec = Spec::PLAIN;
    let flags = field.find(|char| !"#0- +".contains(char)).unwrap_or(field.len());
    let (flags, mut rest) = field.split_at(flags);
    spec.alternate = flags.contains('#');
    spec.sign = if flags.contains('+') {
        '+'
    } else if flags.contains(' ') {
        ' '
    } else {
        '-'
    };
    spec.align = Some('>');
    if flags.contains('0') {
        (spec.fill, spec.align) = ('0', Some('='));
    }
    let mut size = |rest: &mut &'f str| -> Outcome<Option<i128>> {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            return next()?.as_index().map(Some).ok_or_else(|| Fault::new("* wants int"));
        }
        let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        *rest = after;
        Ok((!digits.is_empty()).then(|| digits.parse().unwrap_or(i128::MAX)))
    };
    let width = size(&mut rest)?.unwrap_or(0);
    if flags.contains('-') || width < 0 {
        (spec.fill, spec.align) = (' ', Some('<'));
    }
    let precision = match rest.strip_prefix('.') {
        Some(after) => {
            rest = after;
            Some(size(&mut rest)?.unwrap_or(0).max(0))
        }
        None => None,
    };
    let most = WIDTH_MAX as i128;
    if width.abs() > most || precision.is_some_and(|precision| precision > most) {
        return Err(Fault::limit(format!("a field of more than {WIDTH_MAX} characters")));
    }
    spec.width = width.unsigned_abs() as usize;
    spec.precision = precision.map(|precision| precision as usize);
    let rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let kind = rest.chars().next().ok_or_else(|| Fault::new("incomplete format"))?;
    spec.kind = Some(kind);
    Ok((spec, rest.get(kind.len_utf8()..).unwrap_or_default()))
}

fn percent_field(value: &Value, spec: &Spec, safe: bool, names: &[Box<str>], heap: &Heap) -> Outcome<String> {
    let kind = spec.kind.unwrap_or('s');
    let as_text = |text: String| {
        let cut: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
        let align = if spec.align == Some('<') { Some('<') } else { Some('>') };
        padded(&cut, &Spec { align, fill: ' ', ..spec.clone() }, '>')
    };
    if let Value::Text(text) = value {
        heap.read(text.len())?;
        heap.room(text.len().saturating_mul(3))?;
    }
    match kind {
        's' if safe => Ok(as_text(escaped(value, names, heap)?.to_string())),
        's' => Ok(as_text(to_text(value, names, heap)?.to_string())),
        'r' | 'a' => {
            let mut out = Buffer::new(heap)?;
            write_repr(&mut out, value, names, 0)?;
            Ok(as_text(out.into_text()))
        }
        'c' => {
            let char = match value {
                Value::Text(text) if text.chars_count() == 1 => text.chars().next(),
                other => other.as_index().and_then(|code| char::from_u32(u32::try_from(code).ok()?)),
            };
            Ok(as_text(char.ok_or_else(|| Fault::new("%c requires int or char"))?.to_string()))
        }
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            percent_number(value, spec, kind, heap)
        }
        other => Fault::err(format!("unsupported format character '{other}'")),
    }
}

fn percent_number(value: &Value, spec: &Spec, kind: char, heap: &Heap) -> Outcome<String> {
    let number_of = match (Number::of(value), value) {
        (Some(number), _) => number,
        (None, Value::Undefined(_)) => return Err(undefined_fault(value, value)),
        (None, _) => {
            return Fault::err(format!(
                "%{kind} format: a real number is required, not {}",
                value.type_name()
            ));
        }
    };
    let whole = matches!(kind, 'd' | 'i' | 'u' | 'o' | 'x' | 'X');
    let value = match number_of {
        Number::Float(value) if whole && matches!(kind, 'd' | 'i' | 'u') => {
            if !value.is_finite() || value.abs() > 1e38 {
                return Fault::err("cannot convert float to integer");
            }
            Value::Int(value.trunc() as i128)
        }
        Number::Float(_) if whole => {
            return Fault::err(format!("%{kind} format: an integer is required, not float"));
        }
        Number::Float(value) => Value::Float(value),
        Number::Int(value) if whole => Value::Int(value),
        Number::Int(value) => Value::Float(value as f64),
    };
    let kind = if matches!(kind, 'i' | 'u') { 'd' } else { kind };
    if whole && let (Some(digits), Value::Int(value)) = (spec.precision, &value) {
        // A precision is a least number of digits.
        let plain =
            number(&Value::Int(value.saturating_abs()), &Spec { kind: Some(kind), ..Spec::PLAIN }, heap)?;
        let zeros = "0".repeat(digits.saturating_sub(plain.len()));
        let sign = if *value < 0 {
            "-"
        } else if spec.sign == '-' {
            ""
        } else {
            &spec.sign.to_string()
        };
        return Ok(padded(
            &format!("{sign}{zeros}{plain}"),
            &Spec { fill: ' ', align: spec.align.filter(|align| *align == '<'), ..spec.clone() },
            '>',
        ));
    }
    number(&value, &Spec { kind: Some(kind), ..spec.clone() }, heap)
}
