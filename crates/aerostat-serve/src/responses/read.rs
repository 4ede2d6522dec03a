//! What a request to `/v1/responses` asks for, in the words of a chat.

use aerostat_openai::brief;
use serde_json::{Map, Value, json};

use crate::problem::Problem;

type Object = Map<String, Value>;

/// A request that was read, but for the chat inside it.
pub(crate) struct Asked {
    /// The body of a chat with the same meaning, without its messages.
    pub(crate) chat: Object,
    pub(crate) instructions: Option<String>,
    /// What is new in the conversation, item by item.
    pub(crate) input: Vec<Value>,
    pub(crate) previous: Option<String>,
    pub(crate) stream: bool,
    pub(crate) background: bool,
    /// It is to be kept; `None`: where that can be.
    pub(crate) store: Option<bool>,
    /// Members of the response that repeat the request.
    pub(crate) repeated: Object,
}

impl Asked {
    /// Reads a body. What only a chat knows is checked when the chat is read.
    pub(crate) fn of(mut body: Object) -> Result<Self, Problem> {
        let mut repeated = Object::new();
        for name in ["max_output_tokens", "temperature", "top_p", "metadata", "user"] {
            repeated.insert(name.to_owned(), body.get(name).cloned().unwrap_or(Value::Null));
        }
        let tools = body.remove("tools").filter(|tools| !tools.is_null()).unwrap_or_else(|| json!([]));
        let choice =
            body.remove("tool_choice").filter(|choice| !choice.is_null()).unwrap_or_else(|| "auto".into());
        let parallel = body.get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(true);
        let format = body.remove("text").filter(|text| !text.is_null());
        repeated.insert("tools".to_owned(), tools.clone());
        repeated.insert("tool_choice".to_owned(), choice.clone());
        repeated.insert("parallel_tool_calls".to_owned(), parallel.into());
        repeated
            .insert("text".to_owned(), format.clone().unwrap_or_else(|| json!({"format": {"type": "text"}})));
        let asked = Self {
            instructions: text(&mut body, "instructions")?,
            input: input(body.remove("input"))?,
            previous: text(&mut body, "previous_response_id")?,
            stream: flag(&mut body, "stream")?.unwrap_or(false),
            background: flag(&mut body, "background")?.unwrap_or(false),
            store: flag(&mut body, "store")?,
            chat: Object::new(),
            repeated,
        };
        if asked.background && asked.store == Some(false) {
            return Err(Problem::value("background", "what runs in the background must be stored"));
        }
        served(&mut body)?;
        if let Some(most) = body.remove("max_output_tokens") {
            body.insert("max_completion_tokens".to_owned(), most);
        }
        if let Some(format) = format {
            body.extend(response_format(&format)?.map(|format| ("response_format".to_owned(), format)));
        }
        if tools.as_array().is_none_or(|tools| !tools.is_empty()) {
            body.insert("tools".to_owned(), chat_tools(&tools)?);
            body.insert("tool_choice".to_owned(), chat_choice(choice));
        }
        // These are a chat's, and not a response's.
        for name in ["messages", "n", "response_format_", "stream_options", "logprobs"] {
            if body.remove(name).is_some_and(|value| !value.is_null()) {
                return Err(unsupported(name));
            }
        }
        Ok(Self { chat: body, ..asked })
    }
}

/// Refuses what is not served, and takes out what has no effect.
fn served(body: &mut Object) -> Result<(), Problem> {
    let only: [(&str, &[Value]); 6] = [
        ("truncation", &[json!("disabled")]),
        ("include", &[json!([])]),
        ("top_logprobs", &[json!(0)]),
        ("max_tool_calls", &[]),
        ("conversation", &[]),
        ("prompt", &[]),
    ];
    for (name, served) in only {
        match body.remove(name) {
            Some(value) if !value.is_null() && !served.contains(&value) => return Err(unsupported(name)),
            _ => {}
        }
    }
    if let Some(Value::Object(reasoning)) = body.remove("reasoning")
        && let Some((name, _)) = reasoning.iter().find(|(name, value)| !value.is_null() && *name != "summary")
    {
        return Err(unsupported(&format!("reasoning.{name}")));
    }
    Ok(())
}

