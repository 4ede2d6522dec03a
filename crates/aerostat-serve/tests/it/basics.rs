//! What every request meets: paths, methods, keys, names; health; the end.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use aerostat::{ErrorKind as EngineErrorKind, Options};
use aerostat_serve::{Config, ErrorKind, Keys, Server};
use serde_json::json;

use crate::support::{Bench, chat, config, files, options, request, until};

#[test]
fn the_server_says_what_it_is() {
    let bench = Bench::new();
    let health = bench.get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("ok")));
    assert_eq!(bench.get("/version").json()["version"], env!("CARGO_PKG_VERSION"));
    let models = bench.get("/v1/models").json();
    let model = &models["data"][0];
    assert_eq!((models["object"].as_str(), model["id"].as_str()), (Some("list"), Some("tiny")));
    assert_eq!((&model["object"], &model["max_model_len"]), (&json!("model"), &json!(512)));
    assert_eq!(&bench.get("/v1/models/tiny").json(), model);
    let other = bench.get("/v1/models/other");
    assert_eq!((other.status, other.code().as_str()), (404, "model_not_found"));
    // Each answer can be named to whoever keeps the server.
    assert!(health.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{}", health.head);
}

#[test]
fn a_model_may_have_names_with_slashes() {
    let names = vec!["org/name".to_owned(), "gpt-4".to_owned()];
    let bench = Bench::with(Config { names, ..config() });
    for path in ["/v1/models/org/name", "/v1/models/org%2Fname", "/v1/models/gpt-4"] {
        assert_eq!(bench.get(path).status, 200, "{path}");
    }
    let body = chat(json!({"model": "gpt-4", "max_tokens": 1}));
    assert_eq!(bench.post("/v1/chat/completions", &body).json()["model"], "gpt-4");
    let body = chat(json!({"model": "tiny", "max_tokens": 1}));
    let refused = bench.post("/v1/chat/completions", &body);
    assert_eq!((refused.status, refused.code().as_str()), (404, "model_not_found"));
    let unnamed = chat(json!({"model": null, "max_tokens": 1}));
    assert_eq!(bench.post("/v1/chat/completions", &unnamed).json()["model"], "org/name");
}

#[test]
fn what_is_not_there_is_told_in_openais_shape() {
    let bench = Bench::new();
    let unknown = bench.get("/v1/images");
    let error = &unknown.json()["error"];
    assert_eq!((unknown.status, &error["code"], &error["param"]), (404, &json!("not_found"), &json!(null)));
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    // OpenAI's clients would try 409 and others again.
    assert_eq!(unknown.header("x-should-retry"), Some("false"));
    let method = bench.get("/v1/chat/completions");
    assert_eq!((method.status, method.header("allow")), (405, Some("post")));
    let options = bench.send("OPTIONS /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(options.status, 405);
    assert_eq!(options.header("access-control-allow-origin"), None);
    let head = bench.send("HEAD /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn bodies_are_json_that_says_so() {
    let bench = Bench::new();
    let post = |kind: &str, body: &str| {
        bench.send(&format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{kind}content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let good = r#"{"prompt": "a", "max_tokens": 1}"#;
    for (kind, status) in [
        ("content-type: application/json\r\n", 200),
        ("content-type: Application/JSON; charset=utf-8\r\n", 200),
        ("content-type: text/plain\r\n", 415),
        ("content-type: application/x-www-form-urlencoded\r\n", 415),
        ("content-type: application/json\r\ncontent-type: text/plain\r\n", 415),
        ("", 415),
    ] {
        assert_eq!(post(kind, good).status, status, "{kind}");
    }
    for bad in [
        "",
        "{",
        "[]",
        "null",
        "\"a\"",
        "{\"prompt\": \"\\ud800\"}",
        r#"{"prompt": "a", "prompt": "b"}"#,
        &"[".repeat(100_000),
    ] {
        let answer = post("content-type: application/json\r\n", bad);
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_json"), "{answer:?}");
    }
}

#[test]
fn a_key_opens_all_and_nothing_but_health_is_open() {
    let keys = Keys::parse("sesame");
    let bench = Bench::with(Config { keys, ..config() });
    assert_eq!(bench.get("/health").status, 200);
    for path in ["/v1/models", "/version", "/v1/none", "/v1/aerostat/requests", "/tokenizer_info"] {
        let refused = bench.get(path);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_api_key"), "{path}");
    }
    let body = chat(json!({"max_tokens": 1})).to_string();
    let with = |header: &str| bench.send(&request("POST", "/v1/chat/completions", header, &body)).status;
    assert_eq!(with(""), 401);
    assert_eq!(with("authorization: Bearer open\r\n"), 401);
    assert_eq!(with("authorization: Bearer sesame\r\n"), 200);
}

#[test]
fn other_machines_are_not_served_without_a_key() {
    let config = Config { host: [0, 0, 0, 0].into(), ..config() };
    let refused = Server::start(config, files(), options()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Usage);
    assert!(refused.to_string().contains("--api-key-file"), "{refused}");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let bench = Bench::new();
    let config = Config { port: bench.address().port(), ..config() };
    assert_eq!(Server::start(config, files(), options()).err().unwrap().kind(), ErrorKind::Network);
}

#[test]
fn while_the_model_opens_the_server_says_so() {
    let server = Server::start(config(), files(), options()).unwrap();
    let bench = Bench { server, _folder: None };
    let health = bench.get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("loading")));
    let answer = bench.post("/v1/chat/completions", &chat(json!({})));
    assert_eq!((answer.status, answer.code().as_str()), (503, "loading"));
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[test]
fn a_budget_that_cannot_work_is_told_when_it_opens() {
    let options = Options { memory_bytes: Some(1 << 20), ..options() };
    let mut server = Server::start(config(), files(), options).unwrap();
    let error = server.open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("MiB"), "{error} ({:?})", EngineErrorKind::Budget);
}

#[test]
fn the_end_is_told_to_those_who_wait_and_nobody_is_served_after() {
    let bench = Bench::of(config(), Options { rows_max: Some(1), ..options() });
    let address = bench.address();
    let body = chat(json!({"max_tokens": 400, "ignore_eos": true, "stream": true}));
    let waiting = std::thread::scope(|scope| {
        let bench = &bench;
        let waiting = scope.spawn(move || bench.post("/v1/chat/completions", &body));
        until("the request", || bench.get("/health").json()["running"] == 1);
        // The server is asked to stop from elsewhere.
        (bench.server.stopper())();
        waiting.join().unwrap()
    });
    assert!(waiting.body.contains("\"code\":\"stopped\""), "{waiting:?}");
    assert!(!waiting.body.contains("[DONE]"));
    bench.server.stop();
    assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
}

#[test]
fn a_server_that_is_dropped_ends() {
    let server = Server::start(config(), Arc::clone(&files()), options()).unwrap();
    let address = server.address();
    drop(server);
    assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
}

#[test]
fn counters_have_the_names_that_boards_know() {
    let bench = Bench::new();
    let body = chat(json!({"max_tokens": 5, "seed": 1, "ignore_eos": true}));
    assert_eq!(bench.post("/v1/chat/completions", &body).status, 200);
    // Totals are counted when the engine is done with the sweep.
    let mut text = String::new();
    crate::support::until("the counters", || {
        text = bench.get("/metrics").body;
        text.contains("\nvllm:generation_tokens_total{model_name=\"tiny\",engine=\"0\"} 5\n")
    });
    let value = |name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(&format!("{name}{{model_name=\"tiny\",engine=\"0\"")));
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.to_owned())
    };
    assert_eq!(value("vllm:num_requests_running").as_deref(), Some("0"));
    assert_eq!(value("vllm:num_preemptions_total").as_deref(), Some("0"));
    assert!(value("vllm:prompt_tokens_total").is_some_and(|tokens| tokens.parse::<u64>().unwrap() > 5));
    assert_eq!(value("vllm:e2e_request_latency_seconds_count").as_deref(), Some("1"));
    assert!(text.contains(
        "vllm:request_success_total{model_name=\"tiny\",engine=\"0\",finished_reason=\"length\"} 1"
    ));
    let status = bench.get("/v1/aerostat/status").json();
    assert_eq!(
        (&status["model"], &status["tokens"], &status["data"]),
        (&json!("tiny"), &json!(5), &json!(false))
    );
    assert!(status["plan"]["budget_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{status}");
}

