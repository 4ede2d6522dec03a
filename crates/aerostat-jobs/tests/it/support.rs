//! Running jobs, and disks that fail on purpose.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aerostat::{Draft, Engine, ModelFiles, Need, Options, Silent, Want};
use aerostat_jobs::disk::{Disk, DiskFile, System};
use aerostat_jobs::{Counts, Error, Job, JobOptions, JobPaths, JobProgress, Setting, Unwatched, Watcher};
use serde_json::{Value, json};

/// A model with a tokenizer and a chat template, 320 tokens, a context of 512.
pub(crate) fn model() -> ModelFiles {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat");
    ModelFiles::open(&path).unwrap()
}

/// A folder with a batch file in it, and the job over it.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) paths: JobPaths,
    pub(crate) options: JobOptions,
    /// What guesses, of answers that are computed with weights from a slow disk; `None`: as usual.
    pub(crate) slow: Option<Draft>,
    /// Guesses that were right.
    pub(crate) accepted: Cell<u64>,
}

impl Bench {
    pub(crate) fn new(lines: &[String]) -> Self {
        Self::named(lines, "out.jsonl")
    }

    pub(crate) fn named(lines: &[String], output: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.jsonl");
        fs::write(&input, lines.join("\n")).unwrap();
        let paths = JobPaths::beside(&input, &folder.path().join(output));
        let options = JobOptions { max_new_tokens: 24, ..JobOptions::default() };
        Self { folder, paths, options, slow: None, accepted: Cell::new(0) }
    }

    pub(crate) fn open(&self, disk: impl Disk + 'static, watcher: &dyn Watcher) -> Result<Job, Error> {
        let setting = Setting::new(&model(), "tiny", &self.options).unwrap();
        Job::open(Box::new(disk), self.paths.clone(), setting, "digest", &self.options, watcher)
    }

    /// Opens the job and works until it ends in one way or another.
    pub(crate) fn run_on(&self, disk: impl Disk + 'static, watcher: &dyn Watcher) -> Result<Counts, Error> {
        let job = self.open(disk, watcher)?;
        let mut need = Need::none();
        (0..16).for_each(|_| need.add_tokens(120, 120, Want::Generate));
        let mut options = Options { memory_bytes: Some(512 << 20), threads: Some(1), ..Options::default() };
        if let Some(draft) = self.slow.clone() {
            options =
                Options { draft, pinned_bytes_max: Some(0), read_bytes_per_second: Some(1e5), ..options };
        }
        let mut engine = Engine::open(&model(), &options, &need, &mut Silent).unwrap();
        let counts = job.run(&mut engine, watcher);
        self.accepted.set(self.accepted.get() + engine.stats().accepted);
        counts
    }

    pub(crate) fn run(&self) -> Result<Counts, Error> {
        self.run_on(System, &Unwatched)
    }

    /// Output lines by custom_id, without the time they were made at; no id twice, no half line.
    pub(crate) fn results(&self) -> BTreeMap<String, Value> {
        by_custom_id(&text(&self.paths.output))
    }

    pub(crate) fn failures(&self) -> Vec<Value> {
        text(&self.paths.errors).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A file's text, unpacked.
pub(crate) fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let mut text = String::new();
    match path.extension().unwrap().to_str().unwrap() {
        "gz" => flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
        "zst" => zstd::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap(),
        _ => (&bytes[..]).read_to_string(&mut text).unwrap(),
    };
    assert!(text.is_empty() || text.ends_with('\n'));
    text
}

fn by_custom_id(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(body) = line.pointer_mut("/response/body").and_then(Value::as_object_mut) {
            body.remove("created");
        }
        let id = line["custom_id"].as_str().unwrap().to_owned();
        assert!(found.insert(id.clone(), line).is_none(), "{id} is there twice");
    }
    found
}

/// A chat request.
pub(crate) fn chat(id: usize, body: Value) -> String {
    let mut whole =
        json!({"model": "tiny", "messages": [{"role": "user", "content": format!("question {id}")}]});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    line(&format!("r{id}"), "/v1/chat/completions", whole)
}

pub(crate) fn line(id: &str, url: &str, body: Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string()
}

