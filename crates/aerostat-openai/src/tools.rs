//! Functions that a chat may call: what a request says of them.

use aerostat::Message;
use serde_json::{Map, Value, json};

use crate::calls::{CallFormat, THINK, THOUGHT, Tool, ToolChoice, Writer, special};
use crate::dialect::{Dialect, opens_thoughts};
use crate::fields::{Fields, Reading, brief};
use crate::grammar::with_separators;
use crate::messages::check_tools;
use crate::refusal::Refusal;
use crate::setting::Setting;
use crate::shape::Shape;
use crate::split::Split;

/// Functions of a request at most.
const TOOLS_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 128;

/// The functions of a request.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    /// As the request gives them, for the template.
    given: Vec<Value>,
    list: Vec<Tool>,
    /// `None`: none is called.
    pub(crate) choice: Option<ToolChoice>,
    /// The member that says so.
    said_by: &'static str,
    parallel: bool,
}

impl Tools {
    /// Takes what a body says of functions.
    pub(crate) fn take(body: &mut Fields<'_>, reading: &Reading) -> Result<Self, Refusal> {
        if let Some(tools) = body.peek("tools") {
            check_tools(tools, reading)?;
        }
        body.only("functions", &[json!([])])?;
        body.only("function_call", &[json!("none"), json!("auto")])?;
        let given = match body.take("tools") {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                let message = format!("`tools` is {}; it must be a list", brief(&other));
                return Err(Refusal::value("tools", message));
            }
        };
        if given.len() > TOOLS_MAX {
            return Err(Refusal::value("tools", format!("`tools` holds more than {TOOLS_MAX} functions")));
        }
        let list =
            given.iter().enumerate().map(|(i, tool)| tool_of(i, tool)).collect::<Result<Vec<_>, _>>()?;
        for (i, tool) in list.iter().enumerate() {
            if list[..i].iter().any(|other| other.name == tool.name) {
                let path = format!("tools[{i}].function.name");
                let message = format!("`{path}`: there is another function of the name {:?}", tool.name);
                return Err(Refusal::value(&path, message));
            }
        }
        let parallel = body.boolean("parallel_tool_calls")?.unwrap_or(true);
        let said_by = if body.peek("tool_choice").is_some() { "tool_choice" } else { "tools" };
        let choice = choice(body, &list)?;
        Ok(Self { given, list, choice, said_by, parallel })
    }

    /// What the template is given, if it shows functions.
    pub(crate) fn for_template(&self) -> Option<Value> {
        self.choice.is_some().then(|| self.given.clone().into())
    }

    /// Tells of them in words, where the template does not: before the first message.
    pub(crate) fn tell(&self, messages: &mut [Message]) {
        let Some(first) = messages.first_mut().filter(|_| self.choice.is_some()) else { return };
        let mut text = "You can call these functions:\n".to_owned();
        for tool in &self.given {
            text += &tool.get("function").unwrap_or(tool).to_string();
            text.push('\n');
        }
        text += "To call them, answer with a JSON list of {\"name\": …, \"arguments\": {…}} and nothing else.\n\n";
        text += first.content.as_str().unwrap_or_default();
        first.content = text.into();
    }
}

fn tool_of(index: usize, tool: &Value) -> Result<Tool, Refusal> {
    let path = format!("tools[{index}]");
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => {}
        _ => {
            let message = format!("`{path}`: only tools of the type \"function\" are served");
            return Err(Refusal::unsupported(&path, message));
        }
    }
    let function = tool.get("function").unwrap_or(&Value::Null);
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let name = function.get("name").and_then(Value::as_str);
    let name = name.filter(|n| (1..=NAME_BYTES_MAX).contains(&n.len()) && n.bytes().all(good));
    let name = name.ok_or_else(|| {
        let path = format!("{path}.function.name");
        let message = format!("`{path}` must have 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-` or `.`");
        Refusal::value(&path, message)
    })?;
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => {
            json!({"type": "object", "properties": {}, "additionalProperties": false})
        }
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(other) => {
            let path = format!("{path}.function.parameters");
            let message = format!("`{path}` is {}; it must be a JSON schema", brief(other));
            return Err(Refusal::value(&path, message));
        }
    };
    Ok(Tool { name: name.to_owned(), parameters })
}

/// Which functions are called, if any.
fn choice(body: &mut Fields<'_>, tools: &[Tool]) -> Result<Option<ToolChoice>, Refusal> {
    let wrong = |what: String| Refusal::value("tool_choice", format!("`tool_choice` {what}"));
    let named = |name: &str| match tools.iter().any(|tool| tool.name == name) {
        true => Ok(Some(ToolChoice::Named(name.to_owned()))),
        false => Err(wrong(format!("names {name:?}, which is not among `tools`"))),
    };
    if let Some(Value::Object(_)) = body.peek("tool_choice") {
        return match called(body)? {
            Some(name) => named(&name),
            None => Err(wrong("must name a function".to_owned())),
        };
    }
    let Some(given) = body.take("tool_choice") else {
        return Ok((!tools.is_empty()).then_some(ToolChoice::Auto));
    };
    match given.as_str() {
        Some("none") => Ok(None),
        Some("auto") => Ok((!tools.is_empty()).then_some(ToolChoice::Auto)),
        Some("required" | "any") if tools.is_empty() => Err(wrong("needs `tools`".to_owned())),
        Some("required" | "any") => Ok(Some(ToolChoice::Required)),
        _ => Err(wrong(format!(
            "is {}; it must be \"none\", \"auto\", \"required\" or a function",
            brief(&given)
        ))),
    }
}

