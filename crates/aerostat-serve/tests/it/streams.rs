//! Answers in chunks: joined, they are the answer that comes whole.

use std::time::Duration;

use aerostat::Options;
use serde_json::{Value, json};

use crate::support::{Answer, Bench, chat, config, options};

fn streamed(bench: &Bench, path: &str, body: &Value) -> Answer {
    let mut body = body.clone();
    body["stream"] = true.into();
    let answer = bench.post(path, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    answer
}

/// The chunks of one choice.
fn of_choice(chunks: &[Value], index: usize) -> Vec<&Value> {
    chunks.iter().flat_map(|c| c["choices"].as_array().unwrap()).filter(|c| c["index"] == index).collect()
}

#[test]
fn chunks_joined_are_the_chat_that_comes_whole() {
    let bench = Bench::new();
    for more in [
        json!({"max_tokens": 20, "temperature": 0, "seed": 1}),
        json!({"max_tokens": 20, "temperature": 1.3, "seed": 9, "n": 3, "logprobs": true, "top_logprobs": 2}),
        json!({"max_tokens": 60, "temperature": 0.7, "seed": 2, "stop": ["e", "zz"]}),
        json!({"max_tokens": 30, "seed": 1, "guided_choice": ["alpha", "beta"], "logprobs": true}),
    ] {
        let body = chat(more);
        let whole = bench.post("/v1/chat/completions", &body).json();
        let chunks = streamed(&bench, "/v1/chat/completions", &body).chunks();
        for chunk in &chunks {
            assert_eq!(chunk["object"], "chat.completion.chunk");
            assert_eq!((&chunk["id"], &chunk["created"]), (&chunks[0]["id"], &chunks[0]["created"]));
            assert_eq!(chunk["system_fingerprint"], whole["system_fingerprint"]);
            assert_eq!(chunk.get("usage"), None);
        }
        for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
            let deltas = of_choice(&chunks, index);
            assert_eq!(deltas[0]["delta"], json!({"role": "assistant", "content": ""}));
            let (last, rest) = deltas.split_last().unwrap();
            assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &choice["finish_reason"]));
            assert!(rest.iter().all(|delta| delta["finish_reason"].is_null()));
            let text: String = rest.iter().filter_map(|d| d["delta"]["content"].as_str()).collect();
            assert_eq!(text, choice["message"]["content"]);
            let logprobs: Vec<&Value> =
                rest.iter().filter_map(|d| d["logprobs"]["content"].as_array()).flatten().collect();
            let wanted: Vec<&Value> =
                choice["logprobs"]["content"].as_array().into_iter().flatten().collect();
            assert_eq!(logprobs, wanted);
        }
    }
}

#[test]
fn chunks_joined_are_the_completion_that_comes_whole() {
    let bench = Bench::new();
    let body =
        json!({"prompt": ["a", "the"], "n": 2, "max_tokens": 9, "logprobs": 2, "seed": 4, "temperature": 1});
    let whole = bench.post("/v1/completions", &body).json();
    let chunks = streamed(&bench, "/v1/completions", &body).chunks();
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        let parts = of_choice(&chunks, index);
        let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        assert_eq!(text, choice["text"]);
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let joined: Vec<&Value> =
                parts.iter().filter_map(|part| part["logprobs"][name].as_array()).flatten().collect();
            let wanted: Vec<&Value> = choice["logprobs"][name].as_array().unwrap().iter().collect();
            assert_eq!(joined, wanted, "{name}");
        }
        assert_eq!(parts.last().unwrap()["finish_reason"], choice["finish_reason"]);
    }
}

#[test]
fn the_usage_comes_last_or_always() {
    let bench = Bench::new();
    let body = chat(
        json!({"max_tokens": 5, "seed": 1, "ignore_eos": true, "stream_options": {"include_usage": true}}),
    );
    let chunks = streamed(&bench, "/v1/chat/completions", &body).chunks();
    let (last, rest) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(5)));
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = chat(json!({"max_tokens": 5, "seed": 1, "ignore_eos": true, "stream_options": options}));
    let chunks = streamed(&bench, "/v1/chat/completions", &body).chunks();
    let counts: Vec<u64> = chunks.iter().map(|c| c["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts.last() == Some(&5), "{counts:?}");
}

/// Some clients wait for bytes and some for chunks: long prompts give both.
#[test]
fn a_stream_that_waits_gives_signs_of_life() {
    let mut config = config();
    config.limits.sign_time = Duration::from_millis(3);
    config.limits.chunk_time = Duration::from_millis(20);
    let bench = Bench::of(config, Options { rows_max: Some(1), ..options() });
    let body = json!({"prompt": vec![5; 450], "max_tokens": 2, "seed": 1, "ignore_eos": true, "return_progress": true});
    let answer = streamed(&bench, "/v1/completions", &body);
    // A comment is one line: with an empty line after it some clients take it for an event.
    assert!(answer.body.contains(":\n") && !answer.body.contains(":\n\n"), "{:?}", answer.body);
    let chunks = answer.chunks();
    let signs: Vec<&Value> = chunks.iter().filter(|chunk| chunk.get("prompt_progress").is_some()).collect();
    assert!(!signs.is_empty(), "{chunks:?}");
    assert!(
        signs
            .iter()
            .all(|sign| sign["choices"][0]["text"] == "" && sign["choices"][0]["finish_reason"].is_null())
    );
    let whole = bench.post(
        "/v1/completions",
        &json!({"prompt": vec![5; 450], "max_tokens": 2, "seed": 1, "ignore_eos": true}),
    );
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, whole.json()["choices"][0]["text"]);
}

#[test]
fn what_cannot_be_streamed_says_so_before_it_begins() {
    let bench = Bench::new();
    let refused = bench.post("/v1/chat/completions", &chat(json!({"stream": true, "n": 0})));
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_value"));
    let echo = json!({"prompt": "a", "echo": true, "stream": true});
    let refused = bench.post("/v1/completions", &echo);
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("echo")));
    let refused = bench.post("/v1/embeddings", &json!({"input": "a", "stream": true}));
    assert_eq!((refused.status, refused.code().as_str()), (400, "unsupported_parameter"));
}
