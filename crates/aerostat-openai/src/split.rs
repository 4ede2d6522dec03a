//! The text of an answer taken apart as it comes: thoughts, content, calls of functions.

use serde_json::{Value, json};

use crate::calls::{CallFormat, Forms, THINK, THOUGHT};
use crate::dialect::opens_thoughts;
use crate::part::Stamp;

/// How the text of an answer is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// It may begin with thoughts; `Some(true)`: the prompt has begun them.
    pub(crate) thoughts: Option<bool>,
    /// It may hold calls.
    pub(crate) calls: Option<CallFormat>,
    /// It is calls and nothing else.
    pub(crate) forced: bool,
    /// It is calls or content: what does not begin as a call has none.
    pub(crate) apart: bool,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More of what the model thought.
    Thoughts(String),
    /// More of what it says.
    Content(String),
    /// It calls a function of this name; calls are counted from 0.
    Call(usize, String),
    /// More of the arguments of that call, which are JSON.
    Arguments(usize, String),
}

/// Takes an answer apart as it comes. The pieces of a text are the same however it is cut.
#[derive(Clone, Debug)]
pub struct Splitter {
    split: Split,
    state: State,
    /// What came and is not told yet.
    held: String,
    /// Calls so far.
    calls: usize,
    /// Something was told of the part at hand.
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Thoughts may begin.
    Start,
    Thoughts,
    /// What is said begins: it may be a call.
    Said,
    Content,
    /// Before the name of a call, or after the last.
    Between,
    Name,
    /// In the arguments: how deep, in a string, behind a backslash.
    Arguments {
        depth: usize,
        quoted: bool,
        escaped: bool,
    },
}

impl Split {
    /// That of an answer without calls to a prompt that a chat template rendered: thoughts may begin it, and may have begun
    /// in the prompt.
    pub fn of_prompt(prompt: &str) -> Self {
        Self { thoughts: Some(opens_thoughts(prompt)), calls: None, forced: false, apart: false }
    }

    /// Whether an answer begins with thoughts.
    pub fn may_hold_thoughts(self, answer: &str) -> bool {
        self.thoughts == Some(true) || (self.thoughts.is_some() && answer.trim_start().starts_with(THINK))
    }

    /// What a call of an answer is called.
    pub(crate) fn call_id(self, stamp: &Stamp, index: usize) -> String {
        self.calls.unwrap_or(CallFormat::List).call_id(&stamp.id, index)
    }

    /// What takes an answer apart.
    pub fn splitter(self) -> Splitter {
        let state = match self.thoughts {
            _ if self.forced => State::Between,
            Some(true) => State::Thoughts,
            Some(false) => State::Start,
            None => State::Said,
        };
        Splitter { split: self, state, held: String::new(), calls: 0, told: false }
    }
}

