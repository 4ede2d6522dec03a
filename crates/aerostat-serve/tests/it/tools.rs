//! Functions that are called, whole and in chunks, by a server and by a batch alike.

use serde_json::{Value, json};

use crate::support::{Bench, chat, config, line};

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"], "additionalProperties": false});
    json!([{"type": "function", "function": {"name": "weather", "description": "d", "parameters": parameters}}])
}

fn forced(seed: u64) -> Value {
    chat(json!({"tools": tools(), "tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 200,
        "seed": seed, "temperature": 1}))
}

/// Name and arguments without the id, which is another one each time.
fn calls(message: &Value) -> Vec<(String, String)> {
    let calls = message["tool_calls"].as_array().unwrap_or_else(|| panic!("{message}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    calls.iter().map(|c| (text(&c["function"]["name"]), text(&c["function"]["arguments"]))).collect()
}

#[test]
fn a_function_that_must_be_called_is_called() {
    let bench = Bench::talking(config());
    for seed in 0..3 {
        let whole = bench.post("/v1/chat/completions", &forced(seed)).json();
        let choice = &whole["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &Value::Null),
            "{whole}"
        );
        let found = calls(&choice["message"]);
        let arguments: Value = serde_json::from_str(&found[0].1).unwrap();
        assert!(found[0].0 == "weather" && ["Rome", "Oslo"].iter().any(|city| arguments["city"] == *city));
        let mut streamed = forced(seed);
        streamed["stream"] = true.into();
        let chunks = bench.post("/v1/chat/completions", &streamed).chunks();
        let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
        let parts: Vec<&Value> = deltas.iter().filter_map(|d| d["tool_calls"].as_array()).flatten().collect();
        assert!(parts[0]["id"].is_string() && parts[0]["type"] == "function" && parts[0]["index"] == 0);
        assert_eq!(parts[0]["function"]["name"], "weather");
        assert!(
            parts[1..].iter().all(|part| part.get("id").is_none() && part["function"].get("name").is_none())
        );
        let joined: String = parts.iter().filter_map(|part| part["function"]["arguments"].as_str()).collect();
        assert_eq!(joined, found[0].1);
        assert!(deltas.iter().all(|delta| delta["content"].as_str().is_none_or(str::is_empty)));
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    }
}

/// They were refused together.
#[test]
fn an_answer_is_a_call_or_has_its_format() {
    let bench = Bench::talking(config());
    let schema = json!({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let mark = bench.post("/tokenize", &json!({"prompt": "<", "add_special_tokens": false})).json();
    // What it would rather say decides it.
    for (bias, calls_it) in [(100, true), (-100, false)] {
        let body = chat(json!({"tools": tools(), "response_format": format, "max_tokens": 200, "seed": 1,
            "logit_bias": {mark["tokens"][0].to_string(): bias}}));
        let choice = bench.post("/v1/chat/completions", &body).json()["choices"][0].clone();
        match calls_it {
            true => {
                assert_eq!(
                    (&choice["finish_reason"], &choice["message"]["content"]),
                    (&json!("tool_calls"), &Value::Null)
                );
                assert_eq!(calls(&choice["message"])[0].0, "weather");
            }
            false => {
                assert_eq!(choice["finish_reason"], "stop");
                assert_eq!(
                    (&choice["message"]["content"], choice["message"].get("tool_calls")),
                    (&json!("{\"a\": 1}"), None)
                );
            }
        }
    }
}

#[test]
fn a_batch_calls_what_a_single_request_calls() {
    let folder = tempfile::tempdir().unwrap();
    let data = Some(folder.path().join("data"));
    let bench = Bench::talking(aerostat_serve::Config { data, ..config() });
    let text = (0..4).map(|seed| line(&format!("r{seed}"), &forced(seed))).collect::<Vec<_>>().join("\n");
    let file = bench.upload(&text);
    let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let made = bench.post("/v1/batches", &body).json();
    let batch = bench.ended(made["id"].as_str().unwrap());
    assert_eq!(batch["request_counts"], json!({"total": 4, "completed": 4, "failed": 0}));
    let results = bench.results(&batch["output_file_id"]);
    for seed in 0..4 {
        let alone = bench.post("/v1/chat/completions", &forced(seed)).json();
        let one = &results[&format!("r{seed}")]["response"]["body"]["choices"][0];
        assert_eq!(calls(&one["message"]), calls(&alone["choices"][0]["message"]));
        assert_eq!(one["finish_reason"], "tool_calls");
    }
}

#[test]
fn what_cannot_be_called_is_refused() {
    let bench = Bench::new();
    let refused = bench.post("/v1/chat/completions", &chat(json!({"tools": tools()})));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tools")));
    let bad = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "wishes"}}}]);
    let refused = bench.post("/v1/chat/completions", &chat(json!({"tools": bad, "tool_choice": "required"})));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tools")));
    // A template that knows no functions is told of them in words.
    let forced = bench.post("/v1/chat/completions", &forced(1)).json();
    assert_eq!(calls(&forced["choices"][0]["message"])[0].0, "weather");
}

#[test]
fn prompts_with_a_salt_of_their_own_give_the_same_answers() {
    let bench = Bench::new();
    let body = |salt: Value| chat(json!({"seed": 5, "temperature": 1, "max_tokens": 8, "cache_salt": salt}));
    let answer = |salt| bench.post("/v1/chat/completions", &body(salt)).json()["choices"].clone();
    let plain = answer(Value::Null);
    assert_eq!((answer(json!("a")), answer(json!("b"))), (plain.clone(), plain));
    assert_eq!(bench.post("/v1/chat/completions", &body(json!(""))).status, 400);
}
