//! Filters that make HTML and addresses.

use super::arguments::{Given, as_count, flag};
use super::characters::is_space;
use super::escape::{escape_text, escaped, strip_tags};
use super::execute::Renderer;
use super::limits::{Buffer, Fault, Outcome};
use super::loops::{Pull, collect};
use super::print::to_text;
use super::value::Value;

impl Renderer<'_> {
    pub(super) fn html_filter(&mut self, name: &str, value: &Value, given: Given) -> Outcome<Value> {
        match name {
            "escape" | "e" => {
                let [] = given.bind(name, [], 0)?;
                escaped(value, self.names(), &self.heap).map(Value::Text)
            }
            "forceescape" => {
                let [] = given.bind(name, [], 0)?;
                let text = to_text(value, self.names(), &self.heap)?;
                let text = escape_text(&text, &self.heap)?;
                self.heap.new_text(text.into(), true).map(Value::Text)
            }
            "striptags" => {
                let [] = given.bind(name, [], 0)?;
                strip_tags(&to_text(value, self.names(), &self.heap)?, &self.heap)
            }
            "urlencode" => {
                let [] = given.bind(name, [], 0)?;
                self.url_encode(value)
            }
            "xmlattr" => {
                let [space] = given.bind(name, ["autospace"], 0)?;
                self.xml_attributes(value, flag(&space, true))
            }
            _ => self.urlize(value, given),
        }
    }

    fn url_encode(&mut self, value: &Value) -> Outcome<Value> {
        let mut out = Buffer::new(&self.heap)?;
        if matches!(value, Value::Text(_)) || Pull::new(value).is_err() {
            let text = to_text(value, self.names(), &self.heap)?;
            quote(&mut out, &text, "/")?;
            return self.heap.built(out);
        }
        let pairs = match value {
            Value::Dict(dict) => Value::View(super::value::View::Items, dict.clone()),
            other => other.clone(),
        };
        let mut pull = Pull::new(&pairs)?;
        let mut first = true;
        while let Some(pair) = pull.next(&self.heap)? {
            let mut both = collect(&pair, &self.heap)?;
            let [key, value] = both.values().as_slice() else {
                return Fault::err("not enough or too many values to unpack (expected 2)");
            };
            if !std::mem::replace(&mut first, false) {
                out.push("&")?;
            }
            for (at, part) in [key, value].into_iter().enumerate() {
                out.push(if at > 0 { "=" } else { "" })?;
                let text = to_text(part, self.names(), &self.heap)?;
                quote(&mut out, &text, "+")?;
            }
        }
        self.heap.built(out)
    }

    fn xml_attributes(&mut self, value: &Value, space: bool) -> Outcome<Value> {
        let Value::Dict(dict) = value else {
            return Fault::err(format!("'{}' object has no attribute 'items'", value.type_name()));
        };
        let mut out = Buffer::new(&self.heap)?;
        for (key, value) in dict.entries() {
            if matches!(value, Value::None | Value::Undefined(_)) {
                continue;
            }
            let Value::Text(name) = key else { return Fault::err("expected string or bytes-like object") };
            if name.contains([' ', '\t', '\n', '\r', '\u{b}', '\u{c}', '/', '>', '=']) {
                return Fault::err(format!("Invalid character in attribute name: '{}'", &**name));
            }
            out.push(if space || !out.text.is_empty() { " " } else { "" })?;
            out.push(&escaped(key, self.names(), &self.heap)?)?;
            out.push("=\"")?;
            out.push(&escaped(value, self.names(), &self.heap)?)?;
            out.push("\"")?;
        }
        self.heap.built(out)
    }

    fn urlize(&mut self, value: &Value, given: Given) -> Outcome<Value> {
        let parameters = ["trim_url_limit", "nofollow", "target", "rel", "extra_schemes"];
        let [limit, nofollow, target, rel, schemes] = given.bind("urlize", parameters, 0)?;
        if schemes.is_some_and(|schemes| schemes.is_true()) {
            return Fault::err("urlize: extra_schemes are not known here");
        }
        let limit = match &limit {
            None | Some(Value::None) => None,
            Some(limit) => Some(as_count(super::arguments::as_integer(limit)?)),
        };
        let mut words: Vec<String> = vec!["noopener".to_owned()];
        if flag(&nofollow, false) {
            words.push("nofollow".to_owned());
        }
        if let Some(Value::Text(rel)) = &rel {
            // Each word is held by itself.
            self.heap.room(rel.len().saturating_mul(32))?;
            self.heap.read(rel.len().saturating_mul(32))?;
            words.extend(rel.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned));
        }
        words.sort();
        words.dedup();
        let mut attributes = format!(" rel=\"{}\"", escape_text(&words.join(" "), &self.heap)?);
        if let Some(Value::Text(target)) = &target {
            attributes += &format!(" target=\"{}\"", escape_text(target, &self.heap)?);
        }
        let text = escaped(value, self.names(), &self.heap)?;
        let mut out = Buffer::new(&self.heap)?;
        let mut rest: &str = &text;
        while !rest.is_empty() {
            let blank = rest.starts_with(is_space);
            let end = rest.find(|char| is_space(char) != blank).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            if blank { out.push(word)? } else { link(&mut out, word, limit, &attributes)? }
        }
        self.heap.built(out)
    }
}

