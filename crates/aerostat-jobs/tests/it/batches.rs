//! Batch files as users write them: what is served, in which shape, and what is refused, line by line.

use std::fs;
use std::io::Write;

use aerostat_jobs::disk::System;
use aerostat_jobs::{Setting, Shard, Survey, Unwatched, list_jobs, survey};
use serde_json::{Value, json};

use crate::support::{Bench, chat, line, mixed, model};

fn messages() -> Value {
    json!([{"role": "user", "content": "hello"}])
}

#[test]
fn every_bad_line_is_an_error_of_its_own_and_the_rest_goes_on() {
    let chat = chat_with;
    let lines = [
        ("{\"custom_id\": \"x\", ".to_owned(), "invalid_json"),
        ("[1, 2]".to_owned(), "invalid_json"),
        ("{\"url\": \"/v1/chat/completions\"}".to_owned(), "missing_parameter"),
        (json!({"custom_id": 7, "url": "/v1/completions", "body": {}}).to_string(), "invalid_value"),
        (json!({"custom_id": "nothing", "url": "/v1/completions"}).to_string(), "missing_parameter"),
        (line("url", "/v1/images", json!({})), "unknown_url"),
        (
            line("method", "/v1/completions", json!({"prompt": "a"})).replace("POST", "GET"),
            "unsupported_parameter",
        ),
        (chat("long", json!({"max_tokens": 5000})), "context_length_exceeded"),
        (
            line("longer", "/v1/completions", json!({"prompt": "x".repeat(1 << 20)})),
            "context_length_exceeded",
        ),
        (chat("tools", json!({"tools": [{"type": "function"}]})), "invalid_value"),
        (chat("novel", json!({"telepathy": 1})), "unsupported_parameter"),
        (chat("stream", json!({"stream": true})), "unsupported_parameter"),
        (chat("hot", json!({"temperature": -1})), "invalid_value"),
        (chat("word", json!({"temperature": "warm"})), "invalid_value"),
        (chat("p", json!({"top_p": 1.5})), "invalid_value"),
        (chat("bias", json!({"logit_bias": {"99999": 1}})), "invalid_value"),
        (chat("top", json!({"top_logprobs": 3})), "invalid_value"),
        (chat("format", json!({"response_format": {"type": "yaml"}})), "invalid_value"),
        (
            chat(
                "schema",
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "banana"}}}}),
            ),
            "invalid_value",
        ),
        (
            line(
                "image",
                "/v1/chat/completions",
                json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            ),
            "invalid_value",
        ),
        (line("empty", "/v1/completions", json!({"prompt": []})), "invalid_value"),
        (line("ids", "/v1/completions", json!({"prompt": [1, 100_000]})), "invalid_value"),
        (chat("good", json!({"max_tokens": 2})), ""),
        (chat("good", json!({"max_tokens": 2})), "duplicate_custom_id"),
    ];
    refused(&lines);
}

#[test]
fn values_that_mean_nothing_or_take_too_much_are_refused() {
    let chat = chat_with;
    refused(&[
        // Each of up to 128 answers held its own copies, of which no memory knew, and looked for them with every token.
        (chat("stops", json!({"stop": vec!["x"; 65]})), "invalid_value"),
        (chat("long stop", json!({"stop": "x".repeat(20_000)})), "invalid_value"),
        (chat("stop ids", json!({"stop_token_ids": vec![1; 1_025]})), "invalid_value"),
        (chat("tier", json!({"service_tier": "zzz"})), "invalid_value"),
        (chat("priority", json!({"priority": {}})), "invalid_value"),
        (chat("metadata", json!({"metadata": 5})), "invalid_value"),
        (chat("user", json!({"user": 5})), "invalid_value"),
        (chat("store", json!({"store": "no"})), "invalid_value"),
        (chat("no content", json!({"messages": [{"role": "user"}]})), "missing_parameter"),
        (
            chat(
                "one name",
                json!({"tools": vec![json!({"type": "function", "function": {"name": "f"}}); 2]}),
            ),
            "invalid_value",
        ),
        (chat("good", json!({"max_tokens": 2})), ""),
    ]);
}

/// A line that asks for a chat with these members.
fn chat_with(id: &str, extra: Value) -> String {
    let mut body = json!({"messages": messages()});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    line(id, "/v1/chat/completions", body)
}

