//! Ollama's door: the same answers in its words.

use aerostat_serve::Config;
use serde_json::{Value, json};

use crate::support::{Answer, Bench, config, files};

fn bench() -> Bench {
    Bench::talking(Config { ollama: true, ..config() })
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn chats_and_prompts_are_answered_as_by_openais_door() {
    let bench = bench();
    let messages = json!([{"role": "user", "content": "question 1"}]);
    let options = json!({"seed": 4, "temperature": 1, "num_predict": 12});
    let plain = bench.post(
        "/v1/chat/completions",
        &json!({"messages": messages, "seed": 4, "temperature": 1, "max_tokens": 12}),
    );
    let plain = plain.json();
    let message = &plain["choices"][0]["message"];
    let streamed =
        bench.post("/api/chat", &json!({"model": "tiny:latest", "messages": messages, "options": options}));
    let all = lines(&streamed);
    let joined: String = all.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert_eq!(joined, message["content"]);
    let (last, rest) = all.split_last().unwrap();
    assert!(rest.iter().all(|line| line["done"] == false && line["model"] == "tiny:latest"));
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &plain["choices"][0]["finish_reason"]));
    assert_eq!(
        (&last["prompt_eval_count"], &last["eval_count"]),
        (&plain["usage"]["prompt_tokens"], &plain["usage"]["completion_tokens"])
    );
    let whole = json!({"model": "tiny", "messages": messages, "options": options, "stream": false});
    let whole = bench.post("/api/chat", &whole).json();
    assert_eq!((&whole["message"]["content"], &whole["done"]), (&message["content"], &json!(true)));
    let prompt = json!({"model": "tiny", "prompt": "question 1", "options": options, "stream": false});
    assert_eq!(bench.post("/api/generate", &prompt).json()["response"], message["content"]);
    let raw = json!({"model": "tiny", "prompt": "a", "raw": true, "options": options, "stream": false});
    let plain = bench
        .post("/v1/completions", &json!({"prompt": "a", "seed": 4, "temperature": 1, "max_tokens": 12}))
        .json();
    assert_eq!(bench.post("/api/generate", &raw).json()["response"], plain["choices"][0]["text"]);
}

#[test]
fn functions_come_whole() {
    let parameters = json!({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": false});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    let bench = bench();
    // It calls, or says what has the form that is wanted.
    let messages = json!([{"role": "user", "content": "question 1"}]);
    let body = json!({"model": "tiny", "messages": messages, "tools": tools, "format": {"enum": [7]}, "stream": false});
    for seed in 0..4 {
        let mut body = body.clone();
        body["options"] = json!({"seed": seed, "temperature": 1, "num_predict": 100});
        let message = bench.post("/api/chat", &body).json()["message"].clone();
        let called = message["tool_calls"].as_array().map_or(0, Vec::len);
        match called {
            0 => assert_eq!(message["content"], "7", "{message}"),
            _ => {
                let call = json!({"index": 0, "name": "f", "arguments": {"a": 1}});
                assert_eq!((&message["tool_calls"][0]["function"], &message["content"]), (&call, &json!("")));
            }
        }
    }
    let mut refused = body;
    refused["tools"] = json!([{"type": "function", "function": {"name": ""}}]);
    let refused = bench.post("/api/chat", &refused);
    assert_eq!((refused.status, refused.json()["error"].is_string()), (400, true));
    let shown = bench.post("/api/show", &json!({"model": "tiny"})).json();
    let capabilities = shown["capabilities"].as_array().unwrap();
    assert!(
        ["completion", "tools", "thinking", "embedding"].iter().all(|c| capabilities.contains(&json!(c))),
        "{shown}"
    );
}

#[test]
fn models_are_told_and_cannot_be_changed() {
    let bench = bench();
    assert!(bench.get("/api/version").json()["version"].is_string());
    let tags = bench.get("/api/tags").json();
    assert_eq!(tags["models"][0]["name"], "tiny:latest");
    assert_eq!(tags["models"][0]["details"]["family"], files().spec().family);
    let vectors = bench.post("/api/embed", &json!({"model": "tiny", "input": ["a", "b"]})).json();
    let ours = bench.post("/v1/embeddings", &json!({"input": ["a", "b"]})).json();
    assert_eq!(vectors["embeddings"][1], ours["data"][1]["embedding"]);
    assert_eq!(
        bench.post("/api/embeddings", &json!({"model": "tiny", "prompt": "a"})).json()["embedding"]
            .as_array()
            .unwrap()
            .len(),
        32
    );
    // What is longer than the context is cut at its end, unless that is not wanted.
    let long = format!("a b{}", " c".repeat(2000));
    let cut = bench.post("/api/embed", &json!({"model": "tiny", "input": long}));
    assert_eq!(cut.status, 200, "{cut:?}");
    assert_eq!(cut.json()["embeddings"][0].as_array().map(Vec::len), Some(32));
    let whole = bench.post("/api/embed", &json!({"model": "tiny", "input": long, "truncate": false}));
    assert_eq!((whole.status, whole.json()["error"].is_string()), (400, true), "{whole:?}");
    assert_eq!(bench.post("/api/embed", &json!({"model": "tiny", "input": "a", "truncate": 1})).status, 400);
    for path in ["/api/pull", "/api/create", "/api/copy"] {
        let refused = bench.post(path, &json!({"model": "other"}));
        assert_eq!((refused.status, refused.json()["error"].is_string()), (403, true));
    }
    assert_eq!(bench.delete("/api/delete").status, 403);
    let unknown = bench.post("/api/chat", &json!({"model": "other", "messages": []}));
    assert_eq!(unknown.status, 404);
    // Without the flag there is no door.
    assert_eq!(Bench::new().get("/api/tags").status, 404);
}

/// An empty prompt, by which clients have a model loaded, was once answered with as many tokens as an answer may have.
#[test]
fn who_asks_nothing_has_the_model_loaded() {
    let bench = bench();
    for (path, more, reason) in [
        ("/api/generate", json!({}), "load"),
        ("/api/generate", json!({"prompt": "", "keep_alive": "5m"}), "load"),
        ("/api/generate", json!({"keep_alive": 0}), "unload"),
        ("/api/chat", json!({"messages": []}), "load"),
    ] {
        let mut body = json!({"model": "tiny"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = bench.post(path, &body);
        assert_eq!(answer.status, 200, "{path} {more}: {answer:?}");
        let line = answer.json();
        assert_eq!((&line["done"], &line["done_reason"]), (&json!(true), &json!(reason)));
        assert!(line["eval_count"].is_null());
    }
}
