//! Methods of text.

use super::arguments::{Given, as_count, flag, integer};
use super::characters::{self, is_cased, is_line_end, is_printable, is_space, to_title};
use super::escape::{escaped, strip_tags, unescape};
use super::execute::Renderer;
use super::limits::{Buffer, Fault, Outcome};
use super::loops::Pull;
use super::value::{Text, Value};

impl Renderer<'_> {
    /// Calls a method of a text. What marked texts give is marked again.
    pub(super) fn text_method(
        &mut self,
        text: &Text,
        name: &'static str,
        mut given: Given,
    ) -> Outcome<Value> {
        let by_character =
            matches!(name, "lower" | "casefold" | "upper" | "capitalize" | "title" | "swapcase");
        if by_character || name.starts_with("is") {
            self.heap.look_up(text)?;
        } else {
            self.heap.read(text.len())?;
        }
        self.heap.room(text.len().saturating_mul(3))?;
        if text.safe
            && matches!(name, "join" | "replace" | "format" | "ljust" | "rjust" | "center" | "partition")
        {
            for value in given.positional.iter_mut().chain(given.named.iter_mut().map(|(_, value)| value)) {
                if let Value::Text(_) = value {
                    *value = Value::Text(escaped(value, self.names(), &self.heap)?);
                }
            }
        }
        let value = match name {
            "format" | "format_map" => self.format_method(text, name, given)?,
            "split" | "rsplit" | "splitlines" | "partition" | "rpartition" => {
                self.splitting(text, name, given)?
            }
            "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith" => {
                return self.searching(text, name, given);
            }
            _ if name.starts_with("is") => {
                let [] = given.places(name, 0)?;
                return Ok(Value::Bool(classified(text, name)));
            }
            "join" => {
                let [values] = given.places(name, 1)?;
                self.join_method(text, &values.unwrap_or(Value::None))?
            }
            "strip" | "lstrip" | "rstrip" => {
                let [set] = given.places(name, 0)?;
                self.heap.read(self.set_bytes(set.as_ref())?)?;
                self.heap.text(stripped(text, set.as_ref(), name)?)?
            }
            "removeprefix" | "removesuffix" => {
                let [affix] = given.places(name, 1)?;
                let affix = as_text(affix.as_ref())?;
                let rest = if name == "removeprefix" {
                    text.strip_prefix(&**affix)
                } else {
                    text.strip_suffix(&**affix)
                };
                self.heap.text(rest.unwrap_or(text))?
            }
            "replace" => {
                let [old, new, count] = given.places(name, 2)?;
                let count = integer(&count, -1)?;
                self.replaced(text, as_text(old.as_ref())?, as_text(new.as_ref())?, count)?
            }
            "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => self.padding(text, name, given)?,
            _ => self.changing(text, name, given)?,
        };
        Ok(if text.safe { safe_again(value, &self.heap)? } else { value })
    }

    fn changing(&mut self, text: &Text, name: &str, given: Given) -> Outcome<Value> {
        if name == "encode" {
            let [encoding, _] = given.bind(name, ["encoding", "errors"], 0)?;
            return self.heap.bytes(Encoding::of(encoding.as_ref())?.encode(text)?);
        }
        if matches!(name, "translate" | "maketrans") {
            return Fault::err(format!("str.{name} is not known here"));
        }
        let [] = given.places(name, 0)?;
        match name {
            "lower" | "casefold" if text.is_ascii() => self.heap.text(text.to_ascii_lowercase()),
            "lower" => self.heap.text(characters::lower(text)),
            "casefold" => self.heap.text(characters::folded(text)),
            "upper" => self.heap.text(text.to_uppercase()),
            "capitalize" => self.heap.text(capitalized(text)),
            "title" => self.heap.text(titled(text)),
            "swapcase" => {
                let mut out = String::with_capacity(text.len());
                for char in text.chars() {
                    match char {
                        _ if char.is_uppercase() => out.extend(char.to_lowercase()),
                        _ if char.is_lowercase() => out.extend(char.to_uppercase()),
                        _ => out.push(char),
                    }
                }
                self.heap.text(out)
            }
            "striptags" => strip_tags(text, &self.heap),
            "unescape" => self.heap.text(unescape(text)),
            _ => Fault::err(format!("str.{name} is not known here")),
        }
    }

    /// `text.replace(old, new, count)`; a negative count is none.
    pub(super) fn replaced(&mut self, text: &str, old: &str, new: &str, count: i128) -> Outcome<Value> {
        let mut out = Buffer::new(&self.heap)?;
        let mut left = if count < 0 { usize::MAX } else { as_count(count) };
        let mut rest = text;
        if old.is_empty() {
            for char in text.chars() {
                if left > 0 {
                    out.push(new)?;
                    left -= 1;
                }
                out.push_char(char)?;
            }
            if left > 0 {
                out.push(new)?;
            }
            return self.heap.built(out);
        }
        while left > 0
            && let Some((before, after)) = rest.split_once(old)
        {
            out.push(before)?;
            out.push(new)?;
            rest = after;
            left -= 1;
        }
        out.push(rest)?;
        self.heap.built(out)
    }

    /// What looking through a set of characters takes, which is sorted first.
    pub(super) fn set_bytes(&self, set: Option<&Value>) -> Outcome<usize> {
        let bytes = set.and_then(Value::as_text).map_or(0, |set| set.len().saturating_mul(8));
        self.heap.room(bytes)?;
        Ok(bytes)
    }

    fn join_method(&mut self, text: &Text, values: &Value) -> Outcome<Value> {
        let mut pull = Pull::new(values).map_err(|_| Fault::new("can only join an iterable"))?;
        let mut out = Buffer::new(&self.heap)?;
        let mut first = true;
        while let Some(value) = pull.next(&self.heap)? {
            if !std::mem::replace(&mut first, false) {
                out.push(text)?;
            }
            match &value {
                value if text.safe => out.push(&escaped(value, self.names(), &self.heap)?)?,
                Value::Text(part) => out.push(part)?,
                other => {
                    return Fault::err(format!(
                        "sequence item: expected str instance, {} found",
                        other.type_name()
                    ));
                }
            }
        }
        self.heap.built(out)
    }

    fn padding(&mut self, text: &Text, name: &str, given: Given) -> Outcome<Value> {
        let mut out = Buffer::new(&self.heap)?;
        if name == "expandtabs" {
            let [size] = given.bind(name, ["tabsize"], 0)?;
            let size = as_count(integer(&size, 8)?);
            let mut column = 0;
            for char in text.chars() {
                match char {
                    '\t' if size > 0 => {
                        let spaces = size - column % size;
                        out.repeat(" ", spaces)?;
                        column += spaces;
                    }
                    '\t' => {}
                    _ => {
                        out.push_char(char)?;
                        column = if matches!(char, '\n' | '\r') { 0 } else { column + 1 };
                    }
                }
            }
            return self.heap.built(out);
        }
        let [width, fill] = given.places(name, 1)?;
        let missing = as_count(integer(&width, 0)?).saturating_sub(text.chars_count());
        let fill = match &fill {
            None => " ",
            Some(Value::Text(fill)) if fill.chars_count() == 1 && name != "zfill" => fill,
            Some(_) => return Fault::err("The fill character must be exactly one character long"),
        };
        let after_sign = usize::from(text.starts_with(['+', '-']));
        match name {
            "zfill" => {
                out.push(text.get(..after_sign).unwrap_or_default())?;
                out.repeat("0", missing)?;
                out.push(text.get(after_sign..).unwrap_or_default())?;
            }
            "ljust" => {
                out.push(text)?;
                out.repeat(fill, missing)?;
            }
            "rjust" => {
                out.repeat(fill, missing)?;
                out.push(text)?;
            }
            _ => {
                // Of an odd rest, the left side takes more where the width is odd.
                let width = missing.saturating_add(text.chars_count());
                let left = missing / 2 + (missing & width & 1);
                out.repeat(fill, left)?;
                out.push(text)?;
                out.repeat(fill, missing - left)?;
            }
        }
        self.heap.built(out)
    }

    fn splitting(&mut self, text: &Text, name: &str, given: Given) -> Outcome<Value> {
        if name == "splitlines" {
            let [keep] = given.bind(name, ["keepends"], 0)?;
            let mut items = self.heap.items()?;
            for line in split_lines(text, flag(&keep, false)) {
                items.push(self.heap.text(line)?)?;
            }
            return items.list();
        }
        if name.ends_with("partition") {
            let [separator] = given.places(name, 1)?;
            let separator = as_text(separator.as_ref())?;
            if separator.is_empty() {
                return Fault::err("empty separator");
            }
            let whole: &str = text;
            let parts = match name {
                "partition" => whole.split_once(&**separator),
                _ => whole.rsplit_once(&**separator),
            };
            let parts = match (parts, name) {
                (Some((before, after)), _) => [before, separator, after],
                (None, "partition") => [whole, "", ""],
                (None, _) => ["", "", whole],
            };
            let mut items = self.heap.items()?;
            for part in parts {
                items.push(self.heap.text(part)?)?;
            }
            return items.tuple();
        }
        let [separator, most] = given.bind(name, ["sep", "maxsplit"], 0)?;
        let most = integer(&most, -1)?;
        let most = if most < 0 { usize::MAX } else { as_count(most) };
        let pieces: Box<dyn Iterator<Item = &str>> = match &separator {
            None | Some(Value::None) if name == "split" => Box::new(words(text, most)),
            None | Some(Value::None) => Box::new(words_from_end(text, most)),
            Some(Value::Text(separator)) if separator.is_empty() => return Fault::err("empty separator"),
            Some(Value::Text(separator)) if name == "split" => {
                Box::new(text.splitn(most.saturating_add(1), &**separator))
            }
            Some(Value::Text(separator)) => Box::new(text.rsplitn(most.saturating_add(1), &**separator)),
            Some(other) => return Fault::err(format!("must be str or None, not {}", other.type_name())),
        };
        let mut items = self.heap.items()?;
        for piece in pieces {
            items.push(self.heap.text(piece)?)?;
        }
        if name == "rsplit" {
            items.values().reverse();
        }
        items.list()
    }

    fn searching(&mut self, text: &Text, name: &str, given: Given) -> Outcome<Value> {
        let [wanted, start, stop] = given.places(name, 1)?;
        let wanted = wanted.unwrap_or(Value::None);
        let bound = |value: &Option<Value>, default: usize| -> Outcome<Option<usize>> {
            let length = text.chars_count() as i128;
            Ok(Some(match value {
                None | Some(Value::None) => default,
                Some(value) => {
                    let at = super::arguments::as_integer(value)?;
                    as_count(if at < 0 { at.saturating_add(length).max(0) } else { at })
                }
            }))
        };
        let start = bound(&start, 0)?.unwrap_or(0);
        let stop = bound(&stop, text.chars_count())?.unwrap_or(0).min(text.chars_count());
        let byte = |at: usize| match text.is_ascii() {
            true => at.min(text.len()),
            false => text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte),
        };
        // A start past the end, or past the stop, finds nothing, not even an empty text.
        let part = if start <= stop { text.get(byte(start)..byte(stop)) } else { None };
        if matches!(name, "startswith" | "endswith") {
            let matches = |affix: &Value| match affix {
                Value::Text(affix) => {
                    self.heap.read(affix.len())?;
                    Ok(part.is_some_and(|part| match name {
                        "startswith" => part.starts_with(&**affix),
                        _ => part.ends_with(&**affix),
                    }))
                }
                other => Fault::err(format!(
                    "{name} first arg must be str or a tuple of str, not {}",
                    other.type_name()
                )),
            };
            let found = match &wanted {
                Value::Tuple(affixes) => {
                    let mut found = false;
                    for affix in affixes.iter() {
                        found = found || matches(affix)?;
                    }
                    found
                }
                affix => matches(affix)?,
            };
            return Ok(Value::Bool(found));
        }
        let Value::Text(wanted) = &wanted else {
            return Fault::err(format!("must be str, not {}", wanted.type_name()));
        };
        if name == "count" {
            return Ok(Value::Int(part.map_or(0, |part| part.matches(&**wanted).count()) as i128));
        }
        let found = part.and_then(|part| {
            let at = if name.starts_with('r') { part.rfind(&**wanted) } else { part.find(&**wanted) };
            at.map(|at| part.get(..at).unwrap_or_default().chars().count() + start)
        });
        match found {
            Some(at) => Ok(Value::Int(at as i128)),
            None if name.ends_with("index") => Fault::err("substring not found"),
            None => Ok(Value::Int(-1)),
        }
    }
}

