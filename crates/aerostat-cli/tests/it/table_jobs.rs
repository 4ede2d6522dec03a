//! Tables as processes: killed, interrupted, run twice, and given a disk that is full.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Outcome, command, fixture, run, run_with};

struct Bench {
    folder: tempfile::TempDir,
    model: String,
    input: String,
}

impl Bench {
    fn new(rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.csv");
        let row = |i: usize| format!("{i},{}\n", "the hills and the sun ".repeat(1 + i % 7));
        fs::write(&input, "id,text\n".to_owned() + &(0..rows).map(row).collect::<String>()).unwrap();
        let model = fixture("chat").to_str().unwrap().to_owned();
        Self { model, input: input.to_str().unwrap().to_owned(), folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The arguments of a command that writes to a file of this name.
    fn args<'a>(&'a self, output: &'a str, task: &[&'a str]) -> Vec<&'a str> {
        let (command, flags) = task.split_first().unwrap();
        let mut args = vec![*command, &self.model, "-i", &self.input, "-o", output];
        args.extend(["--memory", "256MiB", "--threads", "1", "--rows-max", "24"]);
        args.extend(flags);
        args
    }

    fn run(&self, output: &str, task: &[&str]) -> Outcome {
        run(&self.args(output, task))
    }

    /// The names of all files, in order.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const CLASSIFY: &[&str] = &["classify", "--labels", "rain,the sun,snow", "--key", "id", "--calibrate"];

/// It left an empty table, empty rows and a database.
#[test]
fn a_job_that_cannot_be_run_leaves_nothing_behind() {
    let bench = Bench::new(20);
    let before = bench.files();
    let (output, batch) = (bench.path("out.csv"), bench.path("batch.jsonl"));
    let table = ["classify", &bench.model, "-i", &bench.input, "-o", &output, "--labels", "rain,snow"];
    let small = ["--memory", "1MiB"];
    let outcome = run(&[&table[..], &small].concat());
    assert!(outcome.code == Some(1) && outcome.stderr.contains("is too small"), "{outcome:?}");
    assert_eq!(bench.files(), before);
    let piped = ["classify", &bench.model, "-i", "-", "-o", &output, "--labels", "rain,snow"];
    let outcome = run_with(&[&piped[..], &small].concat(), "text\nhello\n");
    assert!(outcome.code == Some(1) && outcome.stderr.contains("is too small"), "{outcome:?}");
    assert_eq!(bench.files(), before);
    // Nor does one with bad lines: what little memory has no room for may be good with more.
    fs::write(&batch, "nothing\n{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}\n").unwrap();
    let answers = bench.path("answers.jsonl");
    let job = ["batch", "--model", &bench.model, "--input", &batch, "--output", &answers];
    let before = bench.files();
    assert_eq!(run(&[&job[..], &small].concat()).code, Some(1));
    assert_eq!(bench.files(), before);
    assert_eq!(run(&job).code, Some(3));
    assert_eq!(fs::read_to_string(&answers).unwrap().lines().count(), 1);
    assert!(fs::read_to_string(bench.path("answers.errors.jsonl")).unwrap().contains("line"));
}

/// A command with other labels was refused, and left an empty file of rows beside what was whole.
#[test]
fn a_refused_change_leaves_what_there_is_alone() {
    let bench = Bench::new(5);
    let output = bench.path("out.csv");
    assert_eq!(bench.run(&output, CLASSIFY).code, Some(0));
    let before = bench.files();
    let other = ["classify", "--labels", "cold,warm", "--key", "id", "--calibrate"];
    let refused = bench.run(&output, &other);
    assert!(refused.code == Some(1) && refused.stderr.contains("--restart"), "{refused:?}");
    assert_eq!(bench.files(), before);
}