/// The name of the function that a `tool_choice` is.
fn called(body: &mut Fields<'_>) -> Result<Option<String>, Refusal> {
    let Some(mut choice) = body.object("tool_choice")? else { return Ok(None) };
    choice.only("type", &[json!("function")])?;
    let mut function = choice.object("function")?;
    let name = match &mut function {
        Some(function) => function.text("name")?,
        None => None,
    };
    choice.finish()?;
    function.map_or(Ok(()), Fields::finish)?;
    Ok(name)
}

impl Setting {
    /// How the model's template writes calls and thoughts.
    pub(crate) fn dialect(&self) -> Dialect {
        let found = || self.template.as_ref().map(Dialect::of).unwrap_or_default();
        *self.dialect.get_or_init(found)
    }

    /// Whether answers may call functions as the model likes.
    pub fn may_call(&self) -> bool {
        let dialect = self.dialect();
        dialect.shows_tools && dialect.calls.is_some()
    }

    /// Whether answers may begin with thoughts.
    pub fn may_think(&self) -> bool {
        self.dialect().thinks
    }

    /// How an answer to a prompt is taken apart, and what holds it to the way that calls are written, or to the shape that
    /// is wanted of it.
    pub(crate) fn parts_of_answer(
        &self,
        tools: &Tools,
        prompt: &str,
        shape: Option<Shape>,
    ) -> Result<(Option<Split>, Option<Shape>), Refusal> {
        let dialect = self.dialect();
        // All of an answer follows its grammar: nothing is thought before it.
        let thoughts = dialect.thinks.then(|| opens_thoughts(prompt)).filter(|_| shape.is_none());
        let Some(choice) = &tools.choice else {
            let split = Split { thoughts, calls: None, forced: false, apart: false };
            return Ok((thoughts.is_some().then_some(split), shape));
        };
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Refusal::unsupported("tools", "`tools` need a tokenizer; this model has none"));
        };
        let forced = *choice != ToolChoice::Auto;
        let format = match dialect.calls.filter(|_| dialect.shows_tools) {
            Some(format) => format,
            None if forced => CallFormat::List,
            None => {
                let message = format!(
                    "`{}`: how this model calls functions is not known; say by `tool_choice` that it must, or which \
                     function, or \"none\"",
                    tools.said_by
                );
                return Err(Refusal::unsupported(tools.said_by, message));
            }
        };
        // Where it must call, there is no other answer that could have a shape.
        let content = shape.filter(|_| !forced).map(|shape| content(&shape, format)).transpose()?;
        let apart = content.is_some();
        let writer = Writer {
            format,
            tokenizer,
            vocab: self.vocab,
            tools: &tools.list,
            parallel: tools.parallel,
            thoughts,
            content,
        };
        let lark = writer.lark(choice);
        // What must be a call begins as one.
        let thoughts = thoughts.filter(|_| !forced);
        Ok((Some(Split { thoughts, calls: Some(format), forced, apart }), Some(Shape::Calls(lark))))
    }

    /// Whether the text of an answer must hold special tokens so that it can be taken apart.
    pub(crate) fn split_by_special_tokens(&self, split: &Split) -> bool {
        let Some(tokenizer) = &self.tokenizer else { return false };
        let thoughts: &[&str] = if split.thoughts.is_some() { &[THINK, THOUGHT] } else { &[] };
        let calls = split.calls.map_or(&[][..], CallFormat::words);
        thoughts.iter().chain(calls).any(|word| special(tokenizer, self.vocab, word).is_some())
    }

    /// Gives the template the arguments of earlier calls in the way that it wants them.
    pub(crate) fn arguments(&self, messages: &mut [Message]) {
        let calls = |message: &Message| message.extra.get("tool_calls").is_some_and(Value::is_array);
        if !messages.iter().any(calls) {
            return;
        }
        let as_text = self.dialect().arguments_as_text;
        for message in messages {
            let Some(Value::Array(calls)) = message.extra.get_mut("tool_calls") else { continue };
            for call in calls {
                let function = call.get_mut("function").and_then(Value::as_object_mut);
                if let Some(arguments) = function.and_then(|function| function.get_mut("arguments")) {
                    turn(arguments, as_text);
                }
            }
        }
    }
}

/// The rule of an answer that has a shape where it calls no function.
fn content(shape: &Shape, format: CallFormat) -> Result<String, Refusal> {
    let schema = match shape {
        Shape::Schema(schema @ Value::Object(_)) => schema.clone(),
        Shape::JsonObject => json!({"type": "object"}),
        _ => {
            let message = "of grammars, only JSON schemas are supported beside functions that may be called";
            return Err(Refusal::unsupported("tools", message));
        }
    };
    if format.forms().marker.is_empty() {
        let message = "this model writes calls as JSON and nothing else, which an answer of `response_format` could not be \
                       told from; say by `tool_choice` that it must call, or \"none\"";
        return Err(Refusal::unsupported("tools", message));
    }
    Ok(format!("%json {}", with_separators(schema)))
}

/// An object as text, or the text of an object as that.
fn turn(arguments: &mut Value, as_text: bool) {
    match arguments {
        Value::String(text) if !as_text => {
            let text = if text.trim().is_empty() { "{}" } else { text.as_str() };
            if let Ok(object) = serde_json::from_str::<Map<String, Value>>(text) {
                *arguments = object.into();
            }
        }
        Value::Object(_) if as_text => *arguments = arguments.to_string().into(),
        _ => {}
    }
}
