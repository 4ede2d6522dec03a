//! Whatever happens to the disk or to the process, the next start goes on, and the results are those of a run without.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::Arc;

use aerostat::Draft;
use aerostat_jobs::disk::System;
use aerostat_jobs::{ErrorKind, JobProgress, Watcher};
use serde_json::Value;

use crate::support::{Bench, Faulty, StopsAfter, chat, mixed, model, text};

/// The results of an undisturbed run.
fn undisturbed(lines: &[String]) -> (BTreeMap<String, Value>, Vec<Value>) {
    let bench = Bench::new(lines);
    let counts = bench.run().unwrap();
    assert_eq!(counts.left(), 0);
    (bench.results(), bench.failures())
}

#[test]
fn interrupts_at_every_sweep_change_nothing() {
    let lines = mixed(12);
    let (want, failures) = undisturbed(&lines);
    for name in ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"] {
        let bench = Bench::named(&lines, name);
        let mut stops = 0;
        // The first stop is in the validation's reach, the later ones after ever more sweeps.
        while let Err(e) = bench.run_on(System, &StopsAfter(Cell::new(3))) {
            assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}");
            stops += 1;
            assert!(stops < 1000);
        }
        assert!(stops > 5, "{stops}");
        assert_eq!(bench.results(), want, "{name}");
        assert_eq!(bench.failures(), failures, "{name}");
    }
}

/// Grammars, stop strings, penalties, several answers: tokens that were guessed are journaled like others, and what guesses does not
/// show, though the job is stopped at every third sweep.
#[test]
fn guesses_show_in_no_byte_of_a_job_that_is_stopped_again_and_again() {
    let lines = mixed(12);
    let mut plain = Bench::new(&lines);
    plain.slow = Some(Draft::None);
    plain.run().unwrap();
    assert_eq!(plain.accepted.get(), 0);
    // The model guesses for itself, and is mostly right.
    for (draft, least) in [(Draft::Texts, 1), (Draft::Model(Arc::new(model())), 20)] {
        let mut bench = Bench::new(&lines);
        bench.slow = Some(draft.clone());
        let mut stops = 0;
        while let Err(e) = bench.run_on(System, &StopsAfter(Cell::new(3))) {
            assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}");
            stops += 1;
            assert!(stops < 1000);
        }
        assert!(stops > 1 && bench.accepted.get() >= least, "{stops} {}", bench.accepted.get());
        assert_eq!((bench.results(), bench.failures()), (plain.results(), plain.failures()), "{draft:?}");
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let lines = mixed(12);
    let (want, failures) = undisturbed(&lines);
    let bench = Bench::new(&lines);
    let mut tries = 0;
    loop {
        // Every time there is room for a little more; sometimes the torn line cannot even be cut off.
        let disk = Faulty::default();
        disk.plan.free.set(Some(3000));
        disk.plan.broken.set(tries % 2 == 1);
        let plan = disk.plan.clone();
        let Err(e) = bench.run_on(disk, &aerostat_jobs::Unwatched) else { break };
        assert_eq!(e.kind(), ErrorKind::Disk);
        assert!(e.to_string().contains("free some space"), "{e}");
        assert_eq!(plan.hits().first(), Some(&"append"));
        tries += 1;
        assert!(tries < 100);
    }
    assert!(tries > 0);
    assert_eq!(bench.results(), want);
    assert_eq!(bench.failures(), failures);
}

#[test]
fn a_failed_sync_is_not_believed() {
    let lines = mixed(12);
    let (want, failures) = undisturbed(&lines);
    for syncs in 0..12 {
        let bench = Bench::new(&lines);
        let disk = Faulty::default();
        disk.plan.syncs.set(Some(syncs));
        disk.plan.broken.set(syncs % 2 == 1);
        let plan = disk.plan.clone();
        if let Err(e) = bench.run_on(disk, &aerostat_jobs::Unwatched) {
            assert_eq!(e.kind(), ErrorKind::Disk);
            assert_eq!(plan.hits().first(), Some(&"sync"));
        }
        bench.run().unwrap();
        assert_eq!(bench.results(), want, "after {syncs} syncs");
        assert_eq!(bench.failures(), failures, "after {syncs} syncs");
    }
}

#[test]
fn lines_that_were_written_and_not_counted_are_adopted() {
    let lines = mixed(12);
    let (want, failures) = undisturbed(&lines);
    for commits in 0..10 {
        let bench = Bench::new(&lines);
        let disk = Faulty::default();
        disk.plan.commits.set(Some(commits));
        let plan = disk.plan.clone();
        let stopped = bench.run_on(disk, &aerostat_jobs::Unwatched);
        assert_eq!(stopped.is_err(), !plan.hits().is_empty());
        // What is in the output now stays there.
        let there = if bench.paths.output.exists() { text(&bench.paths.output) } else { String::new() };
        bench.run().unwrap();
        assert!(text(&bench.paths.output).starts_with(&there), "after {commits} commits");
        assert_eq!(bench.results(), want, "after {commits} commits");
        assert_eq!(bench.failures(), failures, "after {commits} commits");
    }
}