impl Splitter {
    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// The pieces that more text gives.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces, false) {}
        pieces
    }

    /// The pieces of what was held back until the answer ended.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while self.step(&mut pieces, true) {}
        pieces
    }

    fn forms(&self) -> Option<Forms> {
        self.split.calls.map(CallFormat::forms)
    }

    /// Does what can be done; false if more text is needed.
    fn step(&mut self, pieces: &mut Vec<Piece>, ended: bool) -> bool {
        match self.state {
            State::Start => match begins(self.held.trim_start(), THINK) {
                Some(true) => {
                    let at = self.held.find(THINK).unwrap_or(0) + THINK.len();
                    self.held.drain(..at);
                    self.turn(State::Thoughts)
                }
                None if !ended => false,
                _ => self.turn(State::Said),
            },
            State::Thoughts => match self.held.find(THOUGHT) {
                Some(at) => {
                    let thoughts: String = self.held.drain(..at).collect();
                    self.held.drain(..THOUGHT.len());
                    self.tell(pieces, thoughts.trim_end(), Piece::Thoughts);
                    self.turn(State::Said)
                }
                None => self.flow(pieces, THOUGHT, ended, Piece::Thoughts),
            },
            State::Said => self.said(ended),
            State::Content => {
                let marker = self.forms().map_or("", |forms| forms.marker);
                match self.held.find(marker).filter(|_| !marker.is_empty()) {
                    Some(at) => {
                        let content: String = self.held.drain(..at).collect();
                        self.tell(pieces, content.trim_end(), Piece::Content);
                        self.turn(State::Between)
                    }
                    None => self.flow(pieces, marker, ended, Piece::Content),
                }
            }
            State::Between | State::Name | State::Arguments { .. } => self.called(pieces),
        }
    }

    /// What is said begins.
    fn said(&mut self, ended: bool) -> bool {
        // Models put empty lines between thoughts and what they say.
        if self.split.thoughts.is_some() {
            let kept = self.held.trim_start_matches(['\n', '\r']).len();
            self.held.drain(..self.held.len() - kept);
        }
        if self.held.is_empty() {
            return false;
        }
        match self.forms() {
            Some(forms) if self.split.apart => match begins(&self.held, forms.marker) {
                Some(true) => self.turn(State::Between),
                None if !ended => false,
                _ => {
                    self.split.calls = None;
                    self.turn(State::Content)
                }
            },
            Some(forms) if forms.marker.is_empty() => match begins(self.held.trim_start(), forms.before) {
                Some(true) => self.turn(State::Between),
                None if !ended => false,
                _ => self.turn(State::Content),
            },
            _ => self.turn(State::Content),
        }
    }

    /// In calls.
    fn called(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Some(forms) = self.forms() else { return self.turn(State::Content) };
        match self.state {
            State::Between => {
                let Some(at) = self.held.find(forms.before) else { return false };
                self.held.drain(..at + forms.before.len());
                self.turn(State::Name)
            }
            State::Name => {
                let Some(at) = self.held.find(forms.after) else { return false };
                let name: String = self.held.drain(..at).collect();
                self.held.drain(..forms.after.len());
                pieces.push(Piece::Call(self.calls, name));
                self.calls += 1;
                self.turn(State::Arguments { depth: 0, quoted: false, escaped: false })
            }
            State::Arguments { depth, quoted, escaped } => self.arguments(pieces, (depth, quoted, escaped)),
            _ => false,
        }
    }

    /// In the arguments of a call, which end where their first value does.
    fn arguments(
        &mut self,
        pieces: &mut Vec<Piece>,
        (mut depth, mut quoted, mut escaped): (usize, bool, bool),
    ) -> bool {
        let mut end = None;
        for (at, c) in self.held.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ if quoted => {}
                '{' | '[' => depth += 1,
                '}' | ']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        end = Some(at + c.len_utf8());
                        break;
                    }
                }
                _ => {}
            }
        }
        let text: String = self.held.drain(..end.unwrap_or(self.held.len())).collect();
        if !text.is_empty() {
            pieces.push(Piece::Arguments(self.calls.saturating_sub(1), text));
        }
        match end {
            Some(_) => self.turn(State::Between),
            None => {
                self.state = State::Arguments { depth, quoted, escaped };
                false
            }
        }
    }

    /// Tells what is held but for what may be the beginning of a word that ends it, and for white space, which may be the
    /// last before it.
    fn flow(&mut self, pieces: &mut Vec<Piece>, word: &str, ended: bool, piece: fn(String) -> Piece) -> bool {
        let kept = if ended || word.is_empty() { 0 } else { tail_that_begins(&self.held, word) };
        let mut at = self.held.len() - kept;
        let all = word.is_empty() || (ended && self.state == State::Content);
        if !all {
            at = self.held.get(..at).map_or(0, |text| text.trim_end().len());
        }
        let text: String = self.held.drain(..at).collect();
        self.tell(pieces, &text, piece);
        if ended {
            self.held.clear();
        }
        false
    }

    fn tell(&mut self, pieces: &mut Vec<Piece>, text: &str, piece: fn(String) -> Piece) {
        // Thoughts begin on a line of their own.
        let text = match self.state {
            State::Thoughts if !self.told => text.trim_start(),
            _ => text,
        };
        if !text.is_empty() {
            self.told = true;
            pieces.push(piece(text.to_owned()));
        }
    }

    fn turn(&mut self, state: State) -> bool {
        self.state = state;
        self.told = false;
        true
    }
}

/// Whether a text begins with a word; `None` if it may, once there is more of it.
fn begins(text: &str, word: &str) -> Option<bool> {
    match text.starts_with(word) {
        false if word.starts_with(text) => None,
        begins => Some(begins),
    }
}

/// Bytes at the end of a text that a word may begin with.
fn tail_that_begins(text: &str, word: &str) -> usize {
    let lengths = (1..word.len()).rev().filter(|length| word.is_char_boundary(*length));
    lengths.filter(|length| word.get(..*length).is_some_and(|head| text.ends_with(head))).max().unwrap_or(0)
}

/// Pieces as members of a message or of a delta: `content`, `reasoning_content`, `tool_calls`. `id` names calls.
pub(crate) fn members(pieces: &[Piece], id: impl Fn(usize) -> String) -> Members {
    let mut members = Members::default();
    for piece in pieces {
        match piece {
            Piece::Thoughts(text) => members.thoughts.get_or_insert_default().push_str(text),
            Piece::Content(text) => members.content.get_or_insert_default().push_str(text),
            Piece::Call(index, name) => members.calls.push(json!({
                "index": index,
                "id": id(*index),
                "type": "function",
                "function": {"name": name, "arguments": ""},
            })),
            Piece::Arguments(index, text) => {
                if members.calls.last().is_none_or(|call| call["index"] != *index) {
                    members.calls.push(json!({"index": index, "function": {"arguments": ""}}));
                }
                if let Some(call) = members.calls.last_mut() {
                    let so_far = call["function"]["arguments"].as_str().unwrap_or_default();
                    call["function"]["arguments"] = format!("{so_far}{text}").into();
                }
            }
        }
    }
    members
}

/// See [`members`].
#[derive(Default)]
pub(crate) struct Members {
    pub(crate) thoughts: Option<String>,
    pub(crate) content: Option<String>,
    /// As deltas have them, with the index of each.
    pub(crate) calls: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text is taken apart into: thoughts, content, names and arguments.
    type Apart = (String, String, Vec<(String, String)>);