/// How text becomes bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoding {
    Utf8,
    Ascii,
    Latin1,
}

impl Encoding {
    pub(super) fn of(name: Option<&Value>) -> Outcome<Self> {
        let Some(name) = name else { return Ok(Encoding::Utf8) };
        let name = as_text(Some(name))?;
        if name.len() > 20 {
            return Fault::err(format!("unknown encoding: {}", super::limits::clip(name)));
        }
        let name = name.to_ascii_lowercase().replace('_', "-");
        match name.as_str() {
            "utf-8" | "utf8" => Ok(Encoding::Utf8),
            "ascii" | "us-ascii" => Ok(Encoding::Ascii),
            "latin-1" | "latin1" | "iso-8859-1" => Ok(Encoding::Latin1),
            _ => Fault::err(format!("unknown encoding: {name}")),
        }
    }

    fn encode(self, text: &str) -> Outcome<Vec<u8>> {
        let most = match self {
            Encoding::Utf8 => return Ok(text.as_bytes().to_vec()),
            Encoding::Ascii => 0x7f,
            Encoding::Latin1 => 0xff,
        };
        let byte = |char: char| u8::try_from(u32::from(char)).ok().filter(|byte| *byte <= most);
        text.chars()
            .map(|char| byte(char).ok_or_else(|| Fault::new("the codec can't encode a character")))
            .collect()
    }

