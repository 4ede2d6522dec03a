//! Peaks of the real process, answers and hostile inputs included. Each test is a process of its own whose children are all
//! measured. What a test itself held before it began them counts for them, too, so that inputs are written bit by bit.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::support::{Outcome, command as command_of, fixture, run};

const MIB: u64 = 1 << 20;

/// Runs the command with this budget, which its whole process must keep.
fn within(budget_mib: u64, args: &[&str]) -> Outcome {
    let budget = format!("{budget_mib}MiB");
    let outcome = run(&[args, &["--memory", &budget, "--threads", "1"]].concat());
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as u64 * 1024;
    assert!(peak <= budget_mib * MIB, "{} MiB of {budget_mib}: {}", peak / MIB, outcome.stderr);
    outcome
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ids(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| 3 + i % 300).collect()
}

/// Of 300 alternatives of each of 20,000 positions, JSON once took ten times the memory of the results.
#[test]
fn what_is_distilled_is_written_as_it_is() {
    let model = fixture("chat");
    let list: Vec<String> = ids(500).iter().map(u32::to_string).collect();
    let list = list.join(",");
    let prompts: Vec<&str> = (0..40).flat_map(|_| ["--token-ids", list.as_str()]).collect();
    let outcome = within(96, &[&["distil", text(&model), "-k", "300", "--json"], &prompts[..]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 40);
    assert_eq!(results[39]["top_ids"].as_array().unwrap().len(), 500);
    assert_eq!(results[39]["top_logprobs"][499].as_array().unwrap().len(), 300);
}

#[test]
fn a_table_that_is_distilled_keeps_the_budget() {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.safetensors"));
    let row = json!({"text": ids(500)}).to_string() + "\n";
    fs::write(&input, row.repeat(200)).unwrap();
    let args = ["distil", text(&model), "-k", "300", "-i", text(&input), "-o", text(&output)];
    let outcome = within(44, &args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(fs::metadata(&output).unwrap().len() > 200 * 500 * 300 * 6);
}

fn batch(budget_mib: u64, lines: impl Iterator<Item = String>) -> (Outcome, tempfile::TempDir) {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let mut file = BufWriter::new(File::create(&input).unwrap());
    lines.for_each(|line| file.write_all(line.as_bytes()).unwrap());
    drop(file);
    let args = ["batch", "-m", text(&model), "-i", text(&input), "-o", text(&output)];
    (within(budget_mib, &args), folder)
}

fn request(id: &str, url: &str, body: &Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string() + "\n"
}

/// A line of 128 answers with 20 alternatives of each token once took hundreds of MiB.
#[test]
fn answers_with_many_alternatives_are_written_part_by_part() {
    let body = json!({"messages": [{"role": "user", "content": "a"}], "n": 128, "max_tokens": 100,
        "ignore_eos": true, "temperature": 1, "logprobs": true, "top_logprobs": 20});
    let lines = (0..2).map(|i| request(&format!("r{i}"), "/v1/chat/completions", &body));
    let (outcome, folder) = batch(44, lines);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let out = fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    for line in out.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let choices = line["response"]["body"]["choices"].as_array().unwrap();
        assert_eq!(choices.len(), 128);
        let content = &choices[127]["logprobs"]["content"];
        assert_eq!(content.as_array().unwrap().len(), 100);
        assert_eq!(content[99]["top_logprobs"].as_array().unwrap().len(), 20);
        assert_eq!(line["response"]["body"]["usage"]["completion_tokens"], 12_800);
    }
    assert_eq!(out.lines().count(), 2);
}

#[test]
fn long_names_of_requests_are_not_all_held_at_once() {
    let body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "temperature": 0});
    let name = |i: usize| format!("{i}{}", "n".repeat(20_000));
    let lines = (0..2000).map(|i| request(&name(i), "/v1/chat/completions", &body));
    let (outcome, folder) = batch(40, lines);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let out = fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    assert_eq!(out.lines().count(), 2000);
}

/// A text's tokens take a hundred bytes of memory and more for each of its own, and a number of a list some thirty.
#[test]
fn a_line_that_is_far_too_long_is_refused_in_little_memory() {
    let good = json!({"prompt": "a", "max_tokens": 3, "temperature": 0});
    let long = |repeated: &str, count: usize, before: &str, after: &str| {
        let text = format!("{before}{}{after}", repeated.repeat(count));
        format!(
            "{{\"custom_id\":\"long\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{{\"prompt\":{text}}}}}\n"
        )
    };
    for (repeated, count, before, after) in [("word ", 800_000, "\"", "\""), ("7,", 2_000_000, "[", "7]")] {
        let lines = ["good", "", "more"].into_iter().map(|id| match id {
            "" => long(repeated, count, before, after),
            id => request(id, "/v1/completions", &good),
        });
        let (outcome, folder) = batch(48, lines);
        assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
        let errors = fs::read_to_string(folder.path().join("out.errors.jsonl")).unwrap();
        assert!(errors.contains("context_length_exceeded") && errors.len() < 1000, "{errors}");
        assert!(errors.contains("\"custom_id\":\"long\""), "{errors}");
        assert_eq!(fs::read_to_string(folder.path().join("out.jsonl")).unwrap().lines().count(), 2);
    }
}

