//! Filters of text.

use super::arguments::{Given, as_count, as_integer, flag, integer};
use super::characters::{is_identifier_part, is_space, lower};
use super::execute::Renderer;
use super::format::percent;
use super::limits::{Buffer, Fault, Outcome};
use super::methods_text::{capitalized, split_lines, stripped};
use super::print::to_text;
use super::value::{Dict, Text, Value};

impl Renderer<'_> {
    pub(super) fn text_filter(&mut self, name: &str, value: &Value, given: Given) -> Outcome<Value> {
        if let Value::Text(text) = value {
            self.heap.room(text.len().saturating_mul(3))?;
        }
        match name {
            "trim" => {
                let [set] = given.bind(name, ["chars"], 0)?;
                let text = self.soft_text(value)?;
                self.heap.read(text.len())?;
                self.heap.read(self.set_bytes(set.as_ref())?)?;
                let rest = stripped(&text, set.as_ref(), "strip")?;
                if rest.len() == text.len() {
                    return Ok(Value::Text(text));
                }
                Ok(Value::Text(self.heap.new_text(rest.into(), text.safe)?))
            }
            "upper" | "lower" | "capitalize" | "title" => {
                let [] = given.bind(name, [], 0)?;
                let text = self.soft_text(value)?;
                self.heap.look_up(&text)?;
                let changed = match name {
                    "upper" => text.to_uppercase(),
                    "lower" => lower(&text),
                    "capitalize" => capitalized(&text),
                    _ => title(&text),
                };
                Ok(Value::Text(self.heap.new_text(changed.into(), text.safe && name != "title")?))
            }
            "replace" => {
                let [old, new, count] = given.bind(name, ["old", "new", "count"], 2)?;
                let count = match &count {
                    None | Some(Value::None) => -1,
                    Some(count) => as_integer(count)?,
                };
                let plain = |value: &Value| to_text(value, self.names(), &self.heap);
                let (old, new) = (plain(&old.unwrap_or(Value::None))?, plain(&new.unwrap_or(Value::None))?);
                let text = plain(value)?;
                self.replaced(&text, &old, &new, count)
            }
            "indent" => {
                let [width, first, blank] = given.bind(name, ["width", "first", "blank"], 0)?;
                self.indent(value, width, flag(&first, false), flag(&blank, false))
            }
            "format" => self.format_filter(value, given),
            "center" => {
                let [width] = given.bind(name, ["width"], 0)?;
                let text = self.soft_text(value)?;
                let width = width.unwrap_or(Value::Int(80));
                self.text_method(&text, "center", Given { positional: vec![width], ..Given::default() })
            }
            "truncate" => self.truncate(value, given),
            "wordcount" => {
                let [] = given.bind(name, [], 0)?;
                let text = self.soft_text(value)?;
                self.heap.look_up(&text)?;
                let words = text.split(|char| !is_identifier_part(char)).filter(|word| !word.is_empty());
                Ok(Value::Int(words.count() as i128))
            }
            "wordwrap" => self.word_wrap(value, given),
            _ => Fault::err(format!("No filter named '{name}' found.")),
        }
    }

    /// `text | format(…)`, which is `text % arguments`.
    fn format_filter(&self, value: &Value, given: Given) -> Outcome<Value> {
        if !given.positional.is_empty() && !given.named.is_empty() {
            return Fault::err("can't handle positional and keyword arguments at the same time");
        }
        let text = self.soft_text(value)?;
        if given.named.is_empty() {
            let arguments = self.heap.tuple(given.positional)?;
            return percent(&text, &arguments, self.names(), &self.heap);
        }
        let mut named = Dict::new(&self.heap)?;
        for (name, value) in given.named {
            named.insert(self.heap.text(name)?, value)?;
        }
        percent(&text, &Value::Dict(named.into()), self.names(), &self.heap)
    }

    /// A text that Python needs to be one.
    fn needed_text<'v>(&self, value: &'v Value) -> Outcome<&'v Text> {
        match value {
            Value::Text(text) => Ok(text),
            Value::Undefined(_) => Err(super::value::undefined_fault(value, value)),
            other => Fault::err(format!("a string is needed, not {}", other.type_name())),
        }
    }

    fn indent(&mut self, value: &Value, width: Option<Value>, first: bool, blank: bool) -> Outcome<Value> {
        let text = self.needed_text(value)?;
        let (indention, times) = match &width {
            None => (" ", 4),
            Some(Value::Text(text)) => (&**text, 1),
            Some(width) => (" ", as_count(as_integer(width)?)),
        };
        let mut out = Buffer::new(&self.heap)?;
        if first {
            out.repeat(indention, times)?;
        }
        // A newline is added before lines are split, so that a last one that is empty counts as a line.
        let ends_whole = text.is_empty() || text.ends_with(super::characters::is_line_end);
        let lines = split_lines(text, false).map(Some).chain(ends_whole.then_some(None));
        for (at, line) in lines.enumerate() {
            let line = line.unwrap_or("");
            if at > 0 {
                out.push("\n")?;
                if blank || !line.is_empty() {
                    out.repeat(indention, times)?;
                }
            }
            out.push(line)?;
        }
        Ok(Value::Text(self.heap.new_text(out.into_text().into(), text.safe)?))
    }

    fn truncate(&mut self, value: &Value, given: Given) -> Outcome<Value> {
        let [length, kill_words, end, leeway] =
            given.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
        let end = end.map_or_else(|| self.heap.text("..."), Ok)?;
        let end = self.needed_text(&end)?.clone();
        let length = match length {
            Some(Value::Float(length))
                if length >= end.chars_count() as f64 && self.length(value)? as f64 <= length + 5.0 =>
            {
                return Ok(value.clone());
            }
            length => integer(&length, 255)?,
        };
        let leeway = match &leeway {
            None | Some(Value::None) => 5,
            Some(leeway) => as_integer(leeway)?,
        };
        if length < end.chars_count() as i128 || leeway < 0 {
            return Fault::err(format!("expected length >= {} and leeway >= 0", end.chars_count()));
        }
        let count = self.length(value)?;
        if count <= length.saturating_add(leeway) {
            return Ok(value.clone());
        }
        let text = self.needed_text(value)?;
        self.heap.read(text.len())?;
        let kept: String = text.chars().take(as_count(length) - end.chars_count()).collect();
        let kept = match (flag(&kill_words, false), kept.rsplit_once(' ')) {
            (false, Some((before, _))) => before,
            _ => &kept,
        };
        let mut out = Buffer::new(&self.heap)?;
        out.push(kept)?;
        out.push(&end)?;
        Ok(Value::Text(self.heap.new_text(out.into_text().into(), text.safe)?))
    }

    fn word_wrap(&mut self, value: &Value, given: Given) -> Outcome<Value> {
        let parameters = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
        let [width, break_long, separator, on_hyphens] = given.bind("wordwrap", parameters, 0)?;
        let text = self.needed_text(value)?.clone();
        let separator = match separator {
            None | Some(Value::None) => self.heap.text("\n")?,
            Some(separator) => separator,
        };
        let separator = self.needed_text(&separator)?.clone();
        let width = integer(&width, 79)?;
        let mut out = Buffer::new(&self.heap)?;
        for (at, line) in split_lines(&text, false).enumerate() {
            if at > 0 {
                out.push(&separator)?;
            }
            let wrap =
                Wrap { width, break_long: flag(&break_long, true), on_hyphens: flag(&on_hyphens, true) };
            let lines = wrap.lines(line, &self.heap)?;
            for (at, line) in lines.iter().enumerate() {
                if at > 0 {
                    out.push(&separator)?;
                }
                out.push(line)?;
            }
        }
        self.heap.built(out)
    }
}

