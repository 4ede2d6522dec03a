//! Batch jobs as processes: killed, interrupted, piped into, and given a disk that is full.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{command, fixture, run_with};

fn requests(count: usize, tokens: usize) -> String {
    let request = |i: usize| {
        json!({"custom_id": format!("r{i}"), "method": "POST", "url": "/v1/chat/completions", "body": {
            "messages": [{"role": "user", "content": format!("question {i}")}], "temperature": 0.8,
            "max_tokens": 4 + i * 7 % tokens, "ignore_eos": true, "n": 1 + i % 2}})
        .to_string()
            + "\n"
    };
    (0..count).map(request).collect()
}

fn arguments<'a>(model: &'a str, input: &'a str, output: &'a str) -> Vec<&'a str> {
    vec![
        "batch",
        "-m",
        model,
        "-i",
        input,
        "-o",
        output,
        "--memory",
        "256MiB",
        "--threads",
        "1",
        "--rows-max",
        "24",
    ]
}

/// The lines of a result file without the time they were made at; all of them whole.
fn lines(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value["response"]["body"].as_object_mut().unwrap().remove("created");
        assert!(found.insert(value.to_string()), "twice: {line}");
    }
    found
}

fn spawn(args: &[&str]) -> Child {
    command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

struct Bench {
    folder: tempfile::TempDir,
    model: String,
    input: String,
}

impl Bench {
    fn new(requests: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.jsonl");
        fs::write(&input, requests).unwrap();
        let model = fixture("chat").to_str().unwrap().to_owned();
        Self { model, input: input.to_str().unwrap().to_owned(), folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, output: &str, more: &[&str]) -> crate::support::Outcome {
        run_with(&[&arguments(&self.model, &self.input, output)[..], more].concat(), "")
    }
}

#[test]
#[cfg(unix)]
fn a_job_that_is_killed_again_and_again_ends_as_if_it_had_not_been() {
    let bench = Bench::new(&(requests(60, 90) + "not JSON\n"));
    let whole = bench.path("whole.jsonl");
    let begun = Instant::now();
    assert_eq!(bench.run(&whole, &["--draft", "none"]).code, Some(3));
    let took = begun.elapsed();

    let output = bench.path("killed.jsonl");
    let (mut kills, mut finished) = (0, None);
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    while finished.is_none() {
        // What guesses, and whether it is the same each time, shows as little.
        let draft = if kills % 2 == 0 { bench.model.as_str() } else { "texts" };
        let mut child =
            spawn(&[&arguments(&bench.model, &bench.input, &output)[..], &["--draft", draft]].concat());
        // Random moments, from before the first line to after the last.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = if kills < 20 { (seed >> 40) as f64 / (1u64 << 24) as f64 } else { 100.0 };
        let end = Instant::now() + took.mul_f64(share.min(30.0) * 0.5);
        while finished.is_none() && (Instant::now() < end || kills >= 20) {
            finished = child.try_wait().unwrap();
            sleep(Duration::from_millis(1));
        }
        if finished.is_none() {
            child.kill().unwrap();
            kills += 1;
        } else if kills < 20 {
            // It was faster than we: the rest of the kills hit a job that is done.
            assert_eq!(finished.take().unwrap().code(), Some(3));
            kills += 1;
        }
        child.wait().unwrap();
    }
    assert_eq!(finished.unwrap().code(), Some(3));
    assert_eq!(lines(Path::new(&output)), lines(Path::new(&whole)));
    assert_eq!(
        lines(Path::new(&bench.path("killed.errors.jsonl"))),
        lines(Path::new(&bench.path("whole.errors.jsonl")))
    );
    // Once more: there is nothing left to do.
    let before = fs::read(&output).unwrap();
    assert_eq!(bench.run(&output, &[]).code, Some(3));
    assert_eq!(fs::read(&output).unwrap(), before);
}

#[test]
#[cfg(unix)]
fn an_interrupt_saves_and_says_how_to_go_on() {
    let bench = Bench::new(&requests(40, 400));
    let output = bench.path("out.jsonl");
    let child =
        spawn(&[&arguments(&bench.model, &bench.input, &output)[..], &["--context", "2000"]].concat());
    let end = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&output).map_or(0, |m| m.len()) == 0 && Instant::now() < end {
        sleep(Duration::from_millis(2));
    }
    let jobs = run_with(&["jobs", &output, "--json"], "");
    let status: Value = serde_json::from_str(&jobs.stdout).unwrap();
    assert_eq!(status["jobs"][0]["total"], 40);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("the same command goes on"), "{stderr}");
    let listed = run_with(&["jobs", bench.folder.path().to_str().unwrap()], "").stdout;
    assert!(listed.starts_with("interrupted") && listed.contains("of 40 done"), "{listed}");

    let resumed = bench.run(&output, &["--context", "2000"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("going on with"), "{}", resumed.stderr);
    let whole = bench.path("whole.jsonl");
    bench.run(&whole, &["--context", "2000"]);
    assert_eq!(lines(Path::new(&output)), lines(Path::new(&whole)));
}

#[test]
fn a_pipe_is_read_once_and_goes_on_without() {
    let bench = Bench::new("");
    let output = bench.path("out.jsonl");
    let args = arguments(&bench.model, "-", &output);
    let first = run_with(&args, &requests(3, 9));
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let before = fs::read(&output).unwrap();
    assert_eq!(run_with(&args, "").code, Some(0));
    let changed = run_with(&args, &requests(4, 9));
    assert_eq!(changed.code, Some(1));
    assert!(changed.stderr.contains("--restart"), "{}", changed.stderr);
    assert_eq!(fs::read(&output).unwrap(), before);
}

#[test]
fn a_dry_run_checks_everything_and_writes_nothing() {
    let bench = Bench::new(&(requests(5, 9) + "{}\n"));
    let outcome = bench.run(&bench.path("out.jsonl"), &["--dry-run"]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("1 of 6 requests cannot be served"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("6 requests, 1 of them bad"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("line 6: `custom_id` is missing"), "{}", outcome.stderr);
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 1);
    let report: Value =
        serde_json::from_str(&bench.run(&bench.path("out.jsonl"), &["--dry-run", "--json"]).stdout).unwrap();
    assert_eq!(
        report["survey"]["counts"]["failed"].as_u64().or(report["counts"]["failed"].as_u64()),
        Some(1)
    );
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
}

/// On a disk of its own, if this machine lets us make one.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_the_job_and_more_space_lets_it_go_on() {
    let bench = Bench::new(&requests(150, 30));
    let disk = bench.folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |options: &str| {
        let args = ["-t", "tmpfs", "-o", options, "tmpfs", disk.to_str().unwrap()];
        Command::new("mount").args(args).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    if !mount("size=128k") {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    }
    let output = disk.join("out.jsonl");
    let output = output.to_str().unwrap();
    let full = bench.run(output, &[]);
    let grown = mount("remount,size=64m");
    let ended = bench.run(output, &[]);
    let whole = bench.path("whole.jsonl");
    bench.run(&whole, &[]);
    let found = lines(Path::new(output));
    let unmounted = Command::new("umount").arg(&disk).status().is_ok_and(|s| s.success());
    assert!(grown && unmounted);
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    assert!(full.stderr.contains("space") || full.stderr.contains("full"), "{}", full.stderr);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(found, lines(Path::new(&whole)));
}