fn spawn(args: &[&str]) -> Child {
    command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until something of a table is durable.
fn wait_for_rows(output: &str) {
    let end = Instant::now() + Duration::from_secs(120);
    while fs::metadata(format!("{output}.rows")).map_or(0, |m| m.len()) == 0 && Instant::now() < end {
        sleep(Duration::from_millis(2));
    }
}

/// Tables once lost all they had when they were stopped. `AEROSTAT_ROWS=3000` makes it longer, so that nearly all of the kills hit
/// a table at work.
#[test]
#[cfg(unix)]
fn a_table_that_is_killed_again_and_again_ends_as_if_it_had_not_been() {
    let rows = std::env::var("AEROSTAT_ROWS").map_or(400, |rows| rows.parse().unwrap());
    let bench = Bench::new(rows);
    let whole = bench.path("whole.csv");
    let begun = Instant::now();
    let first = bench.run(&whole, CLASSIFY);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stderr.contains(&format!("{rows} rows to")), "{first:?}");
    let took = begun.elapsed();

    let output = bench.path("killed.csv");
    let (mut kills, mut at_work, mut seed) = (0, 0, 0x2545_f491_4f6c_dd1du64);
    let ended = loop {
        let mut child = spawn(&bench.args(&output, CLASSIFY));
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (seed >> 40) as f64 / (1u64 << 24) as f64;
        let end = Instant::now() + took.mul_f64(share * if rows > 1000 { 0.1 } else { 0.4 });
        let mut ended = None;
        while ended.is_none() && (Instant::now() < end || kills >= 20) {
            ended = child.try_wait().unwrap();
            sleep(Duration::from_millis(1));
        }
        match ended {
            // It was faster than we: the rest of the kills hit a table that is done.
            Some(status) if kills >= 20 => break status,
            Some(status) => assert_eq!(status.code(), Some(0)),
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                at_work += 1;
            }
        }
        kills += 1;
    };
    println!("{rows} rows, killed {at_work} times at work");
    assert_eq!(ended.code(), Some(0));
    assert!(fs::read(&output).unwrap() == fs::read(&whole).unwrap());
    let names = ["in.csv", "killed.csv", "killed.csv.job", "whole.csv", "whole.csv.job"];
    assert_eq!(bench.files(), names, "nothing else is left");
    let again = bench.run(&output, CLASSIFY);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(bench.files(), names);
}