/// Words begin after whitespace, hyphens and opening brackets; their first letter is made large.
fn title(text: &str) -> String {
    let is_break = |char: char| is_space(char) || matches!(char, '-' | '(' | '{' | '[' | '<');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let in_break = rest.starts_with(is_break);
        let end = rest.find(|char| is_break(char) != in_break).unwrap_or(rest.len());
        let (item, after) = rest.split_at(end);
        rest = after;
        let mut chars = item.chars();
        if let Some(first) = chars.next() {
            out.extend(first.to_uppercase());
            out.push_str(&lower(chars.as_str()));
        }
    }
    out
}

/// `textwrap.wrap` for a line.
struct Wrap {
    width: i128,
    break_long: bool,
    on_hyphens: bool,
}

impl Wrap {
    fn lines(&self, line: &str, heap: &super::limits::Heap) -> Outcome<Vec<String>> {
        heap.read(line.len().saturating_mul(8))?;
        heap.room(line.len().saturating_mul(40))?;
        if self.width <= 0 {
            return Fault::err(format!("invalid width {} (must be > 0)", self.width));
        }
        let width = as_count(self.width);
        let mut chunks: Vec<String> = self.chunks(line);
        chunks.reverse();
        let mut lines: Vec<String> = Vec::new();
        while !chunks.is_empty() {
            let mut current: Vec<String> = Vec::new();
            let mut length = 0;
            let is_blank = |chunk: &String| chunk.chars().all(is_space);
            if !lines.is_empty() && chunks.last().is_some_and(is_blank) {
                chunks.pop();
            }
            while let Some(chunk) = chunks.last() {
                heap.read(chunk.len())?;
                let more = chunk.chars().count();
                if length + more > width {
                    break;
                }
                length += more;
                current.extend(chunks.pop());
            }
            if let Some(chunk) = chunks.pop_if(|chunk| chunk.chars().count() > width) {
                heap.read(chunk.len())?;
                self.long_word(chunk, width, length, &mut current, &mut chunks);
            }
            if current.last().is_some_and(is_blank) {
                current.pop();
            }
            if !current.is_empty() {
                heap.step(current.len())?;
                lines.push(current.concat());
            }
        }
        Ok(lines)
    }