fn unsupported(name: &str) -> Problem {
    Problem::bad("unsupported_parameter", format!("`{name}` is not supported")).about(name)
}

fn text(body: &mut Object, name: &str) -> Result<Option<String>, Problem> {
    match body.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Problem::value(name, format!("`{name}` is {}; it must be text", brief(&other)))),
    }
}

fn flag(body: &mut Object, name: &str) -> Result<Option<bool>, Problem> {
    match body.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(yes)) => Ok(Some(yes)),
        Some(other) => {
            Err(Problem::value(name, format!("`{name}` is {}; it must be true or false", brief(&other))))
        }
    }
}

/// The input as items.
fn input(value: Option<Value>) -> Result<Vec<Value>, Problem> {
    match value {
        Some(Value::String(text)) => Ok(vec![json!({"type": "message", "role": "user", "content": text})]),
        Some(Value::Array(items)) if !items.is_empty() => Ok(items),
        Some(Value::Null) | None => {
            Err(Problem::bad("missing_parameter", "`input` is missing").about("input"))
        }
        Some(other) => {
            let message = format!("`input` is {}; it must be text or a list of items", brief(&other));
            Err(Problem::value("input", message))
        }
    }
}

/// `text.format` as a chat has it.
fn response_format(text: &Value) -> Result<Option<Value>, Problem> {
    let Some(members) = text.as_object() else {
        return Err(Problem::value("text", format!("`text` is {}; it must be a JSON object", brief(text))));
    };
    if let Some((name, _)) = members.iter().find(|(name, value)| *name != "format" && !value.is_null()) {
        return Err(unsupported(&format!("text.{name}")));
    }
    let Some(format) = members.get("format").filter(|format| !format.is_null()) else { return Ok(None) };
    if format["type"] != "json_schema" {
        return Ok(Some(format.clone()));
    }
    let mut inner = format.as_object().cloned().unwrap_or_default();
    inner.remove("type");
    Ok(Some(json!({"type": "json_schema", "json_schema": inner})))
}

/// Functions as a chat has them.
fn chat_tools(tools: &Value) -> Result<Value, Problem> {
    let Some(list) = tools.as_array() else {
        return Err(Problem::value("tools", format!("`tools` is {}; it must be a list", brief(tools))));
    };
    let one = |(index, tool): (usize, &Value)| match tool.as_object() {
        Some(members) if tool["type"] == "function" => {
            let mut function = members.clone();
            function.remove("type");
            Ok(json!({"type": "function", "function": function}))
        }
        _ => {
            let path = format!("tools[{index}]");
            Err(Problem::bad("unsupported_parameter", format!("`{path}`: only functions are supported"))
                .about(&path))
        }
    };
    list.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>().map(Value::from)
}

fn chat_choice(choice: Value) -> Value {
    match choice.get("name").cloned() {
        Some(name) if choice["type"] == "function" => json!({"type": "function", "function": {"name": name}}),
        _ => choice,
    }
}

