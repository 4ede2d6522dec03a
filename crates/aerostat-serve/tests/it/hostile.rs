//! Clients that mean harm, and those that are broken: none of them ends the process or keeps others out.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Answer, Bench, chat, config, request};

/// A server that loses patience soon.
fn impatient() -> Bench {
    let mut config = config();
    config.limits.header_time = Duration::from_millis(200);
    config.limits.body_idle_time = Duration::from_millis(200);
    config.limits.body_time = Duration::from_millis(600);
    config.limits.idle_time = Duration::from_millis(800);
    Bench::with(config)
}

fn answers(bench: &Bench) {
    assert_eq!(bench.post("/v1/chat/completions", &chat(json!({"max_tokens": 1}))).status, 200);
}

#[test]
fn headers_that_come_too_slowly_are_not_waited_for() {
    let bench = impatient();
    for start in ["", "GET /health HT", "GET /health HTTP/1.1\r\nhost: localhost\r\n"] {
        let begun = Instant::now();
        let mut connection = bench.connect();
        connection.write_all(start.as_bytes()).unwrap();
        // A byte now and then does not help.
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(20));
            if connection.write_all(if start.is_empty() { b"" } else { b"a" }).is_err() {
                break;
            }
        }
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest);
        assert!(begun.elapsed() < Duration::from_secs(5), "{start}");
    }
    answers(&bench);
}

#[test]
fn bodies_that_come_too_slowly_are_not_waited_for() {
    let bench = impatient();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    let mut silent = bench.connect();
    silent.write_all(format!("{head}{{").as_bytes()).unwrap();
    let answer = Answer::read(&mut silent);
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
    let mut dripping = bench.connect();
    dripping.write_all(head.as_bytes()).unwrap();
    let begun = Instant::now();
    while dripping.write_all(b" ").is_ok() && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() < Duration::from_secs(4));
    answers(&bench);
}

#[test]
fn an_idle_connection_is_kept_longer_than_slow_headers_are_waited_for() {
    let bench = impatient();
    let mut connection = bench.connect();
    let text = "GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for _ in 0..3 {
        connection.write_all(text.as_bytes()).unwrap();
        let mut bytes = [0; 4096];
        let count = connection.read(&mut bytes).unwrap();
        assert!(bytes[..count].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(Duration::from_millis(400));
    }
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn bodies_and_headers_have_bounds() {
    let mut config = config();
    config.limits.body_bytes_max = 10_000;
    let bench = Bench::with(config);
    let long = json!({"prompt": "a".repeat(20_000)}).to_string();
    let declared = bench.send(&request("POST", "/v1/completions", "", &long));
    assert_eq!((declared.status, declared.code().as_str()), (413, "body_too_large"));
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = bench.send(&format!("{head}4e20\r\n{}\r\n0\r\n\r\n", "a".repeat(20_000)));
    assert_eq!((chunked.status, chunked.code().as_str()), (413, "body_too_large"));
    let header = format!("x-long: {}\r\n", "a".repeat(40_000));
    assert_eq!(bench.send(&request("GET", "/health", &header, "")).status, 431);
    let header = format!("x-long: {}\r\n", "a".repeat(400_000));
    assert_eq!(bench.send(&request("GET", "/health", &header, "")).status, 431);
    let many: String = (0..200).map(|i| format!("x-{i}: a\r\n")).collect();
    let refused = bench.send(&request("GET", "/health", &many, ""));
    assert_eq!((refused.status, refused.code().as_str()), (431, "headers_too_large"));
    answers(&bench);
}

/// What follows the first request of such a pair was once answered as a request of its own by servers behind a proxy.
#[test]
fn no_second_request_hides_in_a_body() {
    let bench = Bench::new();
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for lengths in [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
        "content-length: 6\r\ncontent-length: 7\r\n",
        "content-length: +6\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding : chunked\r\n",
    ] {
        let text = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lengths}\r\n0\r\n\r\n{hidden}"
        );
        let mut connection = bench.connect();
        connection.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        connection.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = connection.read_to_end(&mut bytes);
        let answer = String::from_utf8_lossy(&bytes);
        assert!(answer.starts_with("HTTP/1.1 4"), "{lengths}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{lengths}: {answer}");
    }
    answers(&bench);
}

