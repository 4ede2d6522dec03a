//! Shards of one batch file: each line is of one of them, and together they are what one job would have written.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use aerostat_jobs::{ErrorKind, JobPaths, Shard, merge};
use serde_json::Value;

use crate::support::{Bench, chat, mixed, text};

/// The lines of a result file in the order of the input, without the time they were made at.
fn in_order(text: &str) -> Vec<Value> {
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["id"].as_str().unwrap().to_owned());
    for line in &mut lines {
        if let Some(body) = line.pointer_mut("/response/body").and_then(Value::as_object_mut) {
            body.remove("created");
        }
    }
    lines
}

/// Runs the shards of a bench's input, each to an output of its own in this packing.
fn run_shards(bench: &Bench, count: u64, ending: &str) -> Vec<PathBuf> {
    let run = |index: u64| {
        let output = bench.folder.path().join(format!("s{index}of{count}.jsonl{ending}"));
        let mut options = bench.options.clone();
        options.shard = Shard { index, count };
        let paths = JobPaths::beside(&bench.paths.input, &output);
        let folder = tempfile::tempdir().unwrap();
        Bench { folder, paths, options, slow: None, accepted: Cell::default() }.run().unwrap();
        output
    };
    (0..count).map(run).collect()
}

#[test]
fn merged_shards_are_what_one_job_writes() {
    let mut lines = mixed(12);
    // A blank line counts, and is nobody's.
    lines.insert(3, String::new());
    let whole = Bench::new(&lines);
    whole.run().unwrap();
    let want = (in_order(&text(&whole.paths.output)), in_order(&text(&whole.paths.errors)));
    assert!(!want.1.is_empty());
    for (count, ending) in [(1, ""), (2, ".gz"), (5, ""), (40, ".zst")] {
        let parts = run_shards(&whole, count, ending);
        let output = whole.folder.path().join(format!("merged{count}.jsonl{ending}"));
        let merged = merge(&output, &parts).unwrap();
        assert_eq!((merged.done as usize, merged.failed as usize), (want.0.len(), want.1.len()));
        let found = text(&output);
        let ids: Vec<String> = found.lines().map(|l| l[..30].to_owned()).collect();
        assert!(ids.is_sorted(), "the order of the input");
        assert_eq!((in_order(&found), in_order(&text(&merged.errors))), want, "{count} shards");
    }
    let left = fs::read_dir(whole.folder.path()).unwrap().flatten();
    let left: Vec<String> = left.map(|e| e.file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains(".part")), "{left:?}");
}

#[test]
fn what_is_no_whole_is_not_merged() {
    let lines: Vec<String> = (0..6).map(|i| chat(i, serde_json::json!({"max_tokens": 3}))).collect();
    let bench = Bench::new(&lines);
    let parts = run_shards(&bench, 3, "");
    let output = bench.folder.path().join("merged.jsonl");
    let refused = |parts: &[&PathBuf]| {
        let parts: Vec<PathBuf> = parts.iter().map(|p| (*p).clone()).collect();
        let error = merge(&output, &parts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(!output.exists());
        error.to_string()
    };
    assert!(refused(&[&parts[0], &parts[2]]).contains("missing: 1/3"));
    assert!(refused(&[&parts[0], &parts[1], &parts[2], &parts[1]]).contains("the same shard, 1/3"));
    assert!(refused(&[]).contains("nothing"));
    assert!(refused(&[&bench.paths.input]).contains("no job's output"));
    let halves = run_shards(&bench, 2, "");
    assert!(refused(&[&parts[0], &halves[1]]).contains("shard 1/2"));
    let mut other = Bench::new(&lines);
    other.options.seed = 9;
    let others = run_shards(&other, 3, "");
    assert!(refused(&[&parts[0], &parts[1], &others[2]]).contains("another options"));
    fs::write(&other.paths.input, lines[1..].join("\n")).unwrap();
    other.options.seed = bench.options.seed;
    other.options.restart = true;
    let others = run_shards(&other, 3, "");
    assert!(refused(&[&parts[0], &parts[1], &others[2]]).contains("another input"));
    let mut all: Vec<PathBuf> = parts.clone();
    // A line that is gone is noticed.
    let whole = text(&parts[1]);
    fs::write(&parts[1], &whole[..whole.len() / 2]).unwrap();
    assert_eq!(merge(&output, &all).unwrap_err().kind(), ErrorKind::Changed);
    fs::write(&parts[1], &whole).unwrap();
    all.reverse();
    merge(&output, &all).unwrap();
    assert!(merge(&output, &all).unwrap_err().to_string().contains("is not empty"));
}

/// The name is another shard's.
#[test]
fn a_name_that_occurs_in_another_shard_is_an_error_in_this_one() {
    let mut lines: Vec<String> = (0..4).map(|i| chat(i, serde_json::json!({"max_tokens": 2}))).collect();
    lines[3] = lines[0].clone();
    let bench = Bench::new(&lines);
    let parts = run_shards(&bench, 2, "");
    assert_eq!(text(&parts[0]).lines().count(), 2);
    assert_eq!(text(&parts[1]).lines().count(), 1);
    let errors = text(&JobPaths::beside(&bench.paths.input, &parts[1]).errors);
    assert!(errors.contains("occurs before"), "{errors}");
}
