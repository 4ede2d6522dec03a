//! Who goes when: keys in turn, retries that join, what is told meanwhile.

use std::io::Write;
use std::thread;
use std::time::Duration;

use aerostat::Options;
use aerostat_serve::{Config, Keys};
use serde_json::{Value, json};

use crate::support::{Answer, Bench, chat, config, options, request, until};

fn long(seed: u64) -> Value {
    chat(json!({"max_tokens": 60, "ignore_eos": true, "seed": seed, "temperature": 1}))
}

fn slow() -> Options {
    Options { rows_max: Some(2), ..options() }
}

/// One who asks a hundred things at once keeps another waiting for those at hand only.
#[test]
fn keys_take_turns() {
    let keys = Keys::parse("greedy\nmodest\n");
    let sweep_delay = Duration::from_millis(20);
    let bench = Bench::of(Config { keys, sequences_max: 1, sweep_delay, ..config() }, slow());
    let short =
        |seed: u64| chat(json!({"max_tokens": 8, "ignore_eos": true, "seed": seed, "temperature": 1}));
    let send = |key: &str, seed: u64| {
        let header = format!("authorization: Bearer {key}\r\n");
        let mut stream = bench.connect();
        stream
            .write_all(request("POST", "/v1/chat/completions", &header, &short(seed).to_string()).as_bytes())
            .unwrap();
        stream
    };
    let many: Vec<_> = (0..100).map(|seed| send("greedy", seed)).collect();
    let list = || {
        bench.send("GET /v1/aerostat/requests?limit=1000 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer greedy\r\nconnection: close\r\n\r\n").json()
    };
    until("most of them", || list()["total"].as_u64() > Some(80));
    let answer = Answer::read(&mut send("modest", 7));
    assert_eq!(answer.status, 200, "{answer:?}");
    let left = list()["total"].as_u64().unwrap();
    assert!(left > 30, "{left} of a hundred were left");
    drop(many);
}

/// A client that gives up and asks again gets what was begun, not another.
#[test]
fn a_retry_joins_what_was_begun() {
    let bench = Bench::of(config(), slow());
    // Each has a seed of its own, so that another run would give another answer.
    let body = chat(json!({"max_tokens": 200, "ignore_eos": true, "temperature": 1.5}));
    let text = |count: u32| {
        request(
            "POST",
            "/v1/chat/completions",
            &format!("x-stainless-retry-count: {count}\r\n"),
            &body.to_string(),
        )
    };
    let listed = || bench.get("/v1/aerostat/requests").json()["data"].as_array().unwrap().clone();
    let mut first = bench.connect();
    first.write_all(text(0).as_bytes()).unwrap();
    until("the first", || listed().first().is_some_and(|one| one["tokens"].as_u64() > Some(0)));
    let id = listed()[0]["id"].clone();
    drop(first);
    thread::sleep(Duration::from_millis(50));
    let joined = bench.send(&text(1)).json();
    assert_eq!(joined["id"], id);
    // Who does not say that he asks again gets an answer of his own, and so does who asks for the first time.
    let fresh = bench.send(&text(0)).json();
    assert_ne!(fresh["id"], id);
    // One who goes for good is not waited for.
    let mut plain = bench.connect();
    plain.write_all(request("POST", "/v1/chat/completions", "", &body.to_string()).as_bytes()).unwrap();
    until("the last", || !listed().is_empty());
    drop(plain);
    until("its end", || listed().is_empty());
}

#[test]
fn how_far_requests_are_is_told() {
    let sweep_delay = Duration::from_millis(20);
    let bench = Bench::of(Config { sequences_max: 1, sweep_delay, ..config() }, slow());
    let mut streams = Vec::new();
    for seed in 0..6 {
        let mut stream = bench.connect();
        let mut body = long(seed);
        body["stream"] = true.into();
        stream.write_all(request("POST", "/v1/chat/completions", "", &body.to_string()).as_bytes()).unwrap();
        streams.push(stream);
        until("it", || bench.get("/v1/aerostat/requests").json()["total"].as_u64() > Some(0));
    }
    let list = bench.get("/v1/aerostat/requests?limit=2&offset=1&class=interactive").json();
    assert!(list["data"].as_array().unwrap().len() <= 2, "{list}");
    let rows = bench.get("/v1/aerostat/requests").json();
    for row in rows["data"].as_array().unwrap() {
        assert!(row["sweeps_left"].as_u64() > Some(0) && row["tokens_max"] == 60, "{row}");
        assert!(["waiting", "prefill", "decode"].iter().any(|state| row["state"] == *state), "{row}");
        assert_eq!(row["state"] == "waiting", row["position"].is_u64(), "{row}");
    }
    assert_eq!(bench.get("/v1/aerostat/requests?limit=x").status, 400);
    let answers: Vec<Answer> = streams.iter_mut().map(Answer::read).collect();
    for answer in &answers {
        assert!(answer.header("x-aerostat-queue-position").unwrap().parse::<u64>().is_ok(), "{answer:?}");
        assert_eq!(answer.status, 200);
    }
    let metrics = bench.get("/metrics").body;
    for name in [
        "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries_total",
        "vllm:request_queue_time_seconds_count",
        "vllm:request_inference_time_seconds_count",
        "vllm:iteration_tokens_total_count",
        "aerostat_sweep_seconds_count",
        "aerostat_batch_requests",
    ] {
        assert!(metrics.contains(&format!("\n{name}{{")), "{name}");
    }
}

#[test]
fn what_changes_is_told_as_it_changes() {
    let mut config = config();
    config.limits.look_time = Duration::from_millis(20);
    config.sweep_delay = Duration::from_millis(5);
    let bench = Bench::of(config, slow());
    let mut stream = bench.connect();
    stream.write_all(b"GET /v1/aerostat/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let answer = bench.post("/v1/chat/completions", &long(1));
    assert_eq!(answer.status, 200);
    thread::sleep(Duration::from_millis(100));
    bench.server.stop();
    let told = Answer::read(&mut stream);
    let events = Answer { body: told.body.replace("<cut off>", ""), ..told }.events();
    assert!(events.iter().any(|event| event["type"] == "status" && event["model"] == "tiny"));
    assert!(events.iter().any(|event| event["type"] == "requests" && event["total"] == 1), "{events:?}");
}
