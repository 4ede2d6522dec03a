//! What runs batches: each as a job beside others in the session, a few at once, oldest first.
//!
//! A batch's row says how far it is, and its job knows what is done, so that a stop at any moment loses nothing: the next
//! start takes up whatever has not ended.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
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
use crate::folder::{at, make_private};
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

/// Results of a batch in the folder of its job.
const OUTPUT: &str = "out.jsonl";
const ERRORS: &str = "out.errors.jsonl";
/// Why what was made for other weights does not go on.
pub(crate) const OTHER_MODEL: &str = "it was made for another model: it goes on when a server is started with that one and this folder; or cancel it";

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
    Later(Reason),
    /// It cannot go on in this server.
    Never(Reason),
}

/// Why a batch waits.
struct Reason {
    /// What the log says, with paths and with what the owner of the server can do.
    log: String,
    /// What clients read.
    told: String,
}

impl Reason {
    fn new(log: impl std::fmt::Display, told: impl Into<String>) -> Self {
        Self { log: log.to_string(), told: told.into() }
    }

    /// What clients may know as it is.
    fn plain(why: impl Into<String>) -> Self {
        let why = why.into();
        Self { log: why.clone(), told: why }
    }
}

const FULL: &str = "it is tried again every minute, and goes on by itself when there is room";
const FAILED: &str =
    "something failed that may pass, the server's log says what; it is tried again every minute";

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full(what) => Self::Later(Reason::new(&what, format!("{what}; {FULL}"))),
            Fault::Failed(what) => Self::Later(Reason::new(what, FAILED)),
            Fault::Absent => Self::Never(Reason::plain("its input is gone; cancel it")),
            Fault::Damaged(what) => Self::Never(Reason::plain(format!("its input is damaged: {what}"))),
            Fault::InUse => Self::Later(Reason::plain("its input is in use")),
        }
    }
}

