//! Markup: text that is safe in HTML.

use super::limits::{Buffer, Heap, Outcome};
use super::print::to_text;
use super::value::{Text, Value};

/// A value as text in which HTML's characters are escaped; what is marked safe stays as it is.
pub(super) fn escaped(value: &Value, names: &[Box<str>], heap: &Heap) -> Outcome<Text> {
    if let Value::Text(text) = value
        && text.safe
    {
        return Ok(text.clone());
    }
    let text = to_text(value, names, heap)?;
    heap.new_text(escape_text(&text, heap)?.into(), true)
}

/// A text with its characters escaped.
pub(super) fn escape_text(text: &str, heap: &Heap) -> Outcome<String> {
    let mut out = Buffer::new(heap)?;
    for part in text.split_inclusive(['&', '<', '>', '\'', '"']) {
        let last = part.chars().next_back();
        let entity = match last {
            Some('&') => "&amp;",
            Some('<') => "&lt;",
            Some('>') => "&gt;",
            Some('\'') => "&#39;",
            Some('"') => "&#34;",
            _ => {
                out.push(part)?;
                continue;
            }
        };
        out.push(part.get(..part.len() - 1).unwrap_or_default())?;
        out.push(entity)?;
    }
    Ok(out.into_text())
}

/// The text without comments and tags, its whitespace single, its entities resolved.
pub(super) fn strip_tags(text: &str, heap: &Heap) -> Outcome<Value> {
    heap.read(text.len())?;
    heap.room(text.len().saturating_mul(12))?;
    let bare = without(&without(text, "<!--", "-->"), "<", ">");
    let words: Vec<&str> = bare.split(super::characters::is_space).filter(|word| !word.is_empty()).collect();
    heap.text(unescape(&words.join(" ")))
}

/// The text without what stands between these.
fn without(text: &str, open: &str, close: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let Some(length) = rest.get(start..).and_then(|tag| tag.find(close)) else { break };
        out.push_str(rest.get(..start).unwrap_or_default());
        rest = rest.get(start + length + close.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Entities by number, and the commonest by name.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        // No name that is known is longer than ten characters.
        let end = after.bytes().take(12).position(|byte| byte == b';');
        let entity = end.and_then(|end| Some((named(after.get(..end)?)?, after.get(end + 1..)?)));
        match entity {
            Some((char, after)) => {
                out.push(char);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn named(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let number = match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(number);
    }
    let found = [
        ("amp", '&'),
        ("lt", '<'),
        ("gt", '>'),
        ("quot", '"'),
        ("apos", '\''),
        ("nbsp", '\u{a0}'),
        ("copy", '©'),
        ("reg", '®'),
        ("hellip", '…'),
        ("mdash", '—'),
        ("ndash", '–'),
        ("euro", '€'),
    ];
    found.into_iter().find(|(other, _)| *other == name).map(|(_, char)| char)
}
