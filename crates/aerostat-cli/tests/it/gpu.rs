//! Graphics cards that fail. A driver that does as it is told (`tests/data/faulty_driver.c`) stands before a real one, a
//! software driver where there is no card, so that all of ours that deals with failures is in the test, and the library that
//! talks to drivers, too. Each failure is one error that says what to do, and a job that met it ends as if it had not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Outcome, command, fixture};

/// Libraries of the drivers of this machine, software first.
fn drivers() -> Vec<PathBuf> {
    let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
    files.sort_by_key(|file| !file.to_string_lossy().contains("lvp"));
    let library = |file: &PathBuf| {
        let text = fs::read(file).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        Some(file.parent()?.join(value["ICD"]["library_path"].as_str()?))
    };
    files.iter().filter_map(library).collect()
}

/// A driver that fails, before the first of this machine.
struct Faulty {
    folder: tempfile::TempDir,
    real: PathBuf,
}

impl Faulty {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/faulty_driver.c");
        let library = folder.path().join("faulty_driver.so");
        let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let compiled = compiler.output().expect("a C compiler, which the database of jobs needs, too");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let file =
            json!({"file_format_version": "1.0.0", "ICD": {"library_path": library, "api_version": "1.3.0"}});
        fs::write(folder.path().join("driver.json"), file.to_string()).unwrap();
        let drivers = drivers();
        let real =
            drivers.first().expect("a driver; mesa-vulkan-drivers brings one to a machine without a card");
        Self { real: real.clone(), folder }
    }

    /// Runs the command on it, with what goes wrong and from which call on.
    fn run(&self, args: &[&str], fault: Option<(&str, u32)>) -> Outcome {
        let file = self.folder.path().join("driver.json");
        let mut command = command(args);
        command.env("VK_DRIVER_FILES", &file).env("VK_ICD_FILENAMES", &file).env("REAL_DRIVER", &self.real);
        command.env_remove("DISPLAY").env("XDG_RUNTIME_DIR", self.folder.path());
        if let Some((fault, at)) = fault {
            command.env("FAULT", fault).env("FAULT_AT", at.to_string());
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(!stderr.contains("panicked"), "{stderr}");
        Outcome { code: output.status.code(), stdout, stderr }
    }
}

impl Outcome {
    /// It failed with one error, which has these words.
    fn failed(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        for word in words {
            assert!(errors[0].contains(word), "{word:?} is missing in {}", errors[0]);
        }
    }
}

/// A job on the device.
struct Job {
    folder: tempfile::TempDir,
    model: String,
}

impl Job {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let request = |i: usize| {
            json!({"custom_id": format!("r{i}"), "method": "POST", "url": "/v1/chat/completions", "body": {
                "messages": [{"role": "user", "content": format!("question {i}")}], "temperature": 0.8,
                "max_tokens": 2 + i % 5, "ignore_eos": true}})
            .to_string()
                + "\n"
        };
        fs::write(folder.path().join("in.jsonl"), (0..12).map(request).collect::<String>()).unwrap();
        Self { folder, model: fixture("chat").to_str().unwrap().to_owned() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, driver: &Faulty, output: &str, fault: Option<(&str, u32)>) -> Outcome {
        let (input, output) = (self.path("in.jsonl"), self.path(output));
        let args = ["batch", "-m", &self.model, "-i", &input, "-o", &output, "--device", "gpu"];
        let bounds = ["--vram", "64MiB", "--memory", "1GiB", "--threads", "1", "--rows-max", "4"];
        driver.run(&[&args[..], &bounds].concat(), fault)
    }

    /// The whole lines of its results, without the time they were made at.
    fn lines(&self, output: &str) -> BTreeSet<String> {
        let text = fs::read_to_string(self.path(output)).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'));
        let mut found = BTreeSet::new();
        for line in text.lines() {
            let mut value: Value = serde_json::from_str(line).unwrap();
            value["response"]["body"].as_object_mut().unwrap().remove("created");
            assert!(found.insert(value.to_string()), "twice: {line}");
        }
        found
    }
}

/// The device is lost later and later, when work is handed over or waited for, until the job gets to its end.
#[test]
fn a_device_that_is_lost_again_and_again_costs_a_job_nothing() {
    let (driver, job) = (Faulty::new(), Job::new());
    let whole = job.run(&driver, "whole.jsonl", None);
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    let want = job.lines("whole.jsonl");
    assert_eq!(want.len(), 12);
    for fault in ["submit", "wait"] {
        let output = format!("{fault}.jsonl");
        let (mut losses, mut kept, mut at) = (0, 0, 3);
        loop {
            let outcome = job.run(&driver, &output, Some((fault, at)));
            let lines = job.lines(&output);
            assert!(
                lines.len() >= kept && lines.is_subset(&want),
                "{fault} {at}: {kept} lines were {lines:?}"
            );
            kept = lines.len();
            if outcome.code == Some(0) {
                break;
            }
            outcome.failed(&["the device was lost", "Vulkan", "run the command again", "--device cpu"]);
            (losses, at) = (losses + 1, at * 3 / 2 + 1);
            assert!(losses < 40, "{fault}");
        }
        assert!(losses > 2, "{fault}: {losses}");
        assert_eq!(job.lines(&output), want, "{fault}");
    }
}

/// Whatever it was that did not fit.
#[test]
fn a_device_without_memory_says_what_did_not_fit() {
    let (driver, job) = (Faulty::new(), Job::new());
    for at in [1, 2, 3, 4, 5] {
        let outcome = job.run(&driver, "out.jsonl", Some(("memory", at)));
        match at {
            1 => outcome.failed(&["Vulkan", "cannot be opened (Not enough memory", "--device cpu"]),
            _ => outcome.failed(&["Vulkan", "no more device memory", "lower --vram"]),
        }
        println!("{at}: {}", outcome.stderr);
        assert!(job.lines("out.jsonl").is_empty());
    }
    assert_eq!(job.run(&driver, "out.jsonl", None).code, Some(0));
    assert_eq!(job.lines("out.jsonl").len(), 12);
}

#[test]
fn a_kernel_that_does_not_compile_is_named() {
    let (driver, job) = (Faulty::new(), Job::new());
    for at in [1, 3, 9] {
        let outcome = job.run(&driver, "out.jsonl", Some(("compile", at)));
        outcome.failed(&["does not compile the kernel", "newer driver", "--device cpu"]);
    }
    assert_eq!(job.run(&driver, "out.jsonl", None).code, Some(0));
    assert_eq!(job.lines("out.jsonl").len(), 12);
}

#[test]
fn an_adapter_that_lacks_something_is_refused_with_what_it_lacks() {
    let (driver, job) = (Faulty::new(), Job::new());
    let words = ["max_storage_buffers_per_shader_stage", "is 4, and 8 is needed", "--device cpu"];
    job.run(&driver, "out.jsonl", Some(("limit", 1))).failed(&words);
    // Nothing is left of a job that did not begin.
    assert!(!Path::new(&job.path("out.jsonl")).exists());
    let llama = fixture("llama").to_str().unwrap().to_owned();
    let run =
        |device| driver.run(&["run", &llama, "--token-ids", "1", "--device", device], Some(("limit", 1)));
    run("gpu:0").failed(&words);
    let devices = driver.run(&["devices"], Some(("limit", 1)));
    assert_eq!(devices.code, Some(0));
    assert!(devices.stdout.contains("cannot be used: its limit max_storage_buffers"), "{}", devices.stdout);
}