    /// A word that is longer than a line.
    fn long_word(
        &self,
        chunk: String,
        width: usize,
        length: usize,
        current: &mut Vec<String>,
        chunks: &mut Vec<String>,
    ) {
        if !self.break_long {
            if current.is_empty() {
                current.push(chunk)
            } else {
                chunks.push(chunk)
            }
            return;
        }
        let room = width.saturating_sub(length).max(usize::from(width < 1));
        let mut end = room;
        if self.on_hyphens && chunk.chars().count() > room {
            let head: Vec<char> = chunk.chars().take(room).collect();
            let hyphen = head.iter().rposition(|char| *char == '-');
            if let Some(hyphen) =
                hyphen.filter(|at| *at > 0 && head.iter().take(*at).any(|char| *char != '-'))
            {
                end = hyphen + 1;
            }
        }
        let byte = chunk.char_indices().nth(end).map_or(chunk.len(), |(byte, _)| byte);
        let (head, tail) = chunk.split_at(byte);
        current.push(head.to_owned());
        chunks.push(tail.to_owned());
    }

    /// Words and the whitespace between them; words end after a hyphen between letters, too.
    fn chunks(&self, line: &str) -> Vec<String> {
        let is_blank = |char: char| matches!(char, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ');
        let mut chunks = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let blank = rest.starts_with(is_blank);
            let end = rest.find(|char| is_blank(char) != blank).unwrap_or(rest.len());
            let (chunk, after) = rest.split_at(end);
            rest = after;
            if blank || !self.on_hyphens {
                chunks.push(chunk.to_owned());
            } else {
                hyphenated(chunk, &mut chunks);
            }
        }
        chunks
    }
}

/// Cuts a word after hyphens that have two letters before and a letter after them, and around long dashes.
fn hyphenated(word: &str, chunks: &mut Vec<String>) {
    let chars: Vec<char> = word.chars().collect();
    let is_letter = |at: usize| chars.get(at).is_some_and(|char| char.is_alphabetic() || *char == '_');
    let is_word =
        |at: usize| chars.get(at).is_some_and(|char| is_identifier_part(*char) || "!\"'&.,?".contains(*char));
    let mut current = String::new();
    let mut at = 0;
    while let Some(char) = chars.get(at) {
        let after_word = *char == '-' && at > 0 && is_word(at - 1);
        let run = chars.get(at..).unwrap_or_default().iter().take_while(|char| after_word && **char == '-');
        let dashes = run.count();
        if dashes >= 2 && chars.get(at + dashes).is_some_and(|char| is_identifier_part(*char)) {
            if !current.is_empty() {
                chunks.push(std::mem::take(&mut current));
            }
            chunks.push("-".repeat(dashes));
            at += dashes;
            continue;
        }
        current.push(*char);
        let after_hyphen = *char == '-'
            && at >= 1
            && is_letter(at - 1)
            && (at >= 2 && is_letter(at - 2)
                || at >= 3 && chars.get(at - 2) == Some(&'-') && is_letter(at - 3))
            && is_letter(at + 1)
            && (is_letter(at + 2) || chars.get(at + 2) == Some(&'-'));
        if after_hyphen {
            chunks.push(std::mem::take(&mut current));
        }
        at += 1;
    }
    if !current.is_empty() {
        chunks.push(current);
    }
}
