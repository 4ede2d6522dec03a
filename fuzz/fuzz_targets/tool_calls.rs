//! Any text as an answer that calls functions, in the words of some family: the first byte says which. Whole and letter by
//! letter, it is taken apart alike.
#![no_main]

use std::cell::OnceCell;
use std::fs;
use std::path::Path;

use aerostat::ModelFiles;
use aerostat_openai::{ApiRequest, Endpoint, Rules, Setting};
use serde_json::json;

const TEMPLATES: [&str; 4] = ["qwen3", "llama3", "mistral", "deepseek"];

thread_local! {
    static REQUESTS: OnceCell<Vec<ApiRequest>> = const { OnceCell::new() };
}

/// A request with a function for each template.
fn requests() -> Vec<ApiRequest> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::env::temp_dir().join(format!("aerostat-fuzz-calls-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the model");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(root.join("fixtures/chat").join(file), folder.join(file)).expect("the fixture is there");
    }
    let read = |template: &&str| {
        let source = format!("crates/aerostat-text/tests/data/chat/templates/{template}.jinja");
        fs::copy(root.join(source), folder.join("chat_template.jinja")).expect("the template is there");
        let rules = Rules { context: Some(4096), max_new_tokens: 16, seed: 0, lenient: false };
        let files = ModelFiles::open(&folder).expect("the fixture is there");
        let setting = Setting::new(&files, "tiny", rules).expect("the fixture is whole");
        let body = json!({"messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]});
        setting.read(Endpoint::Chat, body.as_object().cloned().unwrap_or_default(), 0).ok()
    };
    TEMPLATES.iter().filter_map(read).collect()
}

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let (which, text) = input;
    REQUESTS.with(|known| {
        let known = known.get_or_init(requests);
        let request = &known[usize::from(which) % known.len()];
        let (Some(mut whole), Some(mut parts)) = (request.task.splitter(), request.task.splitter()) else {
            return;
        };
        whole.push(text);
        whole.finish();
        text.chars().for_each(|letter| drop(parts.push(&letter.to_string())));
        parts.finish();
        assert_eq!(whole.calls(), parts.calls());
    });
});
