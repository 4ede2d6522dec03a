//! What clients of Ollama ask, in OpenAI's words.

use aerostat_openai::brief;
use serde_json::{Map, Value, json};

use crate::problem::Problem;

type Object = Map<String, Value>;

/// Options by their names in OpenAI's and vLLM's words.
const OPTIONS: &[(&str, &str)] = &[
    ("temperature", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("repeat_penalty", "repetition_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
];
/// Options about machines, which the server has set.
const WITHOUT_EFFECT: &[&str] = &[
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "use_mmap",
    "use_mlock",
    "low_vram",
    "numa",
    "repeat_last_n",
    "penalize_newline",
];

/// A request that was read.
#[derive(Debug)]
pub(super) struct Asked {
    /// The body of a chat or of a completion.
    pub(super) body: Object,
    /// It is a completion.
    pub(super) raw: bool,
    pub(super) stream: bool,
    /// The answer may be as long as the context.
    pub(super) fills: bool,
}

impl Asked {
    pub(super) fn of(mut body: Object, chat: bool) -> Result<Self, Problem> {
        let stream = match body.remove("stream") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(stream)) => stream,
            Some(other) => return Err(wrong("stream", &other)),
        };
        let mut asked = Object::new();
        for known in ["model", "name", "keep_alive"] {
            body.remove(known);
        }
        let fills = options(body.remove("options"), &mut asked)?;
        format(body.remove("format"), &mut asked)?;
        match body.remove("think") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(think)) => {
                asked.insert("chat_template_kwargs".to_owned(), json!({"enable_thinking": think}));
            }
            Some(other) => return Err(wrong("think", &other)),
        }
        let raw = !chat && body.remove("raw").is_some_and(|raw| raw == true);
        match chat {
            true => {
                asked.insert("messages".to_owned(), messages(body.remove("messages"))?);
                asked.extend(body.remove("tools").map(|tools| ("tools".to_owned(), tools)));
            }
            false => prompt(&mut body, raw, &mut asked)?,
        }
        // What is left is nothing, or not known here.
        let nothing = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if let Some((name, _)) = body.iter().find(|(_, value)| !nothing(value)) {
            return Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported")));
        }
        Ok(Self { body: asked, raw, stream, fills })
    }
}

/// Whether a request is only to load the model, or to let it go: it has no prompt, or no messages.
pub(super) fn asks_nothing(body: &Object, chat: bool) -> bool {
    match body.get(if chat { "messages" } else { "prompt" }) {
        None | Some(Value::Null) => true,
        Some(Value::String(prompt)) => !chat && prompt.is_empty(),
        Some(Value::Array(messages)) => chat && messages.is_empty(),
        _ => false,
    }
}

pub(super) fn wrong(name: &str, value: &Value) -> Problem {
    Problem::value(name, format!("`{name}` cannot be {}", brief(value)))
}

/// Puts options where they belong; whether the answer may be as long as the context.
fn options(options: Option<Value>, asked: &mut Object) -> Result<bool, Problem> {
    let mut fills = false;
    let options = match options {
        None | Some(Value::Null) => return Ok(false),
        Some(Value::Object(options)) => options,
        Some(other) => return Err(wrong("options", &other)),
    };
    for (name, value) in options.into_iter().filter(|(_, value)| !value.is_null()) {
        if let Some((_, own)) = OPTIONS.iter().find(|(theirs, _)| *theirs == name) {
            asked.insert((*own).to_owned(), value);
        } else if name == "num_predict" {
            match value.as_i64() {
                // As many as fit.
                Some(..=0) => fills = true,
                _ => drop(asked.insert("max_tokens".to_owned(), value)),
            }
        } else if !WITHOUT_EFFECT.contains(&name.as_str()) {
            return Err(Problem::bad("unsupported_parameter", format!("`options.{name}` is not supported")));
        }
    }
    Ok(fills)
}

fn format(format: Option<Value>, asked: &mut Object) -> Result<(), Problem> {
    let format = match format {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(text)) if text.is_empty() => return Ok(()),
        Some(Value::String(text)) if text == "json" => json!({"type": "json_object"}),
        Some(schema @ Value::Object(_)) => {
            json!({"type": "json_schema", "json_schema": {"name": "format", "schema": schema}})
        }
        Some(other) => return Err(wrong("format", &other)),
    };
    asked.insert("response_format".to_owned(), format);
    Ok(())
}