/// Runs lines of which one is good; the others fail with these codes.
fn refused(lines: &[(String, &str)]) {
    let bench = Bench::new(&lines.iter().map(|(line, _)| line.clone()).collect::<Vec<_>>());
    let counts = bench.run().unwrap();
    assert_eq!((counts.done, counts.failed as usize), (1, lines.len() - 1));
    assert!(bench.results().contains_key("good"));
    let failures = bench.failures();
    let wanted = lines.iter().enumerate().filter(|(_, (_, code))| !code.is_empty());
    for ((number, (line, code)), failure) in wanted.zip(&failures) {
        assert_eq!(failure["error"]["code"], *code, "{line}: {failure}");
        assert_eq!(failure["error"]["line"], number + 1);
        assert_eq!(failure["response"]["status_code"], 400);
        assert_eq!(failure["response"]["body"]["error"]["type"], "invalid_request_error");
        assert!(!failure["error"]["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_chat_answer_has_the_shape_of_openai() {
    let body = json!({
        "model": "some/model", "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}],
        "n": 2, "temperature": 1, "seed": 5, "max_completion_tokens": 6, "logprobs": true, "top_logprobs": 3,
        "user": "u", "metadata": {"a": "b"}, "store": false, "stop": null,
    });
    let bench = Bench::new(&[line("r", "/v1/chat/completions", body)]);
    bench.run().unwrap();
    let result = &bench.results()["r"];
    assert_eq!(result["id"], "batch_req_0000000001");
    assert_eq!(result["error"], Value::Null);
    assert_eq!(result["response"]["status_code"], 200);
    let body = &result["response"]["body"];
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("some/model")));
    let choices = body["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    assert_ne!(choices[0]["message"]["content"], choices[1]["message"]["content"]);
    let mut tokens = 0;
    for (i, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], i);
        assert_eq!(choice["message"]["role"], "assistant");
        let content = choice["logprobs"]["content"].as_array().unwrap();
        tokens += content.len() as u64;
        for token in content {
            assert!(token["logprob"].as_f64().unwrap() <= 0.0 && token["token"].is_string());
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        }
    }
    let usage = &body["usage"];
    let number = |key: &str| usage[key].as_u64().unwrap();
    assert!(number("completion_tokens") >= tokens && number("completion_tokens") <= 12);
    assert_eq!(number("total_tokens"), number("prompt_tokens") + number("completion_tokens"));
}

#[test]
fn completions_and_scores_have_their_shapes() {
    let lines = [
        line(
            "c",
            "/v1/completions",
            json!({"prompt": ["a", [5, 6]], "n": 2, "max_tokens": 4, "logprobs": 2, "temperature": 0}),
        ),
        line("s", "/v1/score", json!({"text_1": "What is it?", "text_2": [" a cat", " a dog"]})),
        line("i", "/v1/score", json!({"text_1": [5, 6, 7], "text_2": [8, 9]})),
    ];
    let embeddings = [
        line("e", "/v1/embeddings", json!({"input": ["a text", [5, 6, 7]], "dimensions": 4})),
        line("b", "/v1/embeddings", json!({"input": "a text", "dimensions": 4, "encoding_format": "base64"})),
    ];
    let bench = Bench::new(&[&lines[..], &embeddings].concat());
    bench.run().unwrap();
    let results = bench.results();
    let body = &results["e"]["response"]["body"];
    assert_eq!((&body["object"], body["data"].as_array().unwrap().len()), (&json!("list"), 2));
    let vector: Vec<f32> = serde_json::from_value(body["data"][0]["embedding"].clone()).unwrap();
    let norm: f32 = vector.iter().map(|x| x * x).sum();
    assert!(vector.len() == 4 && (norm - 1.0).abs() < 1e-5, "{vector:?}");
    // Sixteen bytes are twenty-four characters.
    assert_eq!(results["b"]["response"]["body"]["data"][0]["embedding"].as_str().unwrap().len(), 24);
    let body = &results["c"]["response"]["body"];
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["choices"].as_array().unwrap().len(), 4);
    assert_eq!(body["choices"][0]["text"], body["choices"][1]["text"], "greedy answers are the same");
    let logprobs = &body["choices"][3]["logprobs"];
    let count = logprobs["tokens"].as_array().unwrap().len();
    for key in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[key].as_array().unwrap().len(), count, "{key}");
    }
    let data = results["s"]["response"]["body"]["data"].as_array().unwrap();
    assert_eq!(data.len(), 2);
    for one in data {
        let sum: f64 = one["token_logprobs"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).sum();
        assert!((sum - one["score"].as_f64().unwrap()).abs() < 1e-4 && sum < 0.0);
    }
    assert_eq!(results["i"]["response"]["body"]["data"][0]["token_logprobs"].as_array().unwrap().len(), 2);
}

