//! `aerostat serve` as a process: it ends as it is asked to, and nothing is lost when it is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{command, fixture, run};

/// A server that is killed with the test.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(more: &[&str]) -> Self {
        let model = fixture("chat");
        let fixed =
            ["serve", model.to_str().unwrap(), "--port", "0", "--memory", "1GiB", "--threads", "1", "--json"];
        let mut child = command(&[&fixed[..], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["model"], "chat");
        let address = ready["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Self { child, address }
    }

    /// Sends a request and gives the body of the answer; `None` if the server is gone.
    fn send(&self, text: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.write_all(text.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        assert!(!chunked, "{head}");
        Some(body.to_owned())
    }

    fn get(&self, path: &str) -> Option<Value> {
        let body =
            self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))?;
        serde_json::from_str(&body).ok()
    }

    fn post(&self, path: &str, body: &Value) -> Option<Value> {
        let body = body.to_string();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        serde_json::from_str(&self.send(&text)?).ok()
    }

    fn upload(&self, text: &str) -> String {
        let body = format!(
            "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
             --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{text}\r\n--x--\r\n"
        );
        let text = format!(
            "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: multipart/form-data; boundary=x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let file: Value = serde_json::from_str(&self.send(&text).unwrap()).unwrap();
        file["id"].as_str().unwrap().to_owned()
    }

    /// Kills it as a lack of memory would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn a_server_that_is_asked_to_end_ends_well() {
    for signal in ["-TERM", "-INT"] {
        let mut served = Served::start(&[]);
        let body = json!({"prompt": [5, 6], "max_tokens": 3});
        assert!(served.post("/v1/completions", &body).unwrap()["choices"][0]["text"].is_string());
        assert!(
            Command::new("kill").args([signal, &served.child.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(served.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn what_cannot_be_served_is_told_before_anything_is_opened() {
    let model = fixture("chat");
    let model = model.to_str().unwrap();
    let open = run(&["serve", model, "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(open.code, Some(2), "{}", open.stderr);
    assert!(open.stderr.contains("--api-key-file"), "{}", open.stderr);
    let keys = run(&["serve", model, "--api-key-file", "/nonexistent/keys"]);
    assert_eq!(keys.code, Some(2), "{}", keys.stderr);
    assert_eq!(run(&["serve", model, "--host", "example.org"]).code, Some(2));
    let small = run(&["serve", model, "--port", "0", "--memory", "1MiB"]);
    assert_eq!(small.code, Some(1), "{}", small.stderr);
}

fn line(i: usize) -> String {
    let kinds = [
        json!({"max_tokens": 25, "temperature": 0.9, "seed": 7}),
        json!({"max_tokens": 12, "temperature": 1, "n": 2}),
        json!({"max_tokens": 9, "logprobs": true, "temperature": 0}),
    ];
    let mut body = json!({"messages": [{"role": "user", "content": format!("question {i}")}]});
    body.as_object_mut().unwrap().extend(kinds[i % kinds.len()].as_object().unwrap().clone());
    json!({"custom_id": format!("r{i}"), "method": "POST", "url": "/v1/chat/completions", "body": body})
        .to_string()
}

fn by_custom_id(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["response"]["body"].as_object_mut().unwrap().remove("created");
        line["response"]["body"].as_object_mut().unwrap().remove("model");
        let id = line["custom_id"].as_str().unwrap().to_owned();
        assert!(found.insert(id.clone(), line).is_none(), "{id} is there twice");
    }
    found
}

/// The results of the same lines by `aerostat batch`.
fn expected(folder: &Path, text: &str) -> BTreeMap<String, Value> {
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    fs::write(&input, text).unwrap();
    let model = fixture("chat");
    let args = [
        "batch",
        "-m",
        model.to_str().unwrap(),
        "-i",
        input.to_str().unwrap(),
        "-o",
        output.to_str().unwrap(),
    ];
    let done = run(&[&args[..], &["--memory", "1GiB", "--quiet"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    by_custom_id(&fs::read_to_string(output).unwrap())
}

/// Kills at moments that are other ones each time: while a file comes, while a batch is checked, runs, or becomes files.
#[test]
fn a_server_that_is_killed_loses_nothing_and_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let text = (0..15).map(line).collect::<Vec<_>>().join("\n");
    let want = expected(folder.path(), &text);
    let data = folder.path().join("data");
    let more = ["--data", data.to_str().unwrap(), "--rows-max", "8"];
    let mut batches: Vec<String> = Vec::new();
    for round in 0_u64..6 {
        let served = Served::start(&more);
        let file = served.upload(&text);
        let body =
            json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
        let made = served.post("/v1/batches", &body).unwrap();
        batches.push(made["id"].as_str().unwrap().to_owned());
        std::thread::sleep(Duration::from_millis(round * round * 12));
        served.kill();
    }
    let served = Served::start(&more);
    let begun = Instant::now();
    for id in &batches {
        let batch = loop {
            let batch = served.get(&format!("/v1/batches/{id}")).unwrap();
            if batch["status"] == "completed" {
                break batch;
            }
            assert!(begun.elapsed() < Duration::from_secs(400), "{batch}");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(batch["request_counts"], json!({"total": 15, "completed": 15, "failed": 0}));
        let file = batch["output_file_id"].as_str().unwrap();
        let path =
            format!("GET /v1/files/{file}/content HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        assert_eq!(by_custom_id(&served.send(&path).unwrap()), want);
    }
    let files = served.get("/v1/files?purpose=batch_output").unwrap();
    assert_eq!(files["data"].as_array().unwrap().len(), batches.len());
    assert_eq!(fs::read_dir(data.join("jobs")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 0);
}