#[test]
fn a_row_that_is_far_too_long_costs_the_table_nothing() {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    for (name, before, repeated, after) in [
        ("in.jsonl", "{\"text\":\"short\"}\n{\"text\":\"", "word ", "\"}\n{\"text\":\"last\"}\n"),
        ("ids.jsonl", "{\"text\":\"short\"}\n{\"text\":[", "7,  ", "7]}\n{\"text\":\"last\"}\n"),
        ("in.csv", "text\nshort\n\"", "word ", "\"\nlast\n"),
    ] {
        let input = folder.path().join(name);
        let mut file = BufWriter::new(File::create(&input).unwrap());
        file.write_all(before.as_bytes()).unwrap();
        (0..1_200_000).for_each(|_| file.write_all(repeated.as_bytes()).unwrap());
        file.write_all(after.as_bytes()).unwrap();
        drop(file);
        let outcome = within(64, &["score", text(&model), "-i", text(&input)]);
        assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("do not fit a context of 512"), "{}", outcome.stderr);
        assert_eq!(outcome.stdout.lines().count(), if name == "in.csv" { 3 } else { 2 });
    }
}

/// What follows a quote that is never closed is one cell.
#[test]
fn a_cell_without_an_end_is_bounded_and_told() {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.csv");
    let mut file = BufWriter::new(File::create(&input).unwrap());
    file.write_all(b"text\na\n\"").unwrap();
    (0..8 << 20).for_each(|_| file.write_all(b"never closed\n").unwrap());
    drop(file);
    let outcome = within(256, &["score", text(&model), "-i", text(&input)]);
    // The rows before it are scored.
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 2);
    assert!(outcome.stderr.contains("is a quote not closed?"), "{}", outcome.stderr);
}

/// A table of such rows was refused as a whole, since what one of them took counted as the process's own.
#[test]
fn a_long_message_fails_alone_and_so_does_a_template_of_many_cells() {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    let mut file = BufWriter::new(File::create(&input).unwrap());
    file.write_all(b"{\"text\":\"short\"}\n{\"text\":\"").unwrap();
    (0..1_000_000).for_each(|_| file.write_all(b"word ").unwrap());
    file.write_all(b"\"}\n{\"text\":\"last\"}\n").unwrap();
    drop(file);
    let many = "{text} ".repeat(12);
    for flags in [&["--chat"][..], &["--template", &many]] {
        let outcome = within(48, &[&["score", text(&model), "-i", text(&input)], flags].concat());
        assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("is longer than"), "{}", outcome.stderr);
        assert_eq!(outcome.stdout.lines().count(), 2);
    }
}

/// The text of stdin was read to 64 MiB, whatever the memory.
#[test]
fn a_prompt_of_stdin_keeps_the_budget() {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.txt");
    let mut file = BufWriter::new(File::create(&input).unwrap());
    (0..4_000_000).for_each(|_| file.write_all("wörd ".as_bytes()).unwrap());
    drop(file);
    for command in ["run", "score"] {
        let mut command = command_of(&[command, text(&model), "--memory", "48MiB", "--threads", "1"]);
        let output = command.stdin(File::open(&input).unwrap()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("the most with so little memory"), "{stderr}");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
    }
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as u64 * 1024;
    assert!(peak <= 48 * MIB, "{} MiB", peak / MIB);
}

/// The numbers of a row were values of JSON until a group of rows was whole: ten times what they are.
#[cfg(feature = "parquet")]
#[test]
fn columns_of_parquet_keep_the_budget() {
    let model = fixture("chat");
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.parquet"));
    let row = json!({"text": ids(500)}).to_string() + "\n";
    fs::write(&input, row.repeat(100)).unwrap();
    for task in [&["distil", "-k", "300"][..], &["score"], &["embed"]] {
        let table = [text(&model), "-i", text(&input), "-o", text(&output), "--restart"];
        let outcome = within(52, &[&task[..1], &table, &task[1..]].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
}

/// Six thousand short texts took a quarter more than was planned: requests of all of them are made first.
#[test]
fn many_short_prompts_keep_the_smallest_budget() {
    let model = fixture("chat");
    let words = "the hills ".repeat(5);
    let prompts: Vec<&str> = (0..3000).flat_map(|_| ["--prompt", words.as_str()]).collect();
    let args = [&["classify", text(&model), "--labels", "yes,no", "--json"], &prompts[..]].concat();
    let refused = run(&[&args[..], &["--memory", "1MiB", "--threads", "1"]].concat());
    let least = refused.stderr.split("at least ").nth(1).and_then(|rest| rest.split_once(" MiB"));
    let least: u64 = least.expect(&refused.stderr).0.parse().unwrap();
    assert_eq!(within(least, &args).code, Some(0));
}