/// Items of a conversation as messages of a chat, after those that come before.
pub(crate) fn add_messages(items: &[Value], messages: &mut Vec<Value>) -> Result<(), Problem> {
    let mut thoughts = None;
    for (index, item) in items.iter().enumerate() {
        let path = format!("input[{index}]");
        let wrong = |what: &str| Problem::value(&path, format!("`{path}`: {what}"));
        match item["type"].as_str().unwrap_or("message") {
            "message" => {
                let role = item["role"].as_str().ok_or_else(|| wrong("a message needs a role"))?;
                let mut message = json!({"role": role, "content": content(&item["content"], &path)?});
                if role == "assistant"
                    && let Some(thoughts) = thoughts.take()
                {
                    message["reasoning_content"] = thoughts;
                }
                messages.push(message);
            }
            "reasoning" => {
                let parts = item["content"].as_array().into_iter().flatten();
                let text: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
                thoughts = (!text.is_empty()).then(|| text.join("\n").into());
            }
            "function_call" => {
                let text = |name: &str| {
                    item[name].as_str().ok_or_else(|| wrong("a call needs call_id, name, arguments"))
                };
                let function = json!({"name": text("name")?, "arguments": text("arguments")?});
                let call = json!({"id": text("call_id")?, "type": "function", "function": function});
                let last = messages.last_mut().filter(|last| last["role"] == "assistant");
                match last.and_then(Value::as_object_mut) {
                    Some(last) if thoughts.is_none() => {
                        let calls = last.entry("tool_calls").or_insert_with(|| json!([]));
                        if let Some(calls) = calls.as_array_mut() {
                            calls.push(call);
                        }
                    }
                    _ => {
                        let mut message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
                        if let Some(thoughts) = thoughts.take() {
                            message["reasoning_content"] = thoughts;
                        }
                        messages.push(message);
                    }
                }
            }
            "function_call_output" => {
                let id = item["call_id"].as_str().ok_or_else(|| wrong("an output needs a call_id"))?;
                let content = content(&item["output"], &path)?;
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
            other => return Err(wrong(&format!("items of the type {other:?} are not supported"))),
        }
    }
    Ok(())
}

/// Content as one text.
fn content(content: &Value, path: &str) -> Result<Value, Problem> {
    let wrong = |what: &Value| {
        Problem::value(path, format!("`{path}`: {} is neither text nor a list of texts", brief(what)))
    };
    match content {
        Value::String(_) => Ok(content.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| match part["type"].as_str() {
                Some("input_text" | "output_text" | "text") => part["text"].as_str().map(str::to_owned),
                Some("refusal") => part["refusal"].as_str().map(str::to_owned),
                _ => None,
            };
            let texts = parts.iter().map(|part| text(part).ok_or_else(|| wrong(part)));
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n").into())
        }
        other => Err(wrong(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: Value) -> Result<Asked, Problem> {
        Asked::of(body.as_object().unwrap().clone())
    }

    #[test]
    fn a_response_is_asked_for_in_the_words_of_a_chat() {
        let body = json!({"model": "m", "input": "q", "instructions": "be brief", "max_output_tokens": 5, "seed": 1,
            "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "integer"}}},
            "tools": [{"type": "function", "name": "f", "parameters": {}}], "tool_choice": {"type": "function", "name": "f"},
            "reasoning": {"effort": null, "summary": "auto"}, "truncation": "disabled", "include": []});
        let asked = asked(body).unwrap_or_else(|problem| panic!("{problem:?}"));
        let chat = json!({"model": "m", "max_completion_tokens": 5, "seed": 1,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}}});
        assert_eq!(Value::from(asked.chat), chat);
        assert_eq!(asked.instructions.as_deref(), Some("be brief"));
    }

    #[test]
    fn items_become_messages() {
        let items = json!([
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}], "id": "msg_1"},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "d"},
        ]);
        let mut messages = Vec::new();
        add_messages(items.as_array().unwrap(), &mut messages)
            .unwrap_or_else(|problem| panic!("{problem:?}"));
        let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
        let want = json!([
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "c", "reasoning_content": "hm", "tool_calls": [call("1", "f"), call("2", "g")]},
            {"role": "tool", "tool_call_id": "1", "content": "d"},
        ]);
        assert_eq!(Value::from(messages), want);
    }

    #[test]
    fn what_is_not_served_is_named() {
        for (body, param) in [
            (json!({}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": "q", "truncation": "auto"}), "truncation"),
            (json!({"input": "q", "reasoning": {"effort": "high"}}), "reasoning.effort"),
            (json!({"input": "q", "tools": [{"type": "web_search"}]}), "tools[0]"),
            (json!({"input": "q", "text": {"verbosity": "low"}}), "text.verbosity"),
            (json!({"input": "q", "background": true, "store": false}), "background"),
            (json!({"input": "q", "n": 2}), "n"),
            (json!({"input": "q", "stream": 1}), "stream"),
        ] {
            let problem = asked(body.clone()).err().unwrap_or_else(|| panic!("{body}"));
            assert_eq!(problem.body()["error"]["param"], param, "{body}");
        }
        for item in [
            json!({"type": "item_reference"}),
            json!({"content": "a"}),
            json!({"role": "user", "content": 3}),
        ] {
            assert!(add_messages(std::slice::from_ref(&item), &mut Vec::new()).is_err(), "{item}");
        }
    }
}