/// Percent-encodes all but letters, digits and `_.-~`, and what `kept` says: `/` stays, or `+` stands for a space.
fn quote(out: &mut Buffer, text: &str, kept: &str) -> Outcome<()> {
    for char in text.chars() {
        match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '-' | '~' => out.push_char(char)?,
            '/' if kept == "/" => out.push("/")?,
            ' ' if kept == "+" => out.push("+")?,
            _ => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    out.push(&format!("%{byte:02X}"))?;
                }
            }
        }
    }
    Ok(())
}

/// A word, as a link if it looks like an address.
fn link(out: &mut Buffer, word: &str, limit: Option<usize>, attributes: &str) -> Outcome<()> {
    let (mut head, mut middle, mut tail) = ("", word, String::new());
    let opened = middle.len() - middle.trim_start_matches(['(', '<']).len();
    let opened = if opened == 0 && middle.starts_with("&lt;") { 4 } else { opened };
    if opened > 0 {
        (head, middle) = middle.split_at(opened);
    }
    if middle.ends_with([')', '>', '.', ',', '\n']) || middle.ends_with("&gt;") {
        let mut kept = middle;
        loop {
            let cut = kept.strip_suffix("&gt;").or_else(|| kept.strip_suffix([')', '>', '.', ',', '\n']));
            match cut {
                Some(cut) => kept = cut,
                None => break,
            }
        }
        tail = middle.get(kept.len()..).unwrap_or_default().to_owned();
        middle = kept;
    }
    // Brackets that the word itself opened belong to it.
    let mut balanced = middle.to_owned();
    for (open, close) in [("(", ")"), ("<", ">"), ("&lt;", "&gt;")] {
        let opened = balanced.matches(open).count();
        if opened <= balanced.matches(close).count() {
            continue;
        }
        for _ in 0..opened.min(tail.matches(close).count()) {
            out.heap().read(tail.len())?;
            let end = tail.find(close).map_or(0, |at| at + close.len());
            balanced.push_str(tail.get(..end).unwrap_or_default());
            tail = tail.get(end..).unwrap_or_default().to_owned();
        }
    }
    let middle = balanced.as_str();
    let trimmed = |text: &str| match limit {
        Some(limit) if text.chars().count() > limit => {
            text.chars().take(limit).chain("...".chars()).collect()
        }
        _ => text.to_owned(),
    };
    out.push(head)?;
    let is_http = middle.starts_with("http://") || middle.starts_with("https://");
    if is_http && is_host(middle.split_once("//").map_or("", |(_, host)| host), true) {
        out.push(&format!("<a href=\"{middle}\"{attributes}>{}</a>", trimmed(middle)))?;
    } else if is_host(middle, false) {
        out.push(&format!("<a href=\"https://{middle}\"{attributes}>{}</a>", trimmed(middle)))?;
    } else if is_mail(middle) {
        let bare = middle.strip_prefix("mailto:").unwrap_or(middle);
        let shown = bare;
        out.push(&format!("<a href=\"mailto:{bare}\">{shown}</a>"))?;
    } else {
        out.push(middle)?;
    }
    out.push(&tail)
}

/// Whether a text begins with the name of a host, under a known end unless `any_end`.
fn is_host(text: &str, any_end: bool) -> bool {
    let end = text.find(['/', '?', '#', ':']).unwrap_or(text.len());
    let host = text.get(..end).unwrap_or_default();
    let is_name = |part: &str| {
        !part.is_empty() && part.chars().all(|char| char.is_alphanumeric() || matches!(char, '-' | '_' | '%'))
    };
    let mut parts = host.rsplit('.');
    let last = parts.next().unwrap_or_default();
    let known = matches!(last, "com" | "net" | "int" | "edu" | "gov" | "org" | "info" | "mil");
    host.contains('.') && host.split('.').all(is_name) && (any_end || known || host.starts_with("www."))
        || (any_end && host == "localhost")
}

fn is_mail(text: &str) -> bool {
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    let Some((user, host)) = text.split_once('@') else { return false };
    !user.is_empty()
        && !user.contains(':')
        && host.contains('.')
        && !host.starts_with("www.")
        && !host.contains('@')
        && host.chars().all(|char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_'))
}
