//! Any text as a chat template, with a conversation that has tools.
#![no_main]

use aerostat_text::{ChatTemplate, Message, Specials};
use serde_json::json;

libfuzzer_sys::fuzz_target!(|source: &str| {
    let rendered = ChatTemplate::new(source, Specials::default()).and_then(|template| {
        let mut call = Message::new("assistant", "");
        call.extra.insert("tool_calls".into(), json!([{"function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}}]));
        let messages = [Message::new("system", " be "), Message::new("user", "héllo\n"), call];
        let variables = json!({"tools": [{"name": "f"}], "n": null, "x": 1.5, "l": [3, 1, 2], "s": "aB c", "d": {"k": "v"}});
        template.render(&messages, true, variables.as_object().cloned().unwrap_or_default())
    });
    match rendered {
        Ok(text) => assert!(text.len() <= 32 << 20),
        Err(error) => assert!(error.to_string().len() < 600),
    }
});
