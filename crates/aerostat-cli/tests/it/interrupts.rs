//! Ctrl-C, and readers that go away.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{command, fixture};

/// Far more than any machine gets through while a test runs.
const LONG: [&str; 4] = ["--max-new-tokens", "300000", "--ignore-eos", "-v"];

fn spawn(args: &[&str]) -> Child {
    let mut command = command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the engine is open.
fn wait_until_open(child: &mut Child) {
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.starts_with("opened in")), "not opened");
}

#[test]
fn an_interrupted_run_keeps_what_it_has_in_json() {
    let model = fixture("chat");
    let mut child = spawn(&[&["run", model.to_str().unwrap(), "hello", "--json"], &LONG[..]].concat());
    wait_until_open(&mut child);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["results"][0]["finish_reason"], "interrupted");
    assert!(report["stats"]["sweeps"].is_number());
}

#[test]
fn an_interrupted_run_has_printed_its_text_as_it_came() {
    let model = fixture("chat");
    let mut child = spawn(&[&["run", model.to_str().unwrap(), "hello"], &LONG[..]].concat());
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.ends_with(b"\n"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("interrupted") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn an_interrupt_ends_a_chat_that_waits() {
    let model = fixture("chat");
    let mut child = spawn(&["chat", model.to_str().unwrap(), "-v"]);
    wait_until_open(&mut child);
    let stdin = child.stdin.take();
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
}

#[test]
fn an_interrupt_ends_a_download_that_waits() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", server.local_addr().unwrap());
    let cache = tempfile::tempdir().unwrap();
    let child = command(&["pull", "some/model"])
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", cache.path())
        .env("NO_PROXY", "127.0.0.1")
        .env_remove("HF_HUB_OFFLINE")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The server takes the request and never answers.
    let _connection = server.accept().unwrap();
    interrupt(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let model = fixture("chat");
    let mut child = spawn(&[&["run", model.to_str().unwrap(), "hello"], &LONG[..]].concat());
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{stderr}");
}
