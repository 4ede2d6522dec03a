//! How calls of functions are written in answers, and the grammars that hold answers to it.

use aerostat::Tokenizer;
use serde_json::{Value, json};

use crate::grammar::with_separators;

/// What begins and ends thoughts in the text of an answer.
pub(crate) const THINK: &str = "<think>";
pub(crate) const THOUGHT: &str = "</think>";

/// How a family of models writes calls of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFormat {
    /// `<tool_call>\n{"name": …, "arguments": …}\n</tool_call>`: Hermes, Qwen and others.
    Hermes,
    /// `{"name": …, "parameters": …}` and nothing else: Llama 3.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}, …]`.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`: newer Mistral models.
    MistralArgs,
    /// DeepSeek V3 and R1: arguments in a fenced block.
    DeepSeekFenced,
    /// DeepSeek from V3.1 on.
    DeepSeek,
    /// `[{"name": …, "arguments": …}, …]`, where a model has no way of its own that is known.
    List,
}

const BEGIN: &str = "<｜tool▁calls▁begin｜>";
const END: &str = "<｜tool▁calls▁end｜>";
const CALL: &str = "<｜tool▁call▁begin｜>";
const CALLED: &str = "<｜tool▁call▁end｜>";
const SEP: &str = "<｜tool▁sep｜>";

/// A function that may be called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    /// Its name: letters, digits, `_`, `-` and `.`.
    pub(crate) name: String,
    /// The JSON schema of its arguments.
    pub(crate) parameters: Value,
}

/// Whether functions are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    /// As the model likes.
    Auto,
    /// At least one is.
    Required,
    /// The one of this name is, once.
    Named(String),
}

/// What an answer that may call functions is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forms {
    /// What begins the calls and tells them from text.
    pub(crate) marker: &'static str,
    /// What follows it.
    open: &'static str,
    /// What stands right before a name, right after it and after the arguments.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    close: &'static str,
    /// Between two calls, before the next one's `before`; `None` if there is one call only.
    between: Option<&'static str>,
    /// After all.
    end: &'static str,
}

impl CallFormat {
    /// The format of a text in which a function of this name is called with `{"a": "b"}`.
    pub(crate) fn seen_in(text: &str, name: &str) -> Option<Self> {
        let (before, after) = text.split_once(name)?;
        let json = before.trim_end().ends_with("\"name\": \"") || before.trim_end().ends_with("\"name\":\"");
        let fenced = after.trim_start().starts_with("```json");
        let key = |key: &str| json && after.split_once('{').is_some_and(|(head, _)| head.contains(key));
        Some(match () {
            () if before.contains("<tool_call>") && key("\"arguments\"") => Self::Hermes,
            () if before.contains("[TOOL_CALLS]") && after.starts_with("[ARGS]") => Self::MistralArgs,
            () if before.contains("[TOOL_CALLS]") && json => Self::Mistral,
            () if before.contains(BEGIN) && before.ends_with(SEP) && fenced => Self::DeepSeekFenced,
            () if before.contains(BEGIN) && after.starts_with(SEP) => Self::DeepSeek,
            () if key("\"parameters\"") => Self::Llama,
            () => return None,
        })
    }

    pub(crate) const fn forms(self) -> Forms {
        let json = Forms {
            marker: "",
            open: "[",
            before: "{\"name\": \"",
            after: "\", \"arguments\": ",
            close: "}",
            between: Some(", "),
            end: "]",
        };
        match self {
            Self::List => json,
            Self::Hermes => Forms {
                marker: "<tool_call>",
                open: "\n",
                close: "}\n</tool_call>",
                between: Some("\n<tool_call>\n"),
                end: "",
                ..json
            },
            Self::Llama => Forms { open: "", after: "\", \"parameters\": ", between: None, end: "", ..json },
            Self::Mistral => Forms { marker: "[TOOL_CALLS]", ..json },
            Self::MistralArgs => Forms {
                marker: "[TOOL_CALLS]",
                open: "",
                before: "[TOOL_CALLS]",
                after: "[ARGS]",
                close: "",
                between: Some(""),
                end: "",
            },
            Self::DeepSeekFenced => Forms {
                marker: BEGIN,
                open: "<｜tool▁call▁begin｜>function",
                before: SEP,
                after: "\n```json\n",
                close: "\n```<｜tool▁call▁end｜>",
                between: Some("\n<｜tool▁call▁begin｜>function"),
                end: END,
            },
            Self::DeepSeek => Forms {
                marker: BEGIN,
                open: "",
                before: CALL,
                after: SEP,
                close: CALLED,
                between: Some(""),
                end: END,
            },
        }
    }