    fn gather(pieces: impl IntoIterator<Item = Piece>) -> Apart {
        let mut all = Apart::default();
        for piece in pieces {
            match piece {
                Piece::Thoughts(text) => all.0 += &text,
                Piece::Content(text) => all.1 += &text,
                Piece::Call(index, name) => {
                    assert_eq!(index, all.2.len());
                    all.2.push((name, String::new()));
                }
                Piece::Arguments(index, text) => all.2[index].1 += &text,
            }
        }
        all
    }

    fn check(split: Split, text: &str, thoughts: &str, content: &str, calls: &[(&str, &str)]) {
        let calls = calls.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect();
        let want = (thoughts.to_owned(), content.to_owned(), calls);
        // However the text is cut.
        for size in [usize::MAX, 1, 2, 3, 5, 7] {
            let mut splitter = split.splitter();
            let chars: Vec<char> = text.chars().collect();
            let mut pieces = Vec::new();
            for part in chars.chunks(size.min(chars.len()).max(1)) {
                pieces.extend(splitter.push(&part.iter().collect::<String>()));
            }
            pieces.extend(splitter.finish());
            assert_eq!(gather(pieces), want, "{text:?} in {size}");
        }
    }

    #[test]
    fn thoughts_are_told_apart() {
        let split = Split { thoughts: Some(false), calls: None, forced: false, apart: false };
        check(split, "<think>\nhm,\nhm\n</think>\n\nyes\n", "hm,\nhm", "yes\n", &[]);
        check(split, "\n<think>hm", "hm", "", &[]);
        check(split, "yes <think>no", "", "yes <think>no", &[]);
        check(split, "<thin", "", "<thin", &[]);
        check(split, "<think>\n\n</think>\n\nyes", "", "yes", &[]);
        let opened = Split { thoughts: Some(true), ..split };
        check(opened, "hm\n</think>\n\nyes </think>", "hm", "yes </think>", &[]);
        check(opened, "hm </thi", "hm </thi", "", &[]);
        check(opened, "", "", "", &[]);
    }

    #[test]
    fn calls_are_told_apart() {
        let split = |calls| Split { thoughts: None, calls: Some(calls), forced: false, apart: false };
        let arguments = r#"{"a": "}\"{", "b": [1, {"c": null}]}"#;
        let hermes = format!(
            "Well.\n<tool_call>\n{{\"name\": \"f\", \"arguments\": {arguments}}}\n</tool_call>\n<tool_call>\n{{\"name\": \"g\", \"arguments\": {{}}}}\n</tool_call>"
        );
        check(split(CallFormat::Hermes), &hermes, "", "Well.", &[("f", arguments), ("g", "{}")]);
        let apart = Split { apart: true, ..split(CallFormat::Hermes) };
        let text = "{\"a\": \"<tool_call>\"}";
        check(apart, text, "", text, &[]);
        check(apart, hermes.trim_start_matches("Well.\n"), "", "", &[("f", arguments), ("g", "{}")]);
        check(apart, "<tool_c", "", "<tool_c", &[]);
        check(split(CallFormat::Hermes), "a <tool_ b\n", "", "a <tool_ b\n", &[]);
        check(split(CallFormat::Hermes), "a <tool", "", "a <tool", &[]);
        let cut = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"b";
        check(split(CallFormat::Hermes), cut, "", "", &[("f", "{\"a\": \"b")]);
        let llama = format!("{{\"name\": \"f\", \"parameters\": {arguments}}}");
        check(split(CallFormat::Llama), &llama, "", "", &[("f", arguments)]);
        check(split(CallFormat::Llama), "{\"nam", "", "{\"nam", &[]);
        check(split(CallFormat::Llama), "{\"a\": 1}", "", "{\"a\": 1}", &[]);
        let mistral = format!(
            "[TOOL_CALLS][{{\"name\": \"f\", \"arguments\": {arguments}}}, {{\"name\": \"g\", \"arguments\": {{}}}}]"
        );
        check(split(CallFormat::Mistral), &mistral, "", "", &[("f", arguments), ("g", "{}")]);
        let newer = format!("[TOOL_CALLS]f[ARGS]{arguments}[TOOL_CALLS]g[ARGS]{{}}");
        check(split(CallFormat::MistralArgs), &newer, "", "", &[("f", arguments), ("g", "{}")]);
        let list = format!("[{{\"name\": \"f\", \"arguments\": {arguments}}}]");
        let forced = Split { forced: true, ..split(CallFormat::List) };
        check(forced, &list, "", "", &[("f", arguments)]);
        let deep = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
        let thinking = Split { thoughts: Some(true), ..split(CallFormat::DeepSeekFenced) };
        check(thinking, &format!("hm</think>\n\nso {deep}"), "hm", "so", &[("f", "{\"a\": 1}"), ("g", "{}")]);
        let newer = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
        check(split(CallFormat::DeepSeek), newer, "", "", &[("f", "{}")]);
    }
}