#[test]
#[cfg(unix)]
fn an_interrupted_table_says_how_to_go_on_and_is_listed() {
    let bench = Bench::new(1500);
    let output = bench.path("out.npy");
    let task = ["embed", "--rows-max", "8"];
    let task: Vec<&str> = task[..1].to_vec();
    let child = spawn(&bench.args(&output, &task));
    wait_for_rows(&output);
    let jobs = run_with(&["jobs", &output, "--json"], "");
    let status: Value = serde_json::from_str(&jobs.stdout).unwrap();
    assert_eq!((&status["jobs"][0]["total"], &status["jobs"][0]["state"]), (&1500.into(), &"running".into()));
    let second = bench.run(&output, &task);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another process"), "{second:?}");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("the same command goes on with"), "{stderr}");
    assert!(!Path::new(&output).exists(), "there are never half results");
    let listed = run_with(&["jobs", bench.folder.path().to_str().unwrap()], "").stdout;
    assert!(listed.starts_with("interrupted") && listed.contains("of 1500 done"), "{listed}");

    let resumed = bench.run(&output, &task);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("going on with"), "{}", resumed.stderr);
    let whole = bench.path("whole.npy");
    bench.run(&whole, &task);
    assert!(fs::read(&output).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn another_input_model_or_flag_is_refused_and_restart_begins_anew() {
    let bench = Bench::new(6);
    let output = bench.path("out.jsonl");
    assert_eq!(bench.run(&output, &["score"]).code, Some(0));
    let first = fs::read_to_string(&output).unwrap();
    for flags in [&["score", "--kv", "f32"][..], &["score", "--column", "id"], &["embed"]] {
        let refused = bench.run(&output, flags);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("--restart"), "{refused:?}");
    }
    fs::write(&bench.input, "text\nother\n").unwrap();
    assert!(bench.run(&output, &["score"]).stderr.contains("is not what this job was begun with"));
    assert_eq!(fs::read_to_string(&output).unwrap(), first);
    let anew = bench.run(&output, &["score", "--restart"]);
    assert_eq!(anew.code, Some(0), "{anew:?}");
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 1);
    let precious = bench.path("precious.jsonl");
    fs::write(&precious, "precious").unwrap();
    let refused = bench.run(&precious, &["score"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("belongs to no job"), "{refused:?}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

/// A table whose file was cut was once said to be there, whole.
#[test]
fn results_that_were_changed_afterwards_are_told() {
    let bench = Bench::new(5);
    let output = bench.path("OUT.CSV");
    assert_eq!(bench.run(&output, &["score"]).code, Some(0));
    let whole = fs::read(&output).unwrap();
    fs::write(&output, &whole[..20]).unwrap();
    let refused = bench.run(&output, &["score"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("has 20 bytes, but"), "{refused:?}");
    fs::write(&output, &whole).unwrap();
    assert_eq!(bench.run(&output, &["score"]).code, Some(0));
}

/// What was refused once had left a copy, with which the next input was compared.
#[test]
fn an_empty_stdin_leaves_nothing_behind() {
    let bench = Bench::new(2);
    let output = bench.path("out.csv");
    let args = ["score", &bench.model, "-i", "-", "-o", &output];
    let empty = run_with(&args, "");
    assert_eq!(empty.code, Some(1), "{empty:?}");
    assert_eq!(bench.files(), ["in.csv"]);
    let text = fs::read_to_string(&bench.input).unwrap();
    assert_eq!(run_with(&args, &text).code, Some(0));
}

/// Two outputs that differ in their ending have one error file: the second job's refusal named its output, which was not there.
#[test]
fn an_error_file_of_another_job_is_named() {
    let bench = Bench::new(0);
    fs::write(&bench.input, "id,text\n1,good\n2,\"open\n3,more\n").unwrap();
    let failed = bench.run(&bench.path("out.csv"), &["score"]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    let errors = fs::read_to_string(bench.path("out.errors.jsonl")).unwrap();
    assert!(errors.contains("never closed"), "{errors}");
    let refused = bench.run(&bench.path("out.jsonl"), &["score"]);
    assert!(refused.stderr.contains("out.errors.jsonl is not empty"), "{refused:?}");
    assert_eq!(fs::read_to_string(bench.path("out.errors.jsonl")).unwrap(), errors);
}

#[test]
fn rows_that_failed_are_in_the_error_file_and_a_dry_run_writes_nothing() {
    let bench = Bench::new(3);
    fs::write(&bench.input, "id,text\n1,good\n2\n3,\"\"\n4,more\n").unwrap();
    let output = bench.path("out.csv");
    let dry = bench.run(&output, &["score", "--dry-run"]);
    assert_eq!(dry.code, Some(3), "{dry:?}");
    assert!(dry.stdout.contains("4 rows, ") && dry.stderr.contains("rows cannot be served"), "{dry:?}");
    assert_eq!(bench.files(), ["in.csv"]);
    let failed = bench.run(&output, &["score", "--json"]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    let report: Value = serde_json::from_str(&failed.stdout).unwrap();
    let errors = bench.path("out.errors.jsonl");
    assert_eq!(report["errors"], errors.as_str());
    let text = fs::read_to_string(&errors).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["row"], &lines[0]["error"]["line"]), (&1.into(), &3.into()));
    let again = bench.run(&output, &["score", "--retry-errors"]);
    assert_eq!(again.code, Some(3), "they can never be served: {again:?}");
}

/// On a disk of its own, if this machine lets us make one.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_the_table_and_more_space_lets_it_go_on() {
    let bench = Bench::new(300);
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
    let full = bench.run(output, &["embed"]);
    let grown = mount("remount,size=64m");
    let ended = bench.run(output, &["embed"]);
    let whole = bench.path("whole.jsonl");
    bench.run(&whole, &["embed"]);
    let found = fs::read_to_string(output).unwrap_or_default();
    let unmounted = Command::new("umount").arg(&disk).status().is_ok_and(|s| s.success());
    assert!(grown && unmounted);
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    assert!(full.stderr.contains("space") || full.stderr.contains("full"), "{}", full.stderr);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(found == fs::read_to_string(&whole).unwrap());
}

/// Jobs of which nothing could be done were listed as interrupted for ever, and the list left a log beside each.
#[test]
fn a_job_with_nothing_to_do_is_finished_and_looking_at_it_leaves_nothing() {
    let bench = Bench::new(0);
    let output = bench.path("out.csv");
    assert_eq!(bench.run(&output, &["score"]).code, Some(0));
    let (input, requests) = (bench.path("in.jsonl"), bench.path("bad.jsonl"));
    fs::write(&input, "no JSON\n").unwrap();
    let batch = run(&["batch", "-m", &bench.model, "-i", &input, "-o", &requests]);
    assert_eq!(batch.code, Some(3), "{batch:?}");
    let files = bench.files();
    let listed = run_with(&["jobs", bench.folder.path().to_str().unwrap(), "--json"], "");
    let jobs: Value = serde_json::from_str(&listed.stdout).unwrap();
    let states: Vec<&Value> = jobs["jobs"].as_array().unwrap().iter().map(|job| &job["state"]).collect();
    assert_eq!(states, ["finished", "finished"], "{listed:?}");
    assert_eq!(bench.files(), files);
}
