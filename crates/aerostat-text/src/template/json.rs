//! The filter `tojson` of `transformers`, which is `json.dumps` with `ensure_ascii` off; values from JSON.

use super::compare::order;
use super::limits::{Buffer, Fault, Heap, Outcome, VALUE_DEPTH_MAX};
use super::print::float;
use super::sort::sorted_by;
use super::value::{Dict, Value};

/// How JSON is written.
#[derive(Debug, Default)]
pub(super) struct Style {
    pub(super) indent: Option<String>,
    pub(super) comma: String,
    pub(super) colon: String,
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
}

/// Writes a value.
pub(super) fn write(out: &mut Buffer, value: &Value, style: &Style, depth: u32) -> Outcome<()> {
    if depth > VALUE_DEPTH_MAX {
        return Err(Fault::limit("a value is nested too deeply to be written"));
    }
    match value {
        Value::None => out.push("null"),
        Value::Bool(true) => out.push("true"),
        Value::Bool(false) => out.push("false"),
        Value::Int(value) => out.push(&value.to_string()),
        Value::Float(value) => out.push(&number(*value)),
        Value::Text(text) => string(out, text, style.ensure_ascii),
        Value::List(items) | Value::Tuple(items) => {
            out.push("[")?;
            for (at, item) in items.iter().enumerate() {
                separate(out, style, at, depth)?;
                write(out, item, style, depth + 1)?;
            }
            close(out, style, items.is_empty(), depth, "]")
        }
        Value::Dict(dict) => object(out, dict, style, depth),
        other => Fault::err(format!("Object of type {} is not JSON serializable", other.type_name())),
    }
}

fn object(out: &mut Buffer, dict: &Dict, style: &Style, depth: u32) -> Outcome<()> {
    let heap = out.heap();
    let mut entries: Vec<&(Value, Value)> = dict.entries().iter().collect();
    heap.step(entries.len())?;
    if style.sort_keys {
        entries = sorted_by(entries, |one, two| order(&one.0, &two.0, "<", &heap))?;
    }
    out.push("{")?;
    for (at, (key, value)) in entries.into_iter().enumerate() {
        separate(out, style, at, depth)?;
        match key {
            Value::Text(text) => string(out, text, style.ensure_ascii)?,
            Value::None => out.push("\"null\"")?,
            Value::Bool(value) => out.push(if *value { "\"true\"" } else { "\"false\"" })?,
            Value::Int(value) => out.push(&format!("\"{value}\""))?,
            Value::Float(value) => out.push(&format!("\"{}\"", number(*value)))?,
            other => {
                return Fault::err(format!(
                    "keys must be str, int, float, bool or None, not {}",
                    other.type_name()
                ));
            }
        }
        out.push(&style.colon)?;
        write(out, value, style, depth + 1)?;
    }
    close(out, style, dict.entries().is_empty(), depth, "}")
}

/// What stands before an item.
fn separate(out: &mut Buffer, style: &Style, at: usize, depth: u32) -> Outcome<()> {
    if at > 0 {
        out.push(&style.comma)?;
    }
    line(out, style, depth + 1)
}

fn close(out: &mut Buffer, style: &Style, is_empty: bool, depth: u32, bracket: &str) -> Outcome<()> {
    if !is_empty {
        line(out, style, depth)?;
    }
    out.push(bracket)
}

/// Begins a line, where lines are asked for.
fn line(out: &mut Buffer, style: &Style, depth: u32) -> Outcome<()> {
    match &style.indent {
        Some(indent) => {
            out.push("\n")?;
            out.repeat(indent, depth as usize)
        }
        None => Ok(()),
    }
}

fn number(value: f64) -> String {
    match float(value).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        text => text.to_owned(),
    }
}

fn string(out: &mut Buffer, text: &str, ensure_ascii: bool) -> Outcome<()> {
    let is_odd = |char: char| {
        matches!(char, '"' | '\\' | '\0'..='\u{1f}')
            || (ensure_ascii && (!char.is_ascii() || char == '\u{7f}'))
    };
    out.push("\"")?;
    let mut rest = text;
    while let Some(at) = rest.find(is_odd) {
        let (plain, odd) = rest.split_at(at);
        out.push(plain)?;
        let Some(char) = odd.chars().next() else { break };
        rest = odd.get(char.len_utf8()..).unwrap_or_default();
        match char {
            '"' => out.push("\\\"")?,
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\u{8}' => out.push("\\b")?,
            '\u{c}' => out.push("\\f")?,
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    out.push(&format!("\\u{unit:04x}"))?;
                }
            }
        }
    }
    out.push(rest)?;
    out.push("\"")
}

/// A value from JSON.
pub(super) fn read(json: &serde_json::Value, heap: &Heap) -> Outcome<Value> {
    heap.step(1)?;
    match json {
        serde_json::Value::Null => Ok(Value::None),
        serde_json::Value::Bool(value) => Ok(Value::Bool(*value)),
        serde_json::Value::Number(number) => Ok(match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value.into()),
            (None, Some(value)) => Value::Int(value.into()),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        }),
        serde_json::Value::String(text) => heap.text(text.as_str()),
        serde_json::Value::Array(values) => {
            let mut items = heap.items()?;
            for value in values {
                items.push(read(value, heap)?)?;
            }
            items.list()
        }
        serde_json::Value::Object(entries) => {
            let mut dict = Dict::new(heap)?;
            for (key, value) in entries {
                dict.insert(heap.text(key.as_str())?, read(value, heap)?)?;
            }
            Ok(Value::Dict(dict.into()))
        }
    }
}
