//! How a model's chat template writes calls of functions and thoughts, found by rendering conversations that hold them.

use aerostat::{ChatTemplate, Message};
use serde_json::{Map, Value, json};

use crate::calls::{CallFormat, THINK, THOUGHT};

/// How a template writes what is not plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// It shows the model which functions there are.
    pub(crate) shows_tools: bool,
    /// How calls are written, where that is a way that is known.
    pub(crate) calls: Option<CallFormat>,
    /// It wants the arguments of calls as text, not as objects.
    pub(crate) arguments_as_text: bool,
    /// Answers may begin with thoughts.
    pub(crate) thinks: bool,
}

/// A word that no template writes by itself.
const NAME: &str = "probe_of_a_name";
const THOUGHTS: &str = "probe of thoughts";

impl Dialect {
    pub(crate) fn of(template: &ChatTemplate) -> Self {
        let user = Message::new("user", "q");
        let render = |messages: &[Message], tools: Value| {
            let extra = Map::from_iter((!tools.is_null()).then(|| ("tools".to_owned(), tools)));
            template.render(messages, true, extra).unwrap_or_default()
        };
        let tool = json!([{"type": "function", "function": {"name": NAME, "description": "d",
            "parameters": {"type": "object", "properties": {}}}}]);
        let shows_tools = render(std::slice::from_ref(&user), tool).contains(NAME);
        let called = |arguments: Value| {
            let mut message = Message::new("assistant", "");
            // Some templates refuse ids of another length.
            let call = json!({"id": "probe0id9", "type": "function", "function": {"name": NAME, "arguments": arguments}});
            message.extra.insert("tool_calls".to_owned(), json!([call]));
            render(&[user.clone(), message], Value::Null)
        };
        let by_object = called(json!({"a": "b"}));
        let arguments_as_text = !by_object.contains(NAME);
        let shown = if arguments_as_text { called("{\"a\": \"b\"}".into()) } else { by_object };
        let thought = Message::new("assistant", format!("{THINK}\n{THOUGHTS}\n{THOUGHT}\n\na"));
        let later = render(&[user.clone(), thought, user.clone()], Value::Null);
        let opens = opens_thoughts(&render(&[user], Value::Null));
        Self {
            shows_tools,
            calls: CallFormat::seen_in(&shown, NAME),
            arguments_as_text: arguments_as_text && shown.contains(NAME),
            // Who has thoughts does not want to see old ones.
            thinks: opens || (!later.is_empty() && !later.contains(THOUGHTS)),
        }
    }
}

/// Whether a prompt ends where thoughts begin.
pub(crate) fn opens_thoughts(prompt: &str) -> bool {
    prompt.trim_end().ends_with(THINK)
}

#[cfg(test)]
mod tests {
    use aerostat::ModelFiles;

    use super::*;

    /// A template beside the tokenizer's tests.
    fn template(name: &str) -> ChatTemplate {
        let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../aerostat-text/tests/data/chat/templates");
        let folder = tempfile::tempdir().unwrap();
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat");
        for entry in std::fs::read_dir(fixture).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        std::fs::copy(data.join(format!("{name}.jinja")), folder.path().join("chat_template.jinja")).unwrap();
        let files = ModelFiles::open(folder.path()).unwrap();
        let tokenizer = files.tokenizer().unwrap();
        files.chat_template(tokenizer.as_ref()).unwrap().unwrap()
    }

    #[test]
    fn templates_show_how_they_write_calls_and_thoughts() {
        let of = |name| {
            let Dialect { shows_tools, calls, arguments_as_text, thinks } = Dialect::of(&template(name));
            assert!(!arguments_as_text, "{name}");
            (shows_tools, calls, thinks)
        };
        assert_eq!(of("qwen3"), (true, Some(CallFormat::Hermes), true));
        assert_eq!(of("llama3"), (true, Some(CallFormat::Llama), false));
        assert_eq!(of("mistral"), (true, Some(CallFormat::Mistral), false));
        assert_eq!(of("deepseek"), (false, Some(CallFormat::DeepSeekFenced), true));
        assert_eq!(of("gemma"), (false, None, false));
        assert_eq!(of("chatml"), (false, None, false));
    }
}