#[test]
fn a_browser_cannot_be_made_to_ask_for_another_site() {
    let bench = Bench::new();
    let body = chat(json!({"max_tokens": 1})).to_string();
    let with = |host: &str, more: &str| {
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\n{host}content-type: application/json\r\nconnection: close\r\n\
             {more}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        bench.send(&text)
    };
    assert_eq!(with("host: localhost:80\r\n", "").status, 200);
    assert_eq!(with("host: 127.0.0.1\r\n", "origin: http://127.0.0.1\r\n").status, 200);
    for (host, more, status, code) in [
        ("host: rebound.example\r\n", "", 403, "host_not_allowed"),
        ("host: localhost\r\nhost: rebound.example\r\n", "", 400, "bad_host"),
        ("host: \r\n", "", 400, "bad_host"),
        ("", "", 400, "bad_host"),
        ("host: localhost\r\n", "origin: http://evil.example\r\n", 403, "origin_not_allowed"),
        ("host: localhost\r\n", "origin: null\r\n", 403, "origin_not_allowed"),
    ] {
        let answer = with(host, more);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{host}{more}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let whole = |target: &str| {
        bench.send(&format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).status
    };
    // As a proxy is asked: the header must name the same host.
    assert_eq!(["http://localhost/health", "http://evil.example/health"].map(whole), [200, 400]);
}

/// Bodies that are packed were read as if they were not, and any expectation counted as met.
#[test]
fn headers_that_demand_what_nobody_does_are_refused() {
    let bench = Bench::new();
    let with = |header: &str| {
        bench
            .send(&format!(
                "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n\r\n"
            ))
            .status
    };
    let headers =
        ["content-encoding: gzip", "content-encoding: identity", "expect: a miracle", "expect: 100-Continue"];
    assert_eq!(headers.map(with), [415, 200, 417, 200]);
}

#[test]
fn paths_name_nothing_outside() {
    let bench = Bench::new();
    for path in [
        "/../../etc/passwd",
        "/v1/aerostat/requests/..%2f..%2fetc%2fpasswd",
        "/v1/models/..%2F..%2Fetc",
        "/v1/models/%00",
        "/v1//models",
        "/%2e%2e/health",
        "/v1/models/%ff",
    ] {
        assert_eq!(bench.get(path).status, 404, "{path}");
    }
}

#[test]
fn more_connections_than_there_may_be_are_told() {
    let mut config = config();
    config.limits.connections_max = 4;
    let bench = Bench::with(config);
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = bench.connect();
            connection.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            let mut bytes = [0; 2048];
            assert!(connection.read(&mut bytes).unwrap() > 0);
            connection
        })
        .collect();
    let refused = bench.get("/health");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("30")));
    assert_eq!(refused.code(), "rate_limit_exceeded");
    drop(held);
    crate::support::until("a place", || bench.get("/health").status == 200);
}

/// Each of these once took some hundred MiB of memory that nobody had counted.
#[test]
fn what_would_take_too_much_memory_is_refused_before_it_does() {
    let bench = Bench::new();
    let many = format!("{{\"prompt\": [{}0]}}", "0,".repeat(2_000_000));
    let answer = bench.send(&request("POST", "/v1/completions", "", &many));
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let answer = bench.post("/tokenize", &json!({"prompt": "a ".repeat(600_000)}));
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_value"));
    // The tokens of a text are told in what is kept for requests, as its body is read there.
    let answer = bench.post("/v1/completions", &json!({"prompt": "a ".repeat(3_800_000)}));
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let told = bench.post("/tokenize", &json!({"prompt": "a ".repeat(250_000), "return_token_strs": true}));
    assert_eq!(told.json()["token_strs"].as_array().unwrap().len(), told.json()["count"]);
    let large =
        json!({"n": 128, "max_tokens": 400, "logprobs": true, "top_logprobs": 20, "ignore_eos": true});
    let answer = bench.post("/v1/chat/completions", &chat(large));
    assert_eq!((answer.status, answer.code().as_str()), (400, "answer_too_large"));
    let fits = json!({"n": 16, "max_tokens": 12, "logprobs": true, "top_logprobs": 20, "ignore_eos": true});
    assert_eq!(bench.post("/v1/chat/completions", &chat(fits)).status, 200);
    answers(&bench);
}

#[test]
fn members_of_a_wrong_type_are_refused_everywhere() {
    let bench = Bench::new();
    for (path, body, param) in [
        ("/tokenize", json!({"prompt": "a", "model": {}}), "model"),
        ("/tokenize", json!({"prompt": "a", "add_special_tokens": 3}), "add_special_tokens"),
        ("/tokenize", json!({"prompt": "a", "return_token_strs": "yes"}), "return_token_strs"),
        ("/detokenize", json!({"tokens": [5], "model": 3}), "model"),
        ("/rerank", json!({"query": "a", "documents": ["b"], "model": []}), "model"),
        ("/rerank", json!({"query": "a", "documents": ["b"], "return_documents": 1}), "return_documents"),
        ("/v1/score", json!({"text_1": "a", "text_2": "b", "model": 1}), "model"),
        ("/v1/responses", json!({"input": "a", "model": 1}), "model"),
    ] {
        let answer = bench.post(path, &body);
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{path} {body}");
    }
    let novel = bench.post("/detokenize", &json!({"tokens": [5], "novel": 1}));
    assert_eq!((novel.status, novel.code().as_str()), (400, "unsupported_parameter"));
}

/// Bytes at random, and good requests with bytes changed at random.
#[test]
fn no_noise_ends_the_server() {
    let bench = impatient();
    let good = request("POST", "/v1/chat/completions", "", &chat(json!({"max_tokens": 1})).to_string());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::thread::scope(|scope| {
        for round in 0..120 {
            let mut bytes = good.clone().into_bytes();
            if round % 4 == 0 {
                bytes = (0..200).map(|_| random() as u8).collect();
            } else {
                for _ in 0..1 + random() % 5 {
                    let place = random() as usize % bytes.len();
                    bytes[place] = random() as u8;
                }
            }
            let bench = &bench;
            let run = move || {
                let mut connection = bench.connect();
                connection.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let _ = connection.write_all(&bytes);
                let mut rest = Vec::new();
                let _ = connection.read_to_end(&mut rest);
            };
            scope.spawn(run);
        }
    });
    answers(&bench);
}