    /// The words of this format that may be special tokens.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Self::List | Self::Llama => &[],
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::Mistral | Self::MistralArgs => &["[TOOL_CALLS]", "[ARGS]"],
            Self::DeepSeekFenced | Self::DeepSeek => &[BEGIN, END, CALL, CALLED, SEP],
        }
    }

    /// How the id of a call is written: one format takes nine letters and digits only.
    pub(crate) fn call_id(self, answer: &str, index: usize) -> String {
        if !matches!(self, Self::Mistral | Self::MistralArgs) {
            return format!("call_{answer}_{index}");
        }
        let mut hash = fnv(answer.bytes().chain(index.to_le_bytes()));
        let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut digit = || {
            let digit = digits[(hash % 36) as usize];
            hash /= 36;
            char::from(digit)
        };
        (0..9).map(|_| digit()).collect()
    }
}

/// A number for bytes: FNV-1a, by Fowler, Noll and Vo.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, step)
}

/// Writes the grammar of an answer that calls functions, or may.
pub(crate) struct Writer<'a> {
    pub(crate) format: CallFormat,
    pub(crate) tokenizer: &'a Tokenizer,
    /// Tokens that the model knows.
    pub(crate) vocab: usize,
    pub(crate) tools: &'a [Tool],
    /// Several calls may follow each other.
    pub(crate) parallel: bool,
    /// Answers may begin with thoughts, which the prompt has begun already if the second is so.
    pub(crate) thoughts: Option<bool>,
    /// The rule of an answer that does not call; `None`: it is any text, in which calls may follow.
    pub(crate) content: Option<String>,
}

