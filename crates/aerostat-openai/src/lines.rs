//! JSON in lines that every reader takes for one.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// Some readers end a line at these characters, which JSON may hold as they are: Python's `str.splitlines` and Node's
/// `readline` among them.
const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Writes compact JSON with those characters escaped.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(LINE_ENDS) {
            let (before, after) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut chars = after.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Writes a value as JSON without any character that some reader takes for the end of a line.
///
/// # Errors
/// Writing failed.
pub fn write_one_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, OneLine)).map_err(Into::into)
}

/// A value as JSON in one line, whoever reads it.
pub fn one_line(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(LINE_ENDS) {
        return text;
    }
    let mut bytes = Vec::with_capacity(text.len() + 16);
    match write_one_line(&mut bytes, value) {
        Ok(()) => String::from_utf8(bytes).unwrap_or(text),
        // Memory takes all that is written to it.
        Err(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_reader_finds_a_line_end_inside() {
        let value = json!({"a\u{2028}": ["b\u{2029}c\u{85}d\ne", "\u{85}\u{85}", "é"]});
        let text = one_line(&value);
        assert_eq!(text, r#"{"a\u2028":["b\u2029c\u0085d\ne","\u0085\u0085","é"]}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