/// As vLLM's documentation writes batch files: chats with a system message, and scores of several texts.
#[test]
fn a_batch_file_in_the_manner_of_vllm_runs_unchanged() {
    let chat = |id: &str, system: &str| {
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": {
            "model": "meta-llama/Meta-Llama-3-8B-Instruct",
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": "Hello world!"}],
            "max_completion_tokens": 1000}})
        .to_string()
    };
    let score = json!({"custom_id": "request-3", "method": "POST", "url": "/v1/score", "body": {
        "model": "BAAI/bge-reranker-v2-m3", "text_1": "What is the capital of France?",
        "text_2": ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]}});
    let newer = json!({"custom_id": "request-4", "method": "POST", "url": "/v1/score", "body": {
        "model": "BAAI/bge-reranker-v2-m3", "queries": "What is the capital of France?",
        "documents": ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]}});
    let lines = [
        chat("request-1", "You are a helpful assistant."),
        chat("request-2", "You are an unhelpful assistant."),
        score.to_string(),
        newer.to_string(),
    ];
    let mut bench = Bench::new(&lines);
    // The model was made for less than the file asks for.
    bench.options.context = Some(2048);
    let setting = Setting::new(&model(), "tiny", &bench.options).unwrap();
    let survey: Survey = survey(&bench.paths.input, setting, Shard::default(), &Unwatched).unwrap();
    assert_eq!((survey.counts.total, survey.counts.failed), (4, 0), "{:?}", survey.first_errors);
    assert_eq!(survey.lengths.sequences, 6);
    assert_eq!(survey.lengths.total - survey.lengths.prompts, 2000);
}

/// A line of 4 MB that was refused once raised the smallest budget of all others, from 27 to 50 MiB.
#[test]
fn within_little_memory_lines_that_take_much_of_it_fail_alone() {
    let ask = |id: usize, body: serde_json::Value| {
        let mut whole =
            json!({"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        json!({"custom_id": id.to_string(), "method": "POST", "url": "/v1/chat/completions", "body": whole})
            .to_string()
    };
    let function = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let lines = [
        ask(0, json!({})),
        ask(1, json!({"user": "a".repeat(4 << 20)})),
        ask(2, json!({"tools": vec![function; 20_000]})),
        ask(3, json!({})),
        ask(4, json!({"messages": [{"role": "user", "content": "a ".repeat(700_000)}]})),
        ask(5, json!({"messages": vec![json!({"role": "user", "content": "a"}); 7_000]})),
        ask(6, json!({"guided_choice": (0..4_000).map(|i| format!("label {i}")).collect::<Vec<_>>()})),
    ];
    let bench = Bench::new(&lines);
    let failed = |memory: u64| {
        let setting = Setting::new(&model(), "tiny", &bench.options).unwrap().within(memory);
        let survey: Survey = survey(&bench.paths.input, setting, Shard::default(), &Unwatched).unwrap();
        survey.first_errors
    };
    let little = failed(30 << 20);
    assert_eq!(little.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 5, 6, 7], "{little:?}");
    // More memory would not help the fourth of them.
    let told = |line: u64| if line == 5 { "no context of this size" } else { "so little memory" };
    assert!(little.iter().all(|(line, why)| why.contains(told(*line))), "{little:?}");
    assert!(failed(64 << 30).iter().all(|(_, why)| !why.contains("memory")));
}

#[test]
fn packed_inputs_and_outputs_give_the_same_results() {
    let lines = mixed(6);
    let plain = Bench::new(&lines);
    plain.run().unwrap();
    for (name, output) in [("in.jsonl.gz", "out.jsonl.zst"), ("in.jsonl.zst", "out.jsonl.gz")] {
        let mut bench = Bench::named(&lines, output);
        let text = fs::read(&bench.paths.input).unwrap();
        bench.paths.input = bench.folder.path().join(name);
        let packed = if name.ends_with("gz") {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&text).unwrap();
            encoder.finish().unwrap()
        } else {
            zstd::encode_all(&text[..], 3).unwrap()
        };
        fs::write(&bench.paths.input, packed).unwrap();
        bench.run().unwrap();
        assert_eq!(bench.results(), plain.results());
    }
}

/// The order of lines, and what else is in the file, do not show in a result.
#[test]
fn a_request_alone_gives_what_it_gives_among_others() {
    let seeded = |i: usize| chat(i, json!({"max_tokens": 10 + i, "temperature": 1, "seed": i, "n": 2}));
    let lines: Vec<String> = (0..8).map(seeded).collect();
    let together = Bench::new(&lines);
    together.run().unwrap();
    let alone = Bench::new(&lines[5..6]);
    alone.run().unwrap();
    let body = |bench: &Bench| bench.results()["r5"]["response"]["body"]["choices"].clone();
    assert_eq!(body(&alone), body(&together));
}