fn prompt(body: &mut Object, raw: bool, asked: &mut Object) -> Result<(), Problem> {
    let prompt = body.remove("prompt").unwrap_or(Value::Null);
    let Value::String(prompt) = prompt else { return Err(wrong("prompt", &prompt)) };
    if raw {
        asked.insert("prompt".to_owned(), prompt.into());
        return Ok(());
    }
    let mut messages = Vec::new();
    if let Some(Value::String(system)) = body.remove("system").filter(|system| !system.is_null()) {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": prompt}));
    asked.insert("messages".to_owned(), messages.into());
    Ok(())
}

/// Messages in OpenAI's words: arguments of calls are objects there already, and calls have no ids.
fn messages(messages: Option<Value>) -> Result<Value, Problem> {
    let Some(Value::Array(mut list)) = messages else {
        return Err(Problem::value("messages", "`messages` must be a list"));
    };
    for message in list.iter_mut().filter_map(Value::as_object_mut) {
        if message
            .remove("images")
            .is_some_and(|images| images.as_array().is_none_or(|list| !list.is_empty()))
        {
            return Err(Problem::bad("unsupported_parameter", "images are not supported"));
        }
        if let Some(thinking) = message.remove("thinking") {
            message.insert("reasoning_content".to_owned(), thinking);
        }
        if let Some(name) = message.remove("tool_name") {
            message.insert("name".to_owned(), name);
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for (index, call) in calls.into_iter().flatten().enumerate() {
            if let Some(call) = call.as_object_mut() {
                call.entry("id").or_insert_with(|| format!("call{index:05}").into());
                call.entry("type").or_insert_with(|| "function".into());
                if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
                    function.remove("index");
                }
            }
        }
    }
    Ok(list.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_messages_are_put_into_openais_words() {
        let body = json!({"model": "m", "stream": false, "think": false, "format": "json", "keep_alive": "5m",
            "options": {"num_predict": 5, "repeat_penalty": 1.1, "num_ctx": 4096, "seed": 3},
            "messages": [{"role": "user", "content": "q"},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "tool_name": "f", "content": "r"}]});
        let asked = Asked::of(body.as_object().unwrap().clone(), true).unwrap_or_else(|p| panic!("{p:?}"));
        assert!(!asked.stream);
        let want = json!({"max_tokens": 5, "repetition_penalty": 1.1, "seed": 3, "response_format": {"type": "json_object"},
            "chat_template_kwargs": {"enable_thinking": false},
            "messages": [{"role": "user", "content": "q"},
                {"role": "assistant", "content": "", "tool_calls": [{"id": "call00000", "type": "function",
                    "function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "name": "f", "content": "r"}]});
        assert_eq!(Value::from(asked.body), want);
    }

    #[test]
    fn prompts_become_chats_unless_they_are_raw() {
        let of = |body: Value| Asked::of(body.as_object().unwrap().clone(), false);
        let plain = of(json!({"prompt": "q", "system": "s", "suffix": "", "images": []}))
            .unwrap_or_else(|p| panic!("{p:?}"));
        assert_eq!(plain.body["messages"][0], json!({"role": "system", "content": "s"}));
        for (count, fills) in [(-2, true), (-1, true), (0, true), (7, false)] {
            let asked = of(json!({"prompt": "q", "options": {"num_predict": count}}));
            let asked = asked.unwrap_or_else(|p| panic!("{p:?}"));
            assert_eq!((asked.fills, asked.body.contains_key("max_tokens")), (fills, !fills));
        }
        let raw = of(json!({"prompt": "q", "raw": true})).unwrap_or_else(|p| panic!("{p:?}"));
        assert!(raw.raw && raw.stream && raw.body["prompt"] == "q");
        for bad in [
            json!({}),
            json!({"prompt": "q", "suffix": "s"}),
            json!({"prompt": "q", "context": [1]}),
            json!({"prompt": "q", "options": {"mirostat": 1}}),
            json!({"prompt": "q", "stream": 1}),
            json!({"prompt": "q", "format": 3}),
        ] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
    }
}
