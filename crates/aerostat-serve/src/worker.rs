//! What runs batches: each as a job beside others in the session, a few at once, oldest first.
//!
//! A batch's row says how far it is, and its job knows what is done, so that a stop at any moment loses nothing: the next
//! start takes up whatever has not ended.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aerostat::session::Priority;
use aerostat_jobs::disk::System;
use aerostat_jobs::{Counts, ErrorKind, Job, JobHandle, JobOptions, JobPaths, JobStatus, Watcher, list_jobs};
use aerostat_openai::Rules;
use serde_json::{Value, json};

use crate::engine::{Model, locked};
use crate::ids;
use crate::scan::{lines_max, scan};
use crate::store::{BatchRow, Fault, FileRow, Store};

/// Batches that are under way at once: each makes its results durable by itself.
const ACTIVE_MAX: usize = 4;
/// Batches go after all single requests.
const PRIORITY: Priority = 10;
/// After a failure that may pass, such as a disk that is full.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Looks whether there is something to do, though nobody said so.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Runs batches on threads of its own.
pub(crate) struct Worker {
    store: Arc<Store>,
    model: Arc<Model>,
    keep_days: Option<u32>,
    /// The server ends.
    stop: Arc<AtomicBool>,
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    active: HashMap<String, Active>,
    /// Batches that wait for something, and until when; `None`: for the next start.
    waiting: HashMap<String, Option<Instant>>,
    /// Why they wait: a disk that is full keeps this from being written down.
    paused: HashMap<String, String>,
    /// How often there was something new.
    news: u64,
}

/// A batch under way.
#[derive(Default)]
struct Active {
    /// It is not wanted any more, or the server ends.
    stop: Arc<AtomicBool>,
    handle: Option<JobHandle>,
    /// When it was taken up in this server, and how many of its requests were left then.
    begun: Option<(Instant, u64)>,
}

/// Why a batch does not go on.
enum Halt {
    /// The server ends.
    Stopped,
    /// Something failed that may pass.
    Later(String),
    /// It cannot go on in this server.
    Never(String),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full(what) | Fault::Failed(what) => Self::Later(what),
            Fault::Absent => Self::Never("its input is gone".to_owned()),
            Fault::Damaged(what) => Self::Never(what),
            Fault::InUse => Self::Later("its input is in use".to_owned()),
        }
    }
}

impl From<aerostat_jobs::Error> for Halt {
    fn from(e: aerostat_jobs::Error) -> Self {
        match e.kind() {
            ErrorKind::Interrupted => Self::Stopped,
            ErrorKind::Changed | ErrorKind::Usage | ErrorKind::Defect => Self::Never(e.to_string()),
            _ => Self::Later(e.to_string()),
        }
    }
}