#[test]
fn jobs_are_listed_with_how_far_they_are() {
    let bench = Bench::new(&mixed(4));
    bench.run().unwrap();
    fs::write(bench.folder.path().join("other.job"), "nothing of ours").unwrap();
    for path in [bench.folder.path(), &bench.paths.output] {
        let jobs = list_jobs(path).unwrap();
        assert_eq!(jobs.len(), 1);
        assert_eq!((jobs[0].state.as_str(), jobs[0].total, jobs[0].failed), ("finished", 8, 2));
        assert_eq!(jobs[0].output, bench.paths.output);
    }
    assert!(list_jobs(&bench.folder.path().join("nothing.jsonl")).is_err());
    // One with an output beside it is a job whose database has suffered.
    fs::write(bench.folder.path().join("lost.jsonl"), "{}\n").unwrap();
    fs::write(bench.folder.path().join("lost.jsonl.job"), [7; 5000]).unwrap();
    let jobs = list_jobs(bench.folder.path()).unwrap();
    assert_eq!(jobs.iter().map(|job| job.state.as_str()).collect::<Vec<_>>(), ["unreadable", "finished"]);
    assert!(jobs[0].reason.as_ref().unwrap().contains("lost.jsonl.job"), "{:?}", jobs[0].reason);
}

/// 15 MB of bad lines, packed, once gave 1.7 GB of errors.
#[test]
fn errors_of_bad_lines_are_written_up_to_a_bound_and_the_rest_counted() {
    let mut lines = vec!["x".to_owned(); 300_000];
    lines.push(chat(1, json!({"max_tokens": 2})));
    let bench = Bench::new(&lines);
    let job = bench.open(System, &Unwatched).unwrap();
    let (untold, counts) = (job.untold(), job.counts());
    drop(job);
    assert_eq!((counts.failed, counts.left()), (300_000, 1));
    let told = fs::read_to_string(&bench.paths.errors).unwrap().lines().count() as u64;
    assert_eq!(told + untold, 300_000);
    assert!(untold > 0);
    let bytes = fs::metadata(&bench.paths.errors).unwrap().len();
    assert!((64 << 20..65 << 20).contains(&bytes), "{bytes}");
    assert_eq!(bench.open(System, &Unwatched).unwrap().untold(), untold, "it is remembered");
    assert_eq!(bench.run().unwrap().done, 1);
}

#[test]
fn an_error_repeats_little_of_what_it_is_about() {
    let long = "l".repeat(50_000);
    let lines = [
        line(&long, "/v1/completions", json!({"prompt": 5})),
        line("a", &long, json!({})),
        line("b", "/v1/completions", json!({"prompt": "a", long.as_str(): 1})),
        line("c", "/v1/completions", json!({"prompt": "a", "temperature": long})),
        line("d", "/v1/completions", json!({"prompt": "a", "guided_regex": format!("({long}")})),
        format!("{{\"{long}"),
    ];
    let bench = Bench::new(&lines);
    assert_eq!(bench.run().unwrap().failed, lines.len() as u64);
    for failure in bench.failures() {
        assert!(failure.to_string().chars().count() < 2000, "{failure}");
    }
}

/// A prompt that is far too long is refused before it is tokenised whole; one that is to be cut is not.
#[test]
fn a_prompt_that_is_to_be_cut_may_be_of_any_length() {
    let body = |prompt: Value, more: Value| {
        let mut body = json!({"prompt": prompt, "max_tokens": 2, "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (text, ids) = (json!("word ".repeat(40_000)), json!(vec![7; 70_000]));
    let cut = || json!({"truncate_prompt_tokens": 8});
    let lines = [
        line("text", "/v1/completions", body(text.clone(), json!({}))),
        line("ids", "/v1/completions", body(ids.clone(), json!({}))),
        line("cut text", "/v1/completions", body(text, cut())),
        line("cut ids", "/v1/completions", body(ids, cut())),
    ];
    let bench = Bench::new(&lines);
    let counts = bench.run().unwrap();
    assert_eq!((counts.done, counts.failed), (2, 2));
    for failure in bench.failures() {
        assert_eq!(failure["error"]["code"], "context_length_exceeded", "{failure}");
    }
    for result in bench.results().values() {
        assert_eq!(result["response"]["body"]["usage"]["prompt_tokens"], 8);
    }
}
