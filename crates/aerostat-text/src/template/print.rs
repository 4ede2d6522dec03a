//! `str` and `repr` of values.

use super::characters::is_printable;
use super::limits::{Buffer, Fault, Heap, Outcome, VALUE_DEPTH_MAX};
use super::value::{Function, Text, Value};

/// `str(value)`, as `{{ value }}` writes it.
pub(super) fn write_str(out: &mut Buffer, value: &Value, names: &[Box<str>]) -> Outcome<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Text(text) => out.push(text),
        other => write_repr(out, other, names, 0),
    }
}

/// `str(value)`.
pub(super) fn to_text(value: &Value, names: &[Box<str>], heap: &Heap) -> Outcome<Text> {
    if let Value::Text(text) = value {
        let mut text = text.clone();
        text.safe = false;
        return Ok(text);
    }
    let mut out = Buffer::new(heap)?;
    write_str(&mut out, value, names)?;
    heap.new_text(out.into_text().into(), false)
}

/// `repr(value)`, as it stands inside lists and dicts.
pub(super) fn write_repr(out: &mut Buffer, value: &Value, names: &[Box<str>], depth: u32) -> Outcome<()> {
    if depth > VALUE_DEPTH_MAX {
        return Err(Fault::limit("a value is nested too deeply to be written"));
    }
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(value) => out.push(&value.to_string()),
        Value::Float(value) => out.push(&float(*value)),
        Value::Text(text) if text.safe => {
            out.push("Markup(")?;
            quote(out, text)?;
            out.push(")")
        }
        Value::Text(text) => quote(out, text),
        Value::Bytes(bytes) => quote_bytes(out, &bytes.bytes),
        Value::List(items) => {
            out.push("[")?;
            sequence(out, items, names, depth)?;
            out.push("]")
        }
        Value::Tuple(items) => {
            out.push("(")?;
            sequence(out, items, names, depth)?;
            out.push(if items.len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => entries(out, dict.entries(), names, depth),
        Value::Range(range) if range.step == 1 => {
            out.push(&format!("range({}, {})", range.start, range.stop))
        }
        Value::Range(range) => out.push(&format!("range({}, {}, {})", range.start, range.stop, range.step)),
        Value::View(kind, dict) => {
            out.push(value.type_name())?;
            out.push("([")?;
            for (at, entry) in dict.entries().iter().enumerate() {
                out.push(if at > 0 { ", " } else { "" })?;
                let item = super::compare::view_item(*kind, entry, &out.heap())?;
                write_repr(out, &item, names, depth + 1)?;
            }
            out.push("])")
        }
        Value::Namespace(namespace) => {
            let attributes = namespace.attributes.borrow();
            out.push("<Namespace ")?;
            entries(out, attributes.entries(), names, depth)?;
            out.push(">")
        }
        Value::Loop(state) => out.push(&state.describe()),
        Value::Macro(_) => out.push("<Macro>"),
        Value::Template => out.push("<TemplateReference None>"),
        Value::Function(Function::Namespace) => out.push("<class 'TemplateNamespace'>"),
        other => out.push(&format!("<{} object>", other.type_name())),
    }
}

/// Bytes in quotes.
fn quote_bytes(out: &mut Buffer, bytes: &[u8]) -> Outcome<()> {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    out.push("b")?;
    out.push_char(quote)?;
    for byte in bytes {
        match char::from(*byte) {
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\\' => out.push("\\\\")?,
            char if char == quote => {
                out.push("\\")?;
                out.push_char(char)?;
            }
            char @ ' '..='~' => out.push_char(char)?,
            _ => out.push(&format!("\\x{byte:02x}"))?,
        }
    }
    out.push_char(quote)
}

fn sequence(out: &mut Buffer, items: &[Value], names: &[Box<str>], depth: u32) -> Outcome<()> {
    for (at, item) in items.iter().enumerate() {
        out.push(if at > 0 { ", " } else { "" })?;
        write_repr(out, item, names, depth + 1)?;
    }
    Ok(())
}

fn entries(out: &mut Buffer, entries: &[(Value, Value)], names: &[Box<str>], depth: u32) -> Outcome<()> {
    out.push("{")?;
    for (at, (key, value)) in entries.iter().enumerate() {
        out.push(if at > 0 { ", " } else { "" })?;
        write_repr(out, key, names, depth + 1)?;
        out.push(": ")?;
        write_repr(out, value, names, depth + 1)?;
    }
    out.push("}")
}

/// A string in quotes: single ones, unless it has those and no double ones.
pub(super) fn quote(out: &mut Buffer, text: &str) -> Outcome<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    let mut rest = text;
    while let Some(at) = rest.find(|char| char == quote || char == '\\' || !is_printable(char)) {
        let (plain, odd) = rest.split_at(at);
        out.push(plain)?;
        let Some(char) = odd.chars().next() else { break };
        rest = odd.get(char.len_utf8()..).unwrap_or_default();
        match char {
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\\' => out.push("\\\\")?,
            _ if char == quote => {
                out.push("\\")?;
                out.push_char(char)?;
            }
            _ => match u32::from(char) {
                number @ ..0x100 => out.push(&format!("\\x{number:02x}"))?,
                number @ ..0x10000 => out.push(&format!("\\u{number:04x}"))?,
                number => out.push(&format!("\\U{number:08x}"))?,
            },
        }
    }
    out.push(rest)?;
    out.push_char(quote)
}

/// A float as Python writes it: the shortest digits that give it back.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // Rust changes to exponents where Python does, but writes 1e16 and 1e-5 for 1e+16 and 1e-05.
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) =
                exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}