#[test]
fn the_page_is_open_and_names_nothing_outside() {
    let keys = Keys::parse("sesame");
    let bench = Bench::with(Config { keys, ..config() });
    for (path, kind) in [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        let answer = bench.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind));
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(bench.get("/openapi.json").status, 401);
    assert_eq!(Bench::new().get("/openapi.json").json()["openapi"], "3.1.0");
}

/// Those that were done before anybody looked were missing from some.
#[test]
fn every_request_is_counted_in_every_histogram() {
    let bench = Bench::new();
    for _ in 0..3 {
        assert_eq!(bench.post("/v1/chat/completions", &chat(json!({"max_tokens": 2}))).status, 200);
        let score = json!({"text_1": "question", "text_2": "1"});
        assert_eq!(bench.post("/v1/score", &score).status, 200);
    }
    let names = [
        "e2e_request_latency",
        "request_queue_time",
        "request_prefill_time",
        "request_decode_time",
        "request_inference_time",
    ];
    until("six of each", || {
        let text = bench.get("/metrics").body;
        let count = |name: &str| format!("vllm:{name}_seconds_count{{model_name=\"tiny\",engine=\"0\"}} 6");
        names.iter().all(|name| text.contains(&count(name)))
    });
}

#[test]
fn what_is_not_known_after_a_question_mark_or_as_a_tier_is_refused() {
    let bench = Bench::new();
    for path in [
        "/version?limit=x",
        "/metrics?x",
        "/v1/aerostat/requests?class=zzz",
        "/v1/aerostat/requests?limit=1&limit=2",
    ] {
        assert_eq!(bench.get(path).status, 400, "{path}");
    }
    for path in ["/health?x", "/?x", "/v1/models?client_version=1", "/v1/aerostat/requests?class=batch"] {
        assert_eq!(bench.get(path).status, 200, "{path}");
    }
    for (tier, status) in [
        (json!("zzz"), 400),
        (json!({}), 400),
        (json!("priority"), 400),
        (json!("auto"), 200),
        (json!(null), 200),
    ] {
        let one = json!({"service_tier": tier, "max_tokens": 1});
        let answer = bench.post("/v1/chat/completions", &chat(one));
        assert_eq!(answer.status, status, "{answer:?}");
        let response = json!({"input": "question 1", "service_tier": tier, "max_output_tokens": 1});
        let answer = bench.post("/v1/responses", &response);
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 400 {
            assert_eq!(answer.json()["error"]["param"], "service_tier");
        }
    }
}