    pub(super) fn decode(self, bytes: &[u8]) -> Outcome<String> {
        let wrong = || Fault::new("the codec can't decode a byte");
        match self {
            Encoding::Utf8 => String::from_utf8(bytes.to_vec()).map_err(|_| wrong()),
            Encoding::Ascii if !bytes.is_ascii() => Err(wrong()),
            Encoding::Ascii | Encoding::Latin1 => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        }
    }
}

fn safe_again(value: Value, heap: &super::limits::Heap) -> Outcome<Value> {
    let marked = super::value::marked;
    match value {
        Value::List(items) => heap.list(items.iter().map(|item| marked(item.clone(), true))),
        Value::Tuple(items) => heap.tuple(items.iter().map(|item| marked(item.clone(), true))),
        other => Ok(marked(other, true)),
    }
}

fn as_text(value: Option<&Value>) -> Outcome<&Text> {
    match value {
        Some(Value::Text(text)) => Ok(text),
        Some(other) => Fault::err(format!("argument must be str, not {}", other.type_name())),
        None => Fault::err("an argument is missing"),
    }
}

/// Without whitespace, or the characters of a set, on one or both sides.
pub(super) fn stripped<'t>(text: &'t str, set: Option<&Value>, name: &str) -> Outcome<&'t str> {
    let chars: Option<Vec<char>> = match set {
        None | Some(Value::None) => None,
        Some(Value::Text(set)) => {
            let mut chars: Vec<char> = set.chars().collect();
            chars.sort_unstable();
            Some(chars)
        }
        Some(other) => {
            return Fault::err(format!("{name} arg must be None or str, not {}", other.type_name()));
        }
    };
    let is_out = |char: char| match &chars {
        None => is_space(char),
        Some(chars) => chars.binary_search(&char).is_ok(),
    };
    Ok(match name {
        "lstrip" => text.trim_start_matches(is_out),
        "rstrip" => text.trim_end_matches(is_out),
        _ => text.trim_matches(is_out),
    })
}

