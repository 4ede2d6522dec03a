//! `str.format`, whose fields may reach into values.

use super::arguments::{Given, as_count};
use super::attributes::Found;
use super::execute::Renderer;
use super::format::formatted;
use super::limits::{Buffer, Fault, Outcome, clip};
use super::value::{Text, Value};

impl Renderer<'_> {
    /// `text.format(…)` and `text.format_map(…)`.
    pub(super) fn format_method(&mut self, text: &Text, name: &str, given: Given) -> Outcome<Value> {
        let given = if name == "format_map" {
            let [Some(Value::Dict(dict))] = given.places(name, 1)? else {
                return Fault::err("format_map takes a mapping");
            };
            let mut given = Given::default();
            for (key, value) in dict.entries() {
                if let Value::Text(key) = key {
                    given.name(key, value.clone(), &self.heap)?;
                }
            }
            given
        } else {
            given
        };
        let mut out = Buffer::new(&self.heap)?;
        self.format_into(&mut out, text, &given, &mut 0, 2)?;
        self.heap.built(out)
    }

    /// Writes a format whose fields may have fields in their specifiers, so many levels deep.
    fn format_into(
        &mut self,
        out: &mut Buffer,
        format: &str,
        given: &Given,
        next: &mut i64,
        levels: usize,
    ) -> Outcome<()> {
        if levels == 0 {
            return Fault::err("Max string recursion exceeded");
        }
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            self.heap.step(1)?;
            out.push(rest.get(..at).unwrap_or_default())?;
            let brace = rest.get(at..=at).unwrap_or_default();
            rest = rest.get(at + 1..).unwrap_or_default();
            if let Some(after) = rest.strip_prefix(brace) {
                out.push(brace)?;
                rest = after;
                continue;
            }
            if brace == "}" {
                return Fault::err("Single '}' encountered in format string");
            }
            let end = field_end(rest).ok_or_else(|| Fault::new("expected '}' before end of string"))?;
            let field = rest.get(..end).unwrap_or_default();
            rest = rest.get(end + 1..).unwrap_or_default();
            self.format_field(out, field, given, next, levels)?;
        }
        out.push(rest)
    }

    fn format_field(
        &mut self,
        out: &mut Buffer,
        field: &str,
        given: &Given,
        next: &mut i64,
        levels: usize,
    ) -> Outcome<()> {
        let end = name_end(field);
        let (name, after) = field.split_at(end);
        let (conversion, spec) = match after.strip_prefix('!') {
            Some(after) => {
                let conversion =
                    after.chars().next().ok_or_else(|| Fault::new("unmatched '{' in format spec"))?;
                let rest = after.get(conversion.len_utf8()..).unwrap_or_default();
                if !rest.is_empty() && !rest.starts_with(':') {
                    return Fault::err("expected ':' after conversion specifier");
                }
                (Some(conversion), rest.strip_prefix(':').unwrap_or(""))
            }
            None => (None, after.strip_prefix(':').unwrap_or("")),
        };
        let value = self.field_value(name, given, next)?;
        let mut expanded = Buffer::new(&self.heap)?;
        self.format_into(&mut expanded, spec, given, next, levels - 1)
            .or_else(|fault| if spec.contains(['{', '}']) { Err(fault) } else { expanded.push(spec) })?;
        let spec = expanded.into_text();
        let value = match conversion {
            None => value,
            Some('s') => Value::Text(super::print::to_text(&value, self.names(), &self.heap)?),
            Some('r' | 'a') => {
                let mut repr = Buffer::new(&self.heap)?;
                super::print::write_repr(&mut repr, &value, self.names(), 0)?;
                self.heap.built(repr)?
            }
            Some(other) => return Fault::err(format!("Unknown conversion specifier {other}")),
        };
        let text = formatted(&value, &spec, self.names(), &self.heap)?;
        out.push(&text)
    }

    /// The value of `0.name[key]`.
    fn field_value(&mut self, name: &str, given: &Given, next: &mut i64) -> Outcome<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let is_number = !first.is_empty() && first.chars().all(|char| char.is_ascii_digit());
        let place = match (first.is_empty(), is_number) {
            (true, _) if *next < 0 => {
                return Fault::err(
                    "cannot switch from manual field specification to automatic field numbering",
                );
            }
            (true, _) => {
                *next += 1;
                Some(as_count(i128::from(*next) - 1))
            }
            (_, true) if *next > 0 => {
                return Fault::err(
                    "cannot switch from automatic field numbering to manual field specification",
                );
            }
            (_, true) => {
                *next = -1;
                Some(first.parse().unwrap_or(usize::MAX))
            }
            _ => None,
        };
        let found = match place {
            Some(at) => given.positional.get(at).cloned(),
            None => {
                self.heap.step(given.named.len() / 8)?;
                given.named.iter().find(|(name, _)| **name == *first).map(|(_, value)| value.clone())
            }
        };
        let mut value =
            found.ok_or_else(|| Fault::new(format!("no value for the field '{}'", clip(first))))?;
        while !rest.is_empty() {
            self.heap.step(1)?;
            if let Some(after) = rest.strip_prefix('[') {
                let end = after.find(']').ok_or_else(|| Fault::new("Missing ']' in format string"))?;
                let key = after.get(..end).unwrap_or_default();
                if key.is_empty() {
                    return Fault::err("Empty attribute in format string");
                }
                let key = match key.parse::<i128>() {
                    Ok(number) if key.chars().all(|char| char.is_ascii_digit()) => Value::Int(number),
                    _ => self.heap.text(key)?,
                };
                value = self.item(&value, &key)?;
                rest = after.get(end + 1..).unwrap_or_default();
            } else if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if name.is_empty() {
                    return Fault::err("Empty attribute in format string");
                }
                value = self.named_attribute(&value, name)?;
                rest = after;
            } else {
                return Fault::err("Only '.' or '[' may follow ']' in format field specifier");
            }
        }
        Ok(value)
    }

    /// An attribute of a name that is made while rendering: the attribute first, then the item.
    pub(super) fn named_attribute(&mut self, object: &Value, name: &str) -> Outcome<Value> {
        let missing = Value::Undefined(super::undefined::Undefined::Element(object.type_name()));
        Ok(match self.find_attribute(object, name)? {
            Found::Value(value) => value,
            Found::Method(method) => self.heap.method(object.clone(), method)?,
            Found::Unsafe => missing,
            Found::Missing => match object {
                Value::Dict(dict) => dict.get(&self.heap.text(name)?)?.cloned().unwrap_or(missing),
                _ => missing,
            },
        })
    }
}

/// Where a field ends whose text may have fields of its own.
fn field_end(text: &str) -> Option<usize> {
    let mut open = 0;
    let mut in_brackets = false;
    for (at, char) in text.char_indices() {
        match char {
            '[' if open == 0 => in_brackets = true,
            ']' => in_brackets = false,
            _ if in_brackets => {}
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Where the name of a field ends: at a `!` or `:` outside brackets.
fn name_end(field: &str) -> usize {
    let mut in_brackets = false;
    for (at, char) in field.char_indices() {
        match char {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '!' | ':' if !in_brackets => return at,
            _ => {}
        }
    }
    field.len()
}
