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

#[test]
fn an_interrupted_score_keeps_what_it_has_in_json() {
    let model = fixture("chat");
    let list = vec!["7"; 100].join(",");
    let many = (0..2000).flat_map(|_| ["--token-ids", list.as_str()]);
    let args = ["score", model.to_str().unwrap(), "--token-ids", "5,6", "--rows-max", "1", "--json", "-v"];
    let mut child = spawn(&args.into_iter().chain(many).collect::<Vec<_>>());
    wait_until_open(&mut child);
    // The first takes two sweeps, all of them 200,000.
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["results"].as_array().unwrap().len(), 2001);
    assert!(report["results"][0]["logprobs"].is_array());
    assert_eq!(report["results"][2000], serde_json::json!({"error": "interrupted"}));
}

/// A log that nobody reads, or a disk that is full under it, once was a panic.
#[cfg(target_os = "linux")]
#[test]
fn a_stderr_that_takes_nothing_is_no_reason_to_stop() {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let line = serde_json::json!({"custom_id": "a", "method": "POST", "url": "/v1/completions",
        "body": {"prompt": "a", "max_tokens": 3}});
    std::fs::write(&input, format!("{line}\nbad\n")).unwrap();
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let model = model.to_str().unwrap();
    let batch = ["batch", "-m", model, "-i", input, "-o", output, "--restart", "-v"];
    let score = ["score", model, "--token-ids", "5,6", "--token-ids", "5,999999", "-v"];
    for (args, code) in [(&batch[..], 3), (&score[..], 3), (&["inspect", "/nonexistent"][..], 1)] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let status = command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(full).status();
        assert_eq!(status.unwrap().code(), Some(code), "{args:?}");
        let mut child = spawn(args);
        drop((child.stderr.take(), child.stdin.take()));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
    assert_eq!(std::fs::read_to_string(output).unwrap().lines().count(), 1);
}

/// `nohup` ignores SIGHUP for what it starts, and a shell SIGINT for what runs in its background.
#[cfg(target_os = "linux")]
#[test]
fn signals_that_were_ignored_stay_ignored() {
    let model = fixture("chat");
    let args = [&["run", model.to_str().unwrap(), "hello", "--json"], &LONG[..]].concat();
    let plain = command(&args);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    wait_until_open(&mut child);
    let send = |child: &Child, signal: &str| {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    };
    for signal in ["-HUP", "-INT", "-HUP", "-INT"] {
        send(&child, signal);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "{signal} ended it");
    }
    send(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["results"][0]["finish_reason"], "interrupted");
}