impl Writer<'_> {
    /// In Lark's words.
    pub(crate) fn lark(&self, choice: &ToolChoice) -> String {
        let forms = self.format.forms();
        let named = |tool: &&Tool| match choice {
            ToolChoice::Named(name) => tool.name == *name,
            _ => true,
        };
        let tools: Vec<&Tool> = self.tools.iter().filter(named).collect();
        let mut rules = Vec::new();
        let names = (0..tools.len()).map(|i| format!("f{i}")).collect::<Vec<_>>().join(" | ");
        rules.push(format!("f: {names}"));
        for (index, tool) in tools.iter().enumerate() {
            let head = self.words(&format!("{}{}{}", forms.before, tool.name, forms.after));
            let parameters = with_separators(as_object(&tool.parameters));
            rules.push(format!("f{index}: {head} %json {parameters} {}", self.words(forms.close)));
        }
        let several = match forms.between.filter(|_| self.parallel && !matches!(choice, ToolChoice::Named(_)))
        {
            Some(between) => format!(" ({} f)*", self.words(between)),
            None => String::new(),
        };
        rules.push(format!("calls: {} f{several} {}", self.words(forms.open), self.words(forms.end)));
        let head = if forms.before == forms.marker { String::new() } else { self.words(forms.marker) };
        match choice {
            ToolChoice::Required | ToolChoice::Named(_) => rules.push(format!("start: {head} calls")),
            ToolChoice::Auto => match &self.content {
                Some(content) => {
                    rules.extend([format!("content: {content}"), format!("start: content | {head} calls")])
                }
                None => self.free(&forms, &mut rules),
            },
        }
        rules.join("\n")
    }

    /// Text, or text and then calls.
    fn free(&self, forms: &Forms, rules: &mut Vec<String>) {
        let any = "/(.|\\n)*/";
        let no_thought = match self.thoughts {
            Some(false) => format!(" & ~/[ \\n]*{}(.|\\n)*/", regex(THINK)),
            _ => String::new(),
        };
        let special = |word: &str| self.special(word).map(|id| format!("<[{id}]>"));
        let body = match forms.marker {
            // A call is all of the answer, and tells itself from text by how it begins.
            "" => {
                rules.push(format!("TEXT: {any} & ~/[ \\n]*{}(.|\\n)*/{no_thought}", regex(forms.before)));
                "TEXT | calls".to_owned()
            }
            marker => {
                rules.push(format!("TEXT: {any}{no_thought}"));
                let calls = if forms.before == marker { "f_rest" } else { "calls" };
                if calls == "f_rest" {
                    rules.push(self.rest_of_marked(forms));
                }
                match special(marker) {
                    Some(token) => format!("TEXT | TEXT? {token} {calls}"),
                    None => {
                        rules.push(format!("MARKED: /(.|\\n)*{}/{no_thought}", regex(marker)));
                        rules.push("marked[lazy]: MARKED".to_owned());
                        format!("TEXT | marked {calls}")
                    }
                }
            }
        };
        rules.push(format!("body: {body}"));
        let closed = match special(THOUGHT) {
            Some(token) => format!("/(.|\\n)*/ {token}"),
            None => {
                rules.push(format!("THOUGHTS: /(.|\\n)*{}/", regex(THOUGHT)));
                rules.push("thoughts[lazy]: THOUGHTS".to_owned());
                "thoughts".to_owned()
            }
        };
        rules.push(match self.thoughts {
            None => "start: body".to_owned(),
            Some(true) => format!("start: {closed} body"),
            Some(false) => {
                let begin = special(THINK).unwrap_or_else(|| format!("/[ \\n]*{}/", regex(THINK)));
                format!("start: body | {begin} {closed} body")
            }
        });
    }

    /// Calls whose marker stands before each name, behind the first marker.
    fn rest_of_marked(&self, forms: &Forms) -> String {
        let names = self.tools.iter().map(|tool| {
            let head = self.words(&format!("{}{}", tool.name, forms.after));
            format!("{head} %json {}", with_separators(as_object(&tool.parameters)))
        });
        let names = names.collect::<Vec<_>>().join(" | ");
        let several = if self.parallel { " f*" } else { "" };
        format!("f_rest: ({names}){several}")
    }

    /// A text as it stands, with the tokens that some of its words are.
    fn words(&self, text: &str) -> String {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let found = self.format.words().iter().filter_map(|word| {
                let id = self.special(word)?;
                Some((rest.find(word)?, word.len(), id))
            });
            let Some((at, length, id)) = found.min() else {
                parts.push(quoted(rest));
                break;
            };
            let (before, after) = rest.split_at(at);
            parts.extend((!before.is_empty()).then(|| quoted(before)));
            parts.push(format!("<[{id}]>"));
            rest = after.get(length..).unwrap_or_default();
        }
        parts.join(" ")
    }

    fn special(&self, word: &str) -> Option<u32> {
        special(self.tokenizer, self.vocab, word)
    }
}

/// The special token that a word is, if it is one of those that the model knows.
pub(crate) fn special(tokenizer: &Tokenizer, vocab: usize, word: &str) -> Option<u32> {
    tokenizer.token_id(word).filter(|id| tokenizer.is_special(*id) && (*id as usize) < vocab)
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text in a regular expression between slashes.
fn regex(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~/".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Arguments are an object, whatever else a schema allows.
fn as_object(parameters: &Value) -> Value {
    match parameters {
        Value::Object(map) if map.contains_key("type") => parameters.clone(),
        Value::Object(map) => {
            let mut map = map.clone();
            map.insert("type".to_owned(), "object".into());
            map.into()
        }
        _ => json!({"type": "object"}),
    }
}