impl From<aerostat_jobs::Error> for Halt {
    /// What a job says names paths, and what to do at a command line.
    fn from(e: aerostat_jobs::Error) -> Self {
        match e.kind() {
            ErrorKind::Interrupted => Self::Stopped,
            ErrorKind::Changed | ErrorKind::Usage | ErrorKind::Defect => {
                Self::Never(Reason::new(e, "it cannot go on in this server, whose log says why; cancel it"))
            }
            ErrorKind::Disk => {
                let told = format!("results could not be written, since the disk is full or fails; {FULL}");
                Self::Later(Reason::new(e, told))
            }
            _ => Self::Later(Reason::new(e, FAILED)),
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
        let output = self.store.job_folder(&row.id).join(OUTPUT);
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
                eprintln!("error: {id} waits: {}", why.log);
                Some(why.told.clone())
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
        if row.object["status"] == "cancelling" {
            return self.call_off(row, &folder);
        }
        if row.job["digest"] != self.model.digest {
            return Err(Halt::Never(Reason::plain(OTHER_MODEL)));
        }
        let input = self.store.whole_file(&row.input)?;
        if is_new && !folder.exists() {
            let endpoint = row.object["endpoint"].as_str().unwrap_or_default();
            let faults =
                scan(&input, endpoint, lines_max(self.model.options.memory_bytes), &|| self.stops(id))
                    .map_err(|e| Fault::from(at(&input, &e)))?;
            let Some(faults) = faults else { return self.stopped(id, &folder) };
            if !faults.is_empty() {
                return self.fail(id, &faults);
            }
        }
        make_private(&folder).map_err(Fault::from)?;
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
    fn open(&self, row: &BatchRow, input: PathBuf, folder: &Path) -> Result<Job, aerostat_jobs::Error> {
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
        let paths = JobPaths::beside(&input, &folder.join(OUTPUT));
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

    /// Ends a batch that is not wanted and that nobody works on, with the results that its job left: whatever kept it from
    /// going on does not keep it from ending.
    fn call_off(&self, row: BatchRow, folder: &Path) -> Result<(), Halt> {
        let own = row.job["digest"] == self.model.digest && folder.exists();
        let input = self.store.whole_file(&row.input).ok().filter(|_| own);
        let opened = input.map(|input| self.open(&row, input, folder).map(|job| job.counts()));
        let counts = match opened {
            Some(Ok(counts)) => counts,
            _ if self.stop.load(Ordering::Relaxed) => return Err(Halt::Stopped),
            _ => left_by_job(folder).map_err(Fault::from)?,
        };
        self.end(row, "cancelled", counts, folder)
    }

    /// It was stopped: by its owner, or since the server ends.
    fn stopped(&self, id: &str, folder: &Path) -> Result<(), Halt> {
        let row = self.store.batch(id)?;
        match row.object["status"] == "cancelling" {
            true => self.end(row, "cancelled", left_by_job(folder).map_err(Fault::from)?, folder),
            false => Err(Halt::Stopped),
        }
    }

    fn cancelled(&self, id: &str, counts: Counts, folder: &Path) -> Result<(), Halt> {
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
    fn end(&self, row: BatchRow, status: &str, counts: Counts, folder: &Path) -> Result<(), Halt> {
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
            ("output", OUTPUT, "output_file_id", counts.done),
            ("errors", ERRORS, "error_file_id", counts.failed),
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
        // Whatever it waited for is over.
        if let Some(object) = row.object.as_object_mut() {
            object.remove("aerostat");
        }
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

/// What a job that is not opened left: its results in whole lines, of which a stop may have cut off the last. They are
/// counted, since what the job itself counted may be behind them.
fn left_by_job(folder: &Path) -> std::io::Result<Counts> {
    let output = folder.join(OUTPUT);
    let total = list_jobs(&output).ok().and_then(|mut jobs| jobs.pop()).map_or(0, |job| job.total);
    let (done, failed) = (whole_lines(&output)?, whole_lines(&folder.join(ERRORS))?);
    Ok(Counts { total: total.max(done + failed), done, failed })
}

/// Cuts off what follows the last whole line of a file, and counts its lines; a file that is not there has none.
fn whole_lines(path: &Path) -> std::io::Result<u64> {
    let wrong = |e: std::io::Error| at(path, &e);
    let file = match fs::File::options().read(true).write(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        file => file.map_err(wrong)?,
    };
    let (mut lines, mut good, mut bytes) = (0, 0, 0);
    let mut reader = BufReader::new(&file);
    loop {
        let piece = reader.fill_buf().map_err(wrong)?;
        if piece.is_empty() {
            break;
        }
        lines += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Some(last) = piece.iter().rposition(|byte| *byte == b'\n') {
            good = bytes + last as u64 + 1;
        }
        let read = piece.len();
        bytes += read as u64;
        reader.consume(read);
    }
    if good < bytes {
        file.set_len(good).map_err(wrong)?;
    }
    file.sync_all().map_err(wrong)?;
    Ok(lines)
}

/// Of the batches that have not ended, those that could begin now, as many as there may be; those that are not wanted end
/// at once.
fn due(open: Vec<BatchRow>, state: &State) -> Vec<BatchRow> {
    let waits = |id: &String| match state.waiting.get(id) {
        Some(Some(until)) => *until > Instant::now(),
        Some(None) => true,
        None => false,
    };
    let mut places = ACTIVE_MAX.saturating_sub(state.active.len());
    let idle = open.into_iter().filter(|row| !state.active.contains_key(&row.id) && !waits(&row.id));
    let due = idle.filter(|row| {
        let free = places > 0;
        places = places.saturating_sub(1);
        free || row.object["status"] == "cancelling"
    });
    due.collect()
}

/// About how long it takes still, if it goes on as it did since it had so many requests left.
fn seconds_left(begun: Instant, then: u64, now: u64) -> Option<f64> {
    let done = then.checked_sub(now).filter(|done| *done > 0)?;
    Some(begun.elapsed().as_secs_f64() * now as f64 / done as f64)
}

fn request_counts(counts: Counts) -> Value {
    json!({"total": counts.total, "completed": counts.done, "failed": counts.failed})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: usize, status: &str) -> BatchRow {
        let object = json!({"status": status});
        BatchRow { id: id.to_string(), open: true, input: String::new(), object, job: json!({}) }
    }

    /// Behind four that took hours, a batch stayed cancelling for as long.
    #[test]
    fn what_is_not_wanted_ends_though_all_places_are_taken() {
        let mut state = State::default();
        state.active.extend((0..3).map(|id| (id.to_string(), Active::default())));
        let open =
            vec![row(0, "in_progress"), row(5, "validating"), row(6, "validating"), row(7, "cancelling")];
        let ids: Vec<String> = due(open, &state).into_iter().map(|row| row.id).collect();
        assert_eq!(ids, ["5", "7"]);
    }

    #[test]
    fn a_job_that_is_not_opened_leaves_its_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join(OUTPUT);
        fs::write(&output, "{\"a\":1}\n{\"b\":2}\n{\"c").unwrap();
        let counts = left_by_job(folder.path()).unwrap();
        assert_eq!((counts.total, counts.done, counts.failed), (2, 2, 0));
        assert_eq!(fs::read_to_string(&output).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(left_by_job(&folder.path().join("none")).unwrap().done, 0);
    }

    /// Clients were told paths of the server, and to give a command again.
    #[test]
    fn clients_are_told_what_concerns_them() {
        let full = Fault::from(std::io::Error::new(std::io::ErrorKind::StorageFull, "/data/x: full"));
        let Halt::Later(why) = Halt::from(full) else { panic!("a full disk is emptied some time") };
        assert!(why.told.contains("by itself") && !why.told.contains('/'), "{}", why.told);
        let Halt::Later(why) = Halt::from(Fault::Failed("/data/x: failed".to_owned())) else {
            panic!("it may pass")
        };
        assert!(!why.told.contains("/data") && why.log.contains("/data"), "{}", why.told);
    }
}