impl Worker {
    /// Takes up all batches that have not ended.
    pub(crate) fn start(
        store: Arc<Store>,
        model: Arc<Model>,
        keep_days: Option<u32>,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<Arc<Self>> {
        let (state, changed, thread) = (Mutex::default(), Condvar::new(), Mutex::default());
        let worker = Arc::new(Self { store, model, keep_days, stop, state, changed, thread });
        let own = Arc::clone(&worker);
        let thread = thread::Builder::new().name("aerostat-batches".to_owned()).spawn(move || own.run())?;
        *locked(&worker.thread) = Some(thread);
        Ok(worker)
    }

    /// There is something new to do.
    pub(crate) fn wake(&self) {
        // What comes between a look and the wait that follows is not slept through.
        locked(&self.state).news += 1;
        self.changed.notify_all();
    }

    /// A batch is not wanted any more: its row says so already.
    pub(crate) fn stop_batch(&self, id: &str) {
        let mut state = locked(&self.state);
        state.news += 1;
        state.waiting.remove(id);
        state.paused.remove(id);
        if let Some(active) = state.active.get(id) {
            active.halt();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Ends with the server: all that is under way is saved.
    pub(crate) fn finish(&self) {
        locked(&self.state).active.values().for_each(Active::halt);
        self.wake();
        let thread = locked(&self.thread).take();
        if let Some(thread) = thread {
            // A panic has been told by the thread.
            let _ = thread.join();
        }
    }

    /// A batch as clients see it, with what is known of it now.
    pub(crate) fn show(&self, row: BatchRow) -> Value {
        let mut object = row.object;
        if !row.open {
            return object;
        }
        let state = locked(&self.state);
        if let Some(why) = state.paused.get(&row.id) {
            object["aerostat"] = json!({"paused": why});
        }
        if let Some(handle) = state.active.get(&row.id).and_then(|active| active.handle.as_ref()) {
            let counts = handle.progress().counts;
            object["request_counts"] = request_counts(counts);
            let begun = state.active.get(&row.id).and_then(|active| active.begun);
            if let Some(seconds) = begun.and_then(|(begun, left)| seconds_left(begun, left, counts.left())) {
                object["aerostat"] = json!({"eta_seconds": seconds});
            }
            return object;
        }
        drop(state);
        // Nobody works on it: after a kill its row is behind what was saved.
        let output = self.store.job_folder(&row.id).join("out.jsonl");
        if let Some(job) =
            list_jobs(&output).ok().and_then(|mut jobs| jobs.pop()).filter(JobStatus::is_counted)
        {
            let JobStatus { total, done, failed, .. } = job;
            object["request_counts"] = request_counts(Counts { total, done, failed });
        }
        object
    }

    /// Requests of batches that are under way: not done, done, failed.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let state = locked(&self.state);
        let mut sums = [0; 3];
        for handle in state.active.values().filter_map(|active| active.handle.as_ref()) {
            let counts = handle.progress().counts;
            let one = [counts.left(), counts.done, counts.failed];
            sums.iter_mut().zip(one).for_each(|(sum, count)| *sum += count);
        }
        sums
    }

    /// Starts what there is to do, until the server ends.
    fn run(self: &Arc<Self>) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            threads.retain(|thread| !thread.is_finished());
            if let Err(fault) = self.store.expire(self.keep_days) {
                eprintln!("error: old files cannot be taken away: {fault}");
            }
            let seen = locked(&self.state).news;
            let open = self.store.open_batches().unwrap_or_else(|fault| {
                eprintln!("error: batches cannot be looked up: {fault}");
                Vec::new()
            });
            let mut state = locked(&self.state);
            let due = due(open, &state);
            for row in &due {
                state.waiting.remove(&row.id);
                state.paused.remove(&row.id);
                state.active.insert(row.id.clone(), Active::default());
                let (worker, id) = (Arc::clone(self), row.id.clone());
                let name = "aerostat-batch".to_owned();
                match thread::Builder::new().name(name).spawn(move || worker.go(&id)) {
                    Ok(thread) => threads.push(thread),
                    Err(e) => {
                        eprintln!("error: a batch cannot begin: {e}");
                        state.active.remove(&row.id);
                        state.waiting.insert(row.id.clone(), Some(Instant::now() + AGAIN_AFTER));
                    }
                }
            }
            if !self.stop.load(Ordering::Relaxed) && state.news == seen {
                // Woken or not, it looks again.
                drop(self.changed.wait_timeout(state, LOOK_EVERY));
            }
        }
        locked(&self.state).active.values().for_each(Active::halt);
        for thread in threads {
            // A panic has been told by the thread.
            let _ = thread.join();
        }
    }