/// Words between whitespace; after so many splits the rest stays whole.
fn words(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start_matches(is_space);
    let mut left = most;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if left == 0 { None } else { rest.find(is_space) };
        left = left.saturating_sub(1);
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start_matches(is_space);
        // The last piece keeps its end only where splitting stopped.
        Some(word)
    })
}

/// The same from the end, last word first.
fn words_from_end(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_end_matches(is_space);
    let mut left = most;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = if left == 0 { None } else { rest.rfind(is_space) };
        left = left.saturating_sub(1);
        let start = start.and_then(|at| Some(at + rest.get(at..)?.chars().next()?.len_utf8())).unwrap_or(0);
        let (before, word) = rest.split_at(start);
        rest = before.trim_end_matches(is_space);
        Some(word)
    })
}

/// Lines as `str.splitlines` has them.
pub(super) fn split_lines(text: &str, keep_ends: bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(at) = rest.find(is_line_end) else { return Some(std::mem::take(&mut rest)) };
        let (line, after) = rest.split_at(at);
        let end = if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(1, char::len_utf8) };
        let with_end = rest.get(..at + end).unwrap_or(line);
        rest = after.get(end..).unwrap_or_default();
        Some(if keep_ends { with_end } else { line })
    })
}

pub(super) fn capitalized(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        to_title(first, &mut out);
    }
    // Lowered as a whole, since the form of a sigma depends on its place.
    let lower = characters::lower(text);
    let first_bytes: usize =
        text.chars().next().map_or(0, |char| char.to_lowercase().map(char::len_utf8).sum());
    out.push_str(lower.get(first_bytes..).unwrap_or_default());
    out
}

/// Every letter that follows none is made large, all others small.
fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for char in text.chars() {
        if within {
            out.extend(char.to_lowercase());
        } else {
            to_title(char, &mut out);
        }
        within = is_cased(char);
    }
    out
}

/// The questions of Python's strings about their characters.
pub(super) fn classified(text: &str, name: &str) -> bool {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    match name {
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(is_printable),
        "isidentifier" => {
            let mut chars = text.chars();
            chars.next().is_some_and(characters::is_identifier_start)
                && chars.all(characters::is_identifier_part)
        }
        "isspace" => all(is_space),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isdecimal" => all(characters::is_decimal),
        "isdigit" => all(characters::is_digit),
        "isnumeric" => all(char::is_numeric),
        "islower" => {
            text.chars().any(is_cased) && !text.chars().any(|char| is_cased(char) && !char.is_lowercase())
        }
        "isupper" => {
            text.chars().any(is_cased) && !text.chars().any(|char| is_cased(char) && !char.is_uppercase())
        }
        _ => {
            let mut within = false;
            let mut any = false;
            for char in text.chars() {
                let large = char.is_uppercase() || characters::is_title(char);
                if (large && within) || (char.is_lowercase() && !within) {
                    return false;
                }
                within = large || char.is_lowercase();
                any |= within;
            }
            any
        }
    }
}