/// Requests of many kinds.
pub(crate) fn mixed(count: usize) -> Vec<String> {
    let kinds = [
        json!({"max_tokens": 5, "temperature": 0}),
        json!({"max_tokens": 30, "temperature": 0.9, "seed": 7, "top_p": 0.9}),
        json!({"max_tokens": 12, "temperature": 1, "n": 3}),
        json!({"max_tokens": 9, "logprobs": true, "top_logprobs": 2, "temperature": 0}),
        json!({"max_tokens": 40, "temperature": 1.2, "response_format": {"type": "json_schema", "json_schema": {"schema":
            {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}, "b": {"enum": ["x", "yes"]}},
             "required": ["a", "b"], "additionalProperties": false}}}}),
        json!({"max_tokens": 60, "temperature": 0.7, "stop": ["e", "zz"], "frequency_penalty": 0.5}),
    ];
    let mut lines: Vec<String> = (0..count).map(|i| chat(i, kinds[i % kinds.len()].clone())).collect();
    lines.push(line(
        "c1",
        "/v1/completions",
        json!({"prompt": ["one", [5, 6, 7]], "n": 2, "max_tokens": 11, "logprobs": 1}),
    ));
    lines.push(line("s1", "/v1/score", json!({"text_1": "a question", "text_2": [" yes", " no"]})));
    lines.push("not JSON".to_owned());
    lines.push(chat(0, json!({"max_tokens": 4})));
    lines
}

/// A disk that fails on purpose.
#[derive(Clone, Default)]
pub(crate) struct Faulty {
    pub(crate) plan: Arc<Faults>,
}

/// What fails, and when.
#[derive(Default)]
pub(crate) struct Faults {
    /// Bytes that can be written before the disk is full.
    pub(crate) free: Shared<Option<usize>>,
    /// Syncs that succeed before all fail.
    pub(crate) syncs: Shared<Option<usize>>,
    /// Commits of the database that succeed before all fail.
    pub(crate) commits: Shared<Option<usize>>,
    /// Once something has failed, truncating fails, too.
    pub(crate) broken: Shared<bool>,
    hits: Mutex<Vec<&'static str>>,
}

/// A cell that threads may share.
#[derive(Default)]
pub(crate) struct Shared<T>(Mutex<T>);

impl<T: Copy> Shared<T> {
    pub(crate) fn get(&self) -> T {
        *self.0.lock().unwrap()
    }

    pub(crate) fn set(&self, value: T) {
        *self.0.lock().unwrap() = value;
    }
}

impl Faults {
    /// What has failed so far.
    pub(crate) fn hits(&self) -> Vec<&'static str> {
        self.hits.lock().unwrap().clone()
    }

    fn hit(&self, what: &'static str, kind: io::ErrorKind) -> io::Error {
        self.hits.lock().unwrap().push(what);
        kind.into()
    }
}

fn count_down(cell: &Shared<Option<usize>>) -> bool {
    match cell.get() {
        Some(0) => true,
        left => {
            cell.set(left.map(|n| n - 1));
            false
        }
    }
}

impl Disk for Faulty {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = System.open(path)?;
        let synced = file.size()?;
        Ok(Box::new(FaultyFile { file, synced, path: path.to_owned(), plan: self.plan.clone() }))
    }

    fn commits(&self) -> io::Result<()> {
        if count_down(&self.plan.commits) {
            return Err(self.plan.hit("commit", io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

struct FaultyFile {
    file: Box<dyn DiskFile>,
    synced: u64,
    path: PathBuf,
    plan: Arc<Faults>,
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_from(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        self.file.read_from(offset)
    }

    /// What fits is written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = self.plan.free.get().map_or(bytes.len(), |free| free.min(bytes.len()));
        self.file.append(&bytes[..fits])?;
        self.plan.free.set(self.plan.free.get().map(|free| free - fits));
        if fits < bytes.len() {
            return Err(self.plan.hit("append", io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    /// A failed sync loses what was written since the last one: a hole of zeros is left in its place.
    fn sync(&mut self) -> io::Result<()> {
        if count_down(&self.plan.syncs) {
            let mut bytes = fs::read(&self.path)?;
            bytes[self.synced as usize..].fill(0);
            fs::write(&self.path, bytes)?;
            return Err(self.plan.hit("sync", io::ErrorKind::Other));
        }
        self.file.sync()?;
        self.synced = self.file.size()?;
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        if self.plan.broken.get() && !self.plan.hits().is_empty() {
            return Err(self.plan.hit("truncate", io::ErrorKind::Other));
        }
        self.synced = self.synced.min(bytes);
        self.file.truncate(bytes)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }

    fn lock(&mut self) -> io::Result<bool> {
        self.file.lock()
    }
}

/// A watcher that asks to stop after so many sweeps.
pub(crate) struct StopsAfter(pub(crate) Cell<u64>);

impl Watcher for StopsAfter {
    fn progress(&self, _progress: &JobProgress) {
        self.0.set(self.0.get().saturating_sub(1));
    }

    fn stops(&self) -> bool {
        self.0.get() == 0
    }
}