#[test]
fn another_input_model_or_option_is_refused() {
    let lines: Vec<String> = (0..3).map(|i| chat(i, serde_json::json!({}))).collect();
    let mut bench = Bench::new(&lines);
    bench.run().unwrap();
    let first = bench.results();
    let refused = |bench: &Bench| bench.open(System, &aerostat_jobs::Unwatched).err().map(|e| e.to_string());

    bench.options.seed = 1;
    assert!(refused(&bench).unwrap().contains("seed 0"), "the option is named");
    bench.options.seed = 0;
    fs::write(&bench.paths.input, lines[..2].join("\n")).unwrap();
    assert!(refused(&bench).unwrap().contains("--restart"));
    bench.options.restart = true;
    bench.run().unwrap();
    assert_eq!(bench.results().len(), 2);
    bench.options.restart = false;
    fs::write(&bench.paths.input, lines.join("\n")).unwrap();
    bench.options.restart = true;
    bench.run().unwrap();
    assert_eq!(bench.results(), first);
}

#[test]
fn an_output_that_is_no_jobs_is_left_alone() {
    let bench = Bench::new(&[chat(0, serde_json::json!({}))]);
    fs::write(&bench.paths.output, "precious\n").unwrap();
    assert_eq!(bench.run().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(text(&bench.paths.output), "precious\n");
    assert!(!bench.paths.database().exists());
}

#[test]
fn an_output_that_was_shortened_is_noticed() {
    let bench = Bench::new(&mixed(3));
    bench.run().unwrap();
    let whole = text(&bench.paths.output);
    fs::write(&bench.paths.output, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(bench.run().unwrap_err().kind(), ErrorKind::Changed);
}

/// Does something to a file once the job has done some lines.
struct Meddles<'a>(Cell<bool>, &'a dyn Fn());

impl Watcher for Meddles<'_> {
    fn progress(&self, progress: &JobProgress) {
        if progress.counts.done > 0 && !self.0.replace(true) {
            (self.1)();
        }
    }
}

/// Results went into a file that had no name any more, and the job ended well.
#[cfg(unix)]
#[test]
fn an_output_that_changes_under_a_running_job_is_told() {
    let lines = mixed(12);
    for name in ["out.jsonl", "out.jsonl.gz"] {
        let bench = Bench::named(&lines, name);
        let output = &bench.paths.output;
        let other = output.with_extension("other");
        let ways: [&dyn Fn(); 4] = [
            &|| fs::remove_file(output).unwrap(),
            &|| fs::write(output, "").unwrap(),
            &|| fs::OpenOptions::new().append(true).open(output).unwrap().write_all(b"more\n").unwrap(),
            &|| {
                fs::copy(output, &other).unwrap();
                fs::rename(&other, output).unwrap();
            },
        ];
        for (way, meddle) in ways.into_iter().enumerate() {
            let meddles = Meddles(Cell::new(false), meddle);
            let error = bench.run_on(System, &meddles).unwrap_err();
            assert!(meddles.0.get() && error.kind() == ErrorKind::Changed, "{way}: {error}");
            for entry in fs::read_dir(output.parent().unwrap()).unwrap() {
                let path = entry.unwrap().path();
                if path != bench.paths.input {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }
}

#[test]
fn one_process_at_a_time() {
    let bench = Bench::new(&mixed(2));
    let first = bench.open(System, &aerostat_jobs::Unwatched).unwrap();
    assert_eq!(bench.open(System, &aerostat_jobs::Unwatched).err().map(|e| e.kind()), Some(ErrorKind::Busy));
    drop(first);
    bench.run().unwrap();
}

#[test]
fn failed_requests_can_be_tried_again() {
    // It fits the context, but no cache that the engine has.
    let mut lines = mixed(6);
    lines.push(chat(99, serde_json::json!({"max_tokens": 150_000})));
    let mut bench = Bench::new(&lines);
    bench.options.context = Some(200_000);
    let counts = bench.run().unwrap();
    assert_eq!(counts.failed, 3);
    let (results, failures) = (bench.results(), bench.failures());
    assert_eq!(counts.failed as usize, failures.len());
    bench.options.retry_errors = true;
    // They fail again, and are there once.
    assert_eq!(bench.run().unwrap(), counts);
    assert_eq!(bench.results(), results);
    assert_eq!(bench.failures(), failures);
}

/// Puts another text into the input once it has been checked.
struct Changes<'a>(&'a Bench, String);

impl Watcher for Changes<'_> {
    fn validating(&self, _lines: u64) {
        fs::write(&self.0.paths.input, &self.1).unwrap();
    }
}

/// Such a job once ended well, with fewer results than requests, or with answers to what was not checked.
#[test]
fn an_input_that_changes_under_a_running_job_is_told() {
    let lines = mixed(12);
    let (want, failures) = undisturbed(&lines);
    let shorter = lines[..5].join("\n");
    let longer = [&lines[..], &lines[..1]].concat().join("\n");
    // A good line never becomes a failed one by that.
    let other = [&["not JSON".to_owned()], &lines[1..]].concat().join("\n");
    // As long as it was, and good.
    let mut asked = lines.clone();
    asked[7] = asked[7].replace("\"max_tokens\":30", "\"max_tokens\":31");
    assert_ne!(asked[7], lines[7]);
    for (text, done) in [(shorter, 5), (longer, 0), (other, 0), (asked.join("\n"), 0)] {
        let bench = Bench::new(&lines);
        let error = bench.run_on(System, &Changes(&bench, text)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert!(bench.results().len() >= done);
        fs::write(&bench.paths.input, lines.join("\n")).unwrap();
        assert_eq!(bench.run().unwrap().left(), 0);
        assert_eq!((bench.results(), bench.failures()), (want.clone(), failures.clone()));
    }
}
