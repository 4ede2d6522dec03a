//! What a command writes is never what it reads, by whatever name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Outcome, copy, fixture, run};

const TABLE: &str = "text\nprecious\nand more\n";

/// A folder with a table in it, and names by which the table may be called.
fn table(ending: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(format!("{name}.{ending}"));
    let text = if ending == "csv" { TABLE } else { "{\"text\": \"precious\"}\n" };
    fs::write(at("in"), text).unwrap();
    fs::hard_link(at("in"), at("hard")).unwrap();
    let mut names = vec![at("in"), at("hard"), folder.path().join(".").join(format!("in.{ending}"))];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("in"), at("soft")).unwrap();
        names.push(at("soft"));
    }
    // What its results are called while they are written.
    fs::hard_link(at("in"), folder.path().join(format!("out.{ending}.part"))).unwrap();
    names.push(at("out"));
    (folder, names)
}

fn refused(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("same file"), "{outcome:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `classify -i r.csv -o r.csv` once destroyed the table.
#[test]
fn a_table_is_never_written_over_itself() {
    let model = fixture("chat");
    let (folder, names) = table("csv");
    for name in &names {
        let args = ["classify", text(&model), "--labels", "a,b", "-i", text(&names[0]), "-o", text(name)];
        refused(&run(&args));
    }
    assert_eq!(fs::read_to_string(&names[0]).unwrap(), TABLE);
    for command in ["score", "embed"] {
        refused(&run(&[command, text(&model), "-i", text(&names[0]), "-o", text(&names[1])]));
    }
    // `rerank` writes in one piece, and once did so over its table.
    let ranker = fixture("sentences").join("ranker");
    for name in &names {
        refused(&run(&[
            "rerank",
            text(&ranker),
            "--query",
            "q",
            "-i",
            text(&names[0]),
            "-o",
            text(name),
            "--restart",
        ]));
    }
    // Of arrays, too, whose drafts are several.
    let out = folder.path().join("a.safetensors");
    fs::hard_link(&names[0], folder.path().join("a.safetensors.part.ids")).unwrap();
    for command in ["distil", "embed"] {
        refused(&run(&[command, text(&model), "-i", text(&names[0]), "-o", text(&out)]));
    }
    assert_eq!(fs::read_to_string(&names[0]).unwrap(), TABLE);
    assert!(!out.exists());
}

#[test]
fn results_are_never_written_over_the_model() {
    let model = copy("chat");
    let (folder, names) = table("jsonl");
    let weights = model.path().join("model.safetensors");
    let before = fs::read(&weights).unwrap();
    let linked = folder.path().join("linked.safetensors");
    fs::hard_link(&weights, &linked).unwrap();
    for out in [&weights, &linked] {
        refused(&run(&["embed", text(model.path()), "-i", text(&names[0]), "-o", text(out)]));
        let batch = ["batch", "-m", text(model.path()), "-i", text(&names[0])];
        refused(&run(&[&batch[..], &["-o", text(out), "--restart"]].concat()));
        let errors = ["-o", text(&names[4]), "--errors", text(out)];
        refused(&run(&[&batch[..], &errors].concat()));
    }
    refused(&run(&["pack", text(model.path()), text(model.path())]));
    let out = folder.path().join("packed");
    fs::create_dir(&out).unwrap();
    fs::hard_link(&weights, out.join("model-00001.safetensors")).unwrap();
    refused(&run(&["pack", text(model.path()), text(&out)]));
    assert!(fs::read(&weights).unwrap() == before);
}

#[test]
fn the_files_of_a_job_are_kept_apart() {
    let model = fixture("chat");
    let (folder, names) = table("jsonl");
    let before = fs::read_to_string(&names[0]).unwrap();
    let batch = ["batch", "-m", text(&model), "-i", text(&names[0])];
    for name in &names[..names.len() - 1] {
        refused(&run(&[&batch[..], &["-o", text(name), "--restart"]].concat()));
        let out = folder.path().join("o.jsonl");
        refused(&run(&[&batch[..], &["-o", text(&out), "--errors", text(name), "--restart"]].concat()));
        for ending in ["", ".job", ".job-wal", ".job-shm"] {
            let errors = format!("{}{ending}", text(&out));
            refused(&run(&[&batch[..], &["-o", text(&out), "--errors", &errors]].concat()));
        }
        assert!(!out.exists());
    }
    // A copy that is made of an input that comes through a pipe.
    let out = folder.path().join("p.jsonl");
    let kept = folder.path().join("p.jsonl.input");
    let piped = ["batch", "-m", text(&model), "-i", "-", "-o", text(&out)];
    refused(&run(&[&piped[..], &["--errors", text(&kept)]].concat()));
    assert_eq!(fs::read_to_string(&names[0]).unwrap(), before);
    assert!(!kept.exists() && !out.exists());
}

/// A shell that appends to the table that is read never ends it.
#[cfg(unix)]
#[test]
fn results_on_stdout_do_not_go_to_the_table() {
    let model = fixture("chat");
    let (_folder, names) = table("jsonl");
    let stdout = fs::OpenOptions::new().append(true).open(&names[0]).unwrap();
    let mut command = crate::support::command(&["score", text(&model), "-i", text(&names[0])]);
    let status = command.stdout(stdout).stderr(std::process::Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert_eq!(fs::read_to_string(&names[0]).unwrap(), "{\"text\": \"precious\"}\n");
}

/// The table that a shell opens for stdin is read to its end before its place is taken.
#[cfg(unix)]
#[test]
fn a_table_on_stdin_is_not_written_over_either() {
    let model = fixture("chat");
    let (_folder, names) = table("jsonl");
    let before = fs::read_to_string(&names[0]).unwrap();
    for command in [&["score", text(&model)][..], &["batch", "-m", text(&model)]] {
        for input in ["-", "/dev/stdin"] {
            let args = [command, &["-i", input, "-o", text(&names[1]), "--restart"]].concat();
            let stdin = fs::File::open(&names[0]).unwrap();
            let output = crate::support::command(&args).stdin(stdin).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("same file"), "{output:?}");
        }
    }
    assert_eq!(fs::read_to_string(&names[0]).unwrap(), before);
}

/// `--expert-trace` once emptied whatever it named: the model's own weights, too.
#[test]
fn a_trace_of_experts_is_written_over_nothing_else() {
    let model = copy("qwen3_moe");
    let weights = model.path().join("model.safetensors");
    let before = fs::read(&weights).unwrap();
    let (folder, names) = table("jsonl");
    for trace in [&weights, &names[0]] {
        let there = fs::read(trace).unwrap();
        let ids = ["--token-ids", "5,6", "--max-new-tokens", "2"];
        let args = [&["run", text(model.path()), "--expert-trace", text(trace)][..], &ids].concat();
        let outcome = run(&args);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("no trace of experts"), "{outcome:?}");
        assert_eq!(fs::read(trace).unwrap(), there);
    }
    assert_eq!(fs::read(&weights).unwrap(), before);
    let batch = folder.path().join("batch.jsonl");
    let line = r#"{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": [5], "max_tokens": 1}}"#;
    fs::write(&batch, line).unwrap();
    let new = folder.path().join("new.jsonl");
    let files = ["-i", text(&batch), "-o", text(&new), "--expert-trace", text(&new)];
    refused(&run(&[&["batch", "-m", text(model.path())][..], &files].concat()));
}
