//! Conversations: messages as chat templates want them.

use aerostat::Message;
use serde_json::{Map, Value};

use crate::fields::{Fields, Reading, brief, unknown};
use crate::refusal::Refusal;

/// Members of a message beside `role` and `content`: OpenAI's, and those by which servers give back what a model thought.
/// `annotations` come back with answers and have no effect.
const MEMBERS: &[&str] = &[
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
    "annotations",
    "reasoning_content",
    "reasoning",
    "thinking",
];

/// Messages with their content as text. A strict reading refuses members that are not known; a lenient one leaves them to
/// the template, which may know more.
pub(crate) fn messages(value: Value, reading: &Reading) -> Result<Vec<Message>, Refusal> {
    let wrong = |what: String| Refusal::value("messages", format!("`messages`: {what}"));
    let Value::Array(list) = value else { return Err(wrong("it must be a list".to_owned())) };
    if list.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    let mut messages = Vec::with_capacity(list.len());
    for (i, value) in list.into_iter().enumerate() {
        let mut message: Message =
            serde_json::from_value(value).map_err(|e| wrong(format!("message {i}: {e}")))?;
        if message.role == "developer" {
            message.role = "system".to_owned();
        }
        if !reading.lenient() {
            check_members(&message, i, reading)?;
        }
        message.content = content(message.content).map_err(|what| wrong(format!("message {i}: {what}")))?;
        if message.content.is_null() && matches!(&*message.role, "user" | "system") && !reading.lenient() {
            return Err(Refusal::missing(&format!("messages[{i}].content")));
        }
        messages.push(message);
    }
    Ok(messages)
}

/// Refuses what is not known of a message, its parts and its calls of tools.
fn check_members(message: &Message, index: usize, reading: &Reading) -> Result<(), Refusal> {
    let path = format!("messages[{index}]");
    for (name, _) in message.extra.iter().filter(|(_, value)| !value.is_null()) {
        if !MEMBERS.contains(&name.as_str()) {
            return Err(unknown(&format!("{path}.{name}")));
        }
    }
    for (at, part) in objects(&message.content, &format!("{path}.content")) {
        let mut fields = Fields::at(at, part, reading);
        // What caches a prompt elsewhere; here every prefix is shared.
        fields.ignore(&["cache_control"]);
        if fields.peek("type").is_none_or(|t| t == "text") {
            fields.ignore(&["type", "text"]);
            fields.finish()?;
        }
    }
    if let Some(call) = message.extra.get("function_call") {
        called(call, format!("{path}.function_call"), reading)?;
    }
    for name in ["name", "tool_call_id", "refusal", "reasoning_content", "reasoning"] {
        is_text(message.extra.get(name), &format!("{path}.{name}"))?;
    }
    let Some(calls) = message.extra.get("tool_calls") else { return Ok(()) };
    check_calls(calls, &format!("{path}.tool_calls"), reading)
}

/// Refuses what is no call of a function in a list of such: a template would show it to the model as it is.
fn check_calls(calls: &Value, at: &str, reading: &Reading) -> Result<(), Refusal> {
    let list = match calls {
        Value::Null => return Ok(()),
        Value::Array(list) => list,
        other => return Err(Refusal::value(at, format!("`{at}` is {}; it must be a list", brief(other)))),
    };
    for (i, call) in list.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let Value::Object(call) = call else {
            return Err(Refusal::value(&at, format!("`{at}` is {}; it must be a JSON object", brief(call))));
        };
        let mut fields = Fields::at(at.clone(), call.clone(), reading);
        fields.ignore(&["index"]);
        is_text(fields.take("id").as_ref(), &format!("{at}.id"))?;
        fields.only("type", &["function".into()])?;
        if let Some(function) = fields.take("function") {
            called(&function, format!("{at}.function"), reading)?;
        }
        fields.finish()?;
    }
    Ok(())
}

/// Refuses a value that is there and no text.
fn is_text(value: Option<&Value>, at: &str) -> Result<(), Refusal> {
    match value {
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(other) => Err(Refusal::value(at, format!("`{at}` is {}; it must be text", brief(other)))),
    }
}

/// The call of a function: its name and its arguments.
fn called(value: &Value, path: String, reading: &Reading) -> Result<(), Refusal> {
    match value {
        Value::Null => Ok(()),
        Value::Object(map) => {
            is_text(map.get("name"), &format!("{path}.name"))?;
            // As text, which is how they come, or as the object that it says.
            let arguments = map.get("arguments").filter(|arguments| !arguments.is_object());
            is_text(arguments, &format!("{path}.arguments"))?;
            let mut fields = Fields::at(path, map.clone(), reading);
            fields.ignore(&["name", "arguments"]);
            fields.finish()
        }
        other => {
            Err(Refusal::value(&path, format!("`{path}` is {}; it must be a JSON object", brief(other))))
        }
    }
}

/// Refuses what is not known of tools and of their functions. Whether they are served is another question.
pub(crate) fn check_tools(tools: &Value, reading: &Reading) -> Result<(), Refusal> {
    for (at, tool) in objects(tools, "tools") {
        let mut fields = Fields::at(at, tool, reading);
        fields.ignore(&["type"]);
        if let Some(mut function) = fields.object("function")? {
            is_text(function.peek("description"), &function.path("description"))?;
            function.boolean("strict")?;
            function.ignore(&["name", "description", "parameters"]);
            function.finish()?;
        }
        fields.finish()?;
    }
    Ok(())
}

/// The objects of a list, with their paths.
fn objects(list: &Value, path: &str) -> Vec<(String, Map<String, Value>)> {
    let entries = list.as_array().into_iter().flatten().enumerate();
    entries.filter_map(|(i, value)| Some((format!("{path}[{i}]"), value.as_object()?.clone()))).collect()
}

/// Content as one text: parts of text follow each other on lines.
fn content(value: Value) -> Result<Value, String> {
    let parts = match value {
        Value::Null | Value::String(_) => return Ok(value),
        Value::Array(parts) => parts,
        other => return Err(format!("content {} is neither text nor a list of parts", brief(&other))),
    };
    let text = |part: &Value| match part {
        Value::String(text) => Ok(text.clone()),
        part => {
            let is_text = part.get("type").is_none_or(|t| t == "text");
            let text = part.get("text").and_then(Value::as_str).filter(|_| is_text);
            text.map(str::to_owned).ok_or_else(|| format!("content part {} is not text", brief(part)))
        }
    };
    let texts = parts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("\n").into())
}