    /// Works on a batch until it ends or cannot go on.
    fn go(&self, id: &str) {
        let halted = self.work(id);
        let paused = match &halted {
            Ok(()) | Err(Halt::Stopped) => None,
            Err(Halt::Later(why) | Halt::Never(why)) => {
                eprintln!("error: {id} waits: {why}");
                Some(why.clone())
            }
        };
        if let Some(why) = &paused
            && let Err(fault) =
                self.store.change_batch(id, |row| row.object["aerostat"] = json!({"paused": why}))
        {
            eprintln!("error: {id} cannot be told of: {fault}");
        }
        let mut state = locked(&self.state);
        state.news += 1;
        state.active.remove(id);
        state.paused.extend(paused.map(|why| (id.to_owned(), why)));
        match halted {
            Ok(()) => {}
            Err(Halt::Later(_)) => {
                state.waiting.insert(id.to_owned(), Some(Instant::now() + AGAIN_AFTER));
            }
            Err(Halt::Stopped | Halt::Never(_)) => {
                state.waiting.insert(id.to_owned(), None);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn work(&self, id: &str) -> Result<(), Halt> {
        let row = self.store.batch(id)?;
        if !row.open {
            return Ok(());
        }
        let is_new = row.object["status"] == "validating";
        let folder = self.store.job_folder(id);
        if row.object["status"] == "cancelling" && !folder.exists() {
            return self.end(row, "cancelled", Counts::default(), &folder);
        }
        if row.job["digest"] != self.model.digest {
            let why = "it was made for another model: start a server with that one and this folder";
            return Err(Halt::Never(why.to_owned()));
        }
        let input = self.store.file_path(&row.input);
        if is_new && !folder.exists() {
            let endpoint = row.object["endpoint"].as_str().unwrap_or_default();
            let faults =
                scan(&input, endpoint, lines_max(self.model.options.memory_bytes), &|| self.stops(id))
                    .map_err(Fault::from)?;
            let Some(faults) = faults else { return self.stopped(id, &folder) };
            if !faults.is_empty() {
                return self.fail(id, &faults);
            }
        }
        fs::create_dir_all(&folder).map_err(Fault::from)?;
        let job = match self.open(&row, input, &folder) {
            Err(e) if e.kind() == ErrorKind::Interrupted => return self.stopped(id, &folder),
            opened => opened?,
        };
        let counts = job.counts();
        let row = self.store.change_batch(id, |row| {
            if row.object["status"] == "validating" {
                row.object["status"] = "in_progress".into();
                row.object["in_progress_at"] = ids::now().into();
            }
            row.object["request_counts"] = request_counts(counts);
            // Whatever it waited for is over.
            if let Some(object) = row.object.as_object_mut() {
                object.remove("aerostat");
            }
        })?;
        if row.object["status"] == "cancelling" {
            drop(job);
            return self.end(row, "cancelled", counts, &folder);
        }
        let counts = if counts.left() > 0 { self.ride(id, job)? } else { Ok(counts) };
        match counts {
            Ok(counts) => self.end(self.store.batch(id)?, "completed", counts, &folder),
            Err(counts) => self.cancelled(id, counts, &folder),
        }
    }

    /// Opens the job of a batch, or takes it up.
    fn open(
        &self,
        row: &BatchRow,
        input: PathBuf,
        folder: &std::path::Path,
    ) -> Result<Job, aerostat_jobs::Error> {
        let number = |name: &str| row.job[name].as_u64().and_then(|n| usize::try_from(n).ok());
        let options = JobOptions {
            context: number("context"),
            max_new_tokens: number("max_new_tokens").unwrap_or(256),
            seed: 0,
            lenient: row.job["lenient"] == true,
            engine: aerostat::result_identity(&self.model.options),
            restart: false,
            retry_errors: false,
            ..JobOptions::default()
        };
        let setting = self.model.setting.with_rules(Rules::from(&options));
        let paths = JobPaths::beside(&input, &folder.join("out.jsonl"));
        let wish = Wish { worker: self, id: &row.id };
        Job::open(Box::new(System), paths, setting, &self.model.digest, &options, &wish)
    }

    /// Lets a job ride along to its end; `Ok(Err(counts))` if it was stopped on the way.
    fn ride(&self, id: &str, job: Job) -> Result<Result<Counts, Counts>, Halt> {
        let left = job.counts().left();
        let attached = job.attach(&self.model.handle, PRIORITY);
        let attached = match attached {
            // The session ends before those who use it.
            Err(_) if self.stop.load(Ordering::Relaxed) => return Err(Halt::Stopped),
            attached => attached?,
        };
        let handle = attached.handle();
        if let Some(active) = locked(&self.state).active.get_mut(id) {
            active.handle = Some(handle.clone());
            active.begun = Some((Instant::now(), left));
            // Whoever stopped it before saw no handle.
            if active.stop.load(Ordering::Relaxed) {
                handle.stop();
            }
        }
        match attached.wait() {
            Ok(counts) => Ok(Ok(counts)),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Err(handle.progress().counts)),
            Err(_) if self.stop.load(Ordering::Relaxed) => Err(Halt::Stopped),
            Err(e) => Err(e.into()),
        }
    }

    /// It was stopped: by its owner, or since the server ends.
    fn stopped(&self, id: &str, folder: &std::path::Path) -> Result<(), Halt> {
        self.cancelled(id, Counts::default(), folder)
    }

    fn cancelled(&self, id: &str, counts: Counts, folder: &std::path::Path) -> Result<(), Halt> {
        let row = self.store.batch(id)?;
        if row.object["status"] != "cancelling" {
            return Err(Halt::Stopped);
        }
        self.end(row, "cancelled", counts, folder)
    }

    /// The file as a whole is no batch.
    fn fail(&self, id: &str, faults: &[Value]) -> Result<(), Halt> {
        let mut row = self.store.batch(id)?;
        row.open = false;
        row.object["status"] = "failed".into();
        row.object["failed_at"] = ids::now().into();
        row.object["errors"] = json!({"object": "list", "data": faults});
        Ok(self.store.finish_batch(&row, &[])?)
    }

    /// Makes files of what there is, and ends the batch.
    fn end(&self, row: BatchRow, status: &str, counts: Counts, folder: &std::path::Path) -> Result<(), Halt> {
        let id = row.id;
        // What its files are called is known before they are made, so that a stop makes none twice.
        let name = || format!("file-{}", ids::hex());
        let (output, errors) = (name(), name());
        let cancelled = status == "cancelled";
        let mut row = self.store.change_batch(&id, |row| {
            for (key, name) in [("output", output), ("errors", errors)] {
                if row.job.get(key).is_none() {
                    row.job[key] = name.into();
                }
            }
            if !cancelled && row.object["status"] == "in_progress" {
                row.object["status"] = "finalizing".into();
                row.object["finalizing_at"] = ids::now().into();
            }
        })?;
        let created = ids::now();
        let expires = row.job["output_seconds"].as_u64().map(|seconds| created + seconds);
        let mut results = Vec::new();
        let files = [
            ("output", "out.jsonl", "output_file_id", counts.done),
            ("errors", "out.errors.jsonl", "error_file_id", counts.failed),
        ];
        for (key, file, member, lines) in files {
            let path = folder.join(file);
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if lines == 0 || bytes == 0 {
                continue;
            }
            let name = row.job[key].as_str().unwrap_or_default().to_owned();
            row.object[member] = name.as_str().into();
            let filename = format!("{id}_{key}.jsonl");
            let purpose = "batch_output".to_owned();
            results.push((path, FileRow { id: name, filename, purpose, bytes, created, expires }));
        }
        // Who cancels a batch that has just been done gets all of it, and the word that he gave.
        let status = if row.object["status"] == "cancelling" { "cancelled" } else { status };
        row.open = false;
        row.object["status"] = status.into();
        row.object[format!("{status}_at")] = created.into();
        row.object["request_counts"] = request_counts(counts);
        Ok(self.store.finish_batch(&row, &results)?)
    }

    /// Whether a batch is to stop.
    fn stops(&self, id: &str) -> bool {
        let stopped = |active: &Active| active.stop.load(Ordering::Relaxed);
        self.stop.load(Ordering::Relaxed) || locked(&self.state).active.get(id).is_none_or(stopped)
    }
}

impl Active {
    fn halt(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(handle) = &self.handle {
            handle.stop();
        }
    }
}

/// Whether a batch that is being checked is to stop.
struct Wish<'a> {
    worker: &'a Worker,
    id: &'a str,
}

impl Watcher for Wish<'_> {
    fn stops(&self) -> bool {
        self.worker.stops(self.id)
    }
}

/// Of the batches that have not ended, those that could begin now, as many as there may be.
fn due(open: Vec<BatchRow>, state: &State) -> Vec<BatchRow> {
    let waits = |id: &String| match state.waiting.get(id) {
        Some(Some(until)) => *until > Instant::now(),
        Some(None) => true,
        None => false,
    };
    let idle = open.into_iter().filter(|row| !state.active.contains_key(&row.id) && !waits(&row.id));
    idle.take(ACTIVE_MAX.saturating_sub(state.active.len())).collect()
}

/// About how long it takes still, if it goes on as it did since it had so many requests left.
fn seconds_left(begun: Instant, then: u64, now: u64) -> Option<f64> {
    let done = then.checked_sub(now).filter(|done| *done > 0)?;
    Some(begun.elapsed().as_secs_f64() * now as f64 / done as f64)
}

fn request_counts(counts: Counts) -> Value {
    json!({"total": counts.total, "completed": counts.done, "failed": counts.failed})
}
