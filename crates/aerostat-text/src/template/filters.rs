//! Filters: which there are, and those that need no file of their own.

use super::arguments::{Given, flag};
use super::attributes::Found;
use super::execute::Renderer;
use super::json::{self, Style};
use super::limits::{Buffer, Fault, Outcome};
use super::print::{to_text, write_repr};
use super::undefined::Undefined;
use super::value::undefined_fault;
use super::value::{Text, Value, View, marked};

impl Renderer<'_> {
    /// Applies a filter.
    pub(super) fn filter(&mut self, name: &str, value: Value, given: Given) -> Outcome<Value> {
        self.heap.step(1)?;
        match name {
            "default" | "d" => {
                let [default, boolean] = given.bind(name, ["default_value", "boolean"], 0)?;
                let absent = value.is_undefined() || (flag(&boolean, false) && !value.is_true());
                match (absent, default) {
                    (false, _) => Ok(value),
                    (true, Some(default)) => Ok(default),
                    (true, None) => self.heap.text(""),
                }
            }
            "length" | "count" => {
                let [] = given.bind(name, [], 0)?;
                self.length(&value).map(Value::Int)
            }
            "string" => {
                let [] = given.bind(name, [], 0)?;
                self.soft_text(&value).map(Value::Text)
            }
            "tojson" => self.to_json(&value, given),
            "safe" => {
                let [] = given.bind(name, [], 0)?;
                let text = to_text(&value, self.names(), &self.heap)?;
                Ok(marked(Value::Text(text), true))
            }
            "attr" => {
                let [name] = given.bind(name, ["name"], 1)?;
                self.attr(&value, &name.unwrap_or(Value::None))
            }
            "items" => {
                let [] = given.bind(name, [], 0)?;
                self.items_filter(&value)
            }
            "pprint" => {
                let [] = given.bind(name, [], 0)?;
                let mut out = Buffer::new(&self.heap)?;
                self.pretty(&mut out, &value, 0, 0, 0)?;
                self.heap.built(out)
            }
            "random" => {
                let [] = given.bind(name, [], 0)?;
                self.random(&value)
            }
            "abs" | "round" | "int" | "float" | "filesizeformat" => self.number_filter(name, &value, given),
            "escape" | "e" | "forceescape" | "striptags" | "urlencode" | "urlize" | "xmlattr" => {
                self.html_filter(name, &value, given)
            }
            "first" | "last" | "list" | "reverse" | "join" | "sum" | "batch" | "slice" => {
                self.list_filter(name, &value, given)
            }
            "sort" | "unique" | "min" | "max" | "groupby" | "dictsort" => {
                self.order_filter(name, &value, given)
            }
            "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
                self.choice_filter(name, &value, given)
            }
            _ if super::names::FILTERS.contains(&name) => self.text_filter(name, &value, given),
            _ => Fault::err(format!("No filter named '{name}' found.")),
        }
    }

    /// `len(value)`.
    pub(super) fn length(&mut self, value: &Value) -> Outcome<i128> {
        Ok(match value {
            Value::Undefined(_) => 0,
            Value::Text(text) => text.chars_count() as i128,
            Value::Bytes(bytes) => bytes.bytes.len() as i128,
            Value::List(items) | Value::Tuple(items) => items.len() as i128,
            Value::Dict(dict) | Value::View(_, dict) => dict.entries().len() as i128,
            Value::Range(range) => range.len() as i128,
            Value::Loop(state) => {
                let state = state.clone();
                return self.loop_length(&state);
            }
            other => return Fault::err(format!("object of type '{}' has no len()", other.type_name())),
        })
    }

    /// Any item: the first, since a prompt must be the same every time.
    fn random(&mut self, value: &Value) -> Outcome<Value> {
        if self.length(value)? == 0 {
            return Ok(Value::Undefined(Undefined::Hint("No random item, sequence was empty.")));
        }
        match value {
            Value::Dict(_) | Value::View(..) => {
                Fault::err(format!("'{}' object is not subscriptable", value.type_name()))
            }
            _ => self.item(value, &Value::Int(0)),
        }
    }

    /// A text as it is, marked or not; anything else as `str` writes it.
    pub(super) fn soft_text(&self, value: &Value) -> Outcome<Text> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            other => to_text(other, self.names(), &self.heap),
        }
    }

    fn attr(&mut self, object: &Value, name: &Value) -> Outcome<Value> {
        if object.is_undefined() {
            return Err(undefined_fault(object, object));
        }
        let Value::Text(name) = name else {
            return Fault::err(format!("attribute name must be string, not '{}'", name.type_name()));
        };
        Ok(match self.find_attribute(object, name)? {
            Found::Value(value) => value,
            Found::Method(method) => self.heap.method(object.clone(), method)?,
            Found::Unsafe | Found::Missing => Value::Undefined(Undefined::Element(object.type_name())),
        })
    }

    fn items_filter(&self, value: &Value) -> Outcome<Value> {
        let mut items = self.heap.items()?;
        let mut fault = None;
        match value {
            Value::Undefined(_) => {}
            Value::Dict(dict) => {
                for entry in dict.entries() {
                    items.push(super::compare::view_item(View::Items, entry, &self.heap)?)?;
                }
            }
            _ => fault = Some(Fault::new("Can only get item pairs from a mapping.")),
        }
        items.iterator("generator", fault)
    }

    fn to_json(&self, value: &Value, given: Given) -> Outcome<Value> {
        let parameters = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ensure_ascii, indent, separators, sort_keys] = given.bind("tojson", parameters, 0)?;
        let indent = match indent {
            None | Some(Value::None) => None,
            // A text alone has no lines to indent.
            Some(_) if matches!(value, Value::Text(_)) => None,
            Some(Value::Text(text)) => {
                self.heap.room(text.len())?;
                self.heap.read(text.len())?;
                Some(text.to_string())
            }
            Some(other) => {
                let width = super::arguments::as_count(super::arguments::as_integer(&other)?);
                self.heap.room(width)?;
                self.heap.read(width)?;
                Some(" ".repeat(width))
            }
        };
        let (comma, colon) = match &separators {
            None | Some(Value::None) => {
                (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
            }
            Some(Value::List(items) | Value::Tuple(items)) => match &***items {
                [Value::Text(comma), Value::Text(colon)] => {
                    self.heap.room(comma.len() + colon.len())?;
                    self.heap.read(comma.len() + colon.len())?;
                    (comma.to_string(), colon.to_string())
                }
                _ => return Fault::err("separators must be two strings"),
            },
            Some(_) => return Fault::err("separators must be two strings"),
        };
        let (ensure_ascii, sort_keys) = (flag(&ensure_ascii, false), flag(&sort_keys, false));
        let style = Style { indent, comma, colon, ensure_ascii, sort_keys };
        let mut out = Buffer::new(&self.heap)?;
        json::write(&mut out, value, &style, 0)?;
        self.heap.built(out)
    }

    /// `pprint.pformat`: on one line if that has room for it, else an item a line.
    fn pretty(
        &self,
        out: &mut Buffer,
        value: &Value,
        indent: usize,
        after: usize,
        depth: u32,
    ) -> Outcome<()> {
        const WIDTH: usize = 80;
        let mut repr = Buffer::new(&self.heap)?;
        self.sorted_repr(&mut repr, value, depth)?;
        let line = repr.into_text();
        if line.chars().count() <= WIDTH.saturating_sub(indent + after) {
            return out.push(&line);
        }
        let (open, close, items): (&str, &str, &[Value]) = match value {
            Value::List(items) => ("[", "]", items),
            Value::Tuple(items) if items.len() == 1 => ("(", ",)", items),
            Value::Tuple(items) => ("(", ")", items),
            Value::Dict(dict) => {
                let entries = self.sorted_entries(dict.entries())?;
                out.push("{")?;
                for (at, (key, value)) in entries.iter().enumerate() {
                    let mut repr = Buffer::new(&self.heap)?;
                    self.sorted_repr(&mut repr, key, depth + 1)?;
                    let key = repr.into_text();
                    if at > 0 {
                        out.push(",\n")?;
                        out.repeat(" ", indent + 1)?;
                    }
                    out.push(&key)?;
                    out.push(": ")?;
                    let after = if at + 1 == entries.len() { after + 1 } else { 1 };
                    self.pretty(out, value, indent + key.chars().count() + 3, after, depth + 1)?;
                }
                return out.push("}");
            }
            Value::Text(_) => return self.pretty_text(out, value, &line, indent, after, depth),
            _ => return out.push(&line),
        };
        out.push(open)?;
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push(",\n")?;
                out.repeat(" ", indent + 1)?;
            }
            let after = if at + 1 == items.len() { after + close.len() } else { 1 };
            self.pretty(out, item, indent + 1, after, depth + 1)?;
        }
        out.push(close)
    }

    /// A long text in pieces that end with words.
    fn pretty_text(
        &self,
        out: &mut Buffer,
        value: &Value,
        line: &str,
        indent: usize,
        after: usize,
        depth: u32,
    ) -> Outcome<()> {
        let Value::Text(text) = value else { return out.push(line) };
        let (indent, after) = if depth == 0 { (indent + 1, after + 1) } else { (indent, after) };
        let width = 80usize.saturating_sub(indent);
        let mut pieces: Vec<String> = Vec::new();
        let lines: Vec<&str> = super::methods_text::split_lines(text, true).collect();
        let quoted = |text: &str| -> Outcome<String> {
            let mut out = Buffer::new(&self.heap)?;
            super::print::quote(&mut out, text)?;
            Ok(out.into_text())
        };
        for (at, line) in lines.iter().enumerate() {
            let is_last = at + 1 == lines.len();
            let room = if is_last { width.saturating_sub(after) } else { width };
            let whole = quoted(line)?;
            if whole.chars().count() <= room {
                pieces.push(whole);
                continue;
            }
            // Words with the whitespace after them.
            let mut parts: Vec<&str> = Vec::new();
            let mut rest = *line;
            while !rest.is_empty() {
                let word = rest.find(super::characters::is_space).unwrap_or(rest.len());
                let gap = rest.get(word..).unwrap_or_default();
                let end = word + gap.find(|char| !super::characters::is_space(char)).unwrap_or(gap.len());
                parts.push(rest.get(..end).unwrap_or_default());
                rest = rest.get(end..).unwrap_or_default();
            }
            let mut current = String::new();
            for (at, part) in parts.iter().enumerate() {
                let candidate = format!("{current}{part}");
                let room = if is_last && at + 1 == parts.len() { width.saturating_sub(after) } else { width };
                self.heap.read(candidate.len())?;
                if quoted(&candidate)?.chars().count() > room {
                    if !current.is_empty() {
                        pieces.push(quoted(&current)?);
                    }
                    current = (*part).to_owned();
                } else {
                    current = candidate;
                }
            }
            if !current.is_empty() {
                pieces.push(quoted(&current)?);
            }
        }
        if pieces.len() == 1 {
            return out.push(line);
        }
        out.push(if depth == 0 { "(" } else { "" })?;
        for (at, piece) in pieces.iter().enumerate() {
            if at > 0 {
                out.push("\n")?;
                out.repeat(" ", indent)?;
            }
            out.push(piece)?;
        }
        out.push(if depth == 0 { ")" } else { "" })
    }

    /// Entries in the order of their keys, as far as those can be compared.
    fn sorted_entries(&self, entries: &[(Value, Value)]) -> Outcome<Vec<(Value, Value)>> {
        self.heap.step(entries.len())?;
        super::sort::sorted_by(entries.to_vec(), |one, two| {
            match super::compare::order(&one.0, &two.0, "<", &self.heap) {
                Err(fault) if !fault.limit => Ok(Some(one.0.type_name().cmp(two.0.type_name()))),
                found => found,
            }
        })
    }

    fn sorted_repr(&self, out: &mut Buffer, value: &Value, depth: u32) -> Outcome<()> {
        let sequence = |out: &mut Buffer, items: &[Value]| -> Outcome<()> {
            for (at, item) in items.iter().enumerate() {
                out.push(if at > 0 { ", " } else { "" })?;
                self.sorted_repr(out, item, depth + 1)?;
            }
            Ok(())
        };
        match value {
            Value::Dict(dict) => {
                out.push("{")?;
                for (at, (key, value)) in self.sorted_entries(dict.entries())?.iter().enumerate() {
                    out.push(if at > 0 { ", " } else { "" })?;
                    self.sorted_repr(out, key, depth + 1)?;
                    out.push(": ")?;
                    self.sorted_repr(out, value, depth + 1)?;
                }
                out.push("}")
            }
            Value::List(items) => {
                out.push("[")?;
                sequence(out, items)?;
                out.push("]")
            }
            Value::Tuple(items) => {
                out.push("(")?;
                sequence(out, items)?;
                out.push(if items.len() == 1 { ",)" } else { ")" })
            }
            other => write_repr(out, other, self.names(), depth),
        }
    }
}
