//! A model's session: opened when there is work, and shared by all callers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use serde_json::{Value, json};

use aerostat::session::Status;
use aerostat::{Draft, Need, Observer, Options, Phase, Progress, Session, SessionHandle, Want};

use crate::batch::{Batch, counted};
use crate::call::{Call, UnderWay, follow_source, follow_ticket};
use crate::error::{raised, same_process};
use crate::feed::Feed;
use crate::model::Model;
use crate::request::{Asked, engine_options, requests};
use crate::wait::{Interrupts, detached};

/// A call with at least so many requests, and so many times what the model was opened for, has it opened anew.
const REOPEN_REQUESTS: usize = 8;
const REOPEN_TIMES: usize = 4;
/// A floor of more sequences is one of so many: no sweep has as many rows.
const FLOOR_SEQUENCES_MAX: usize = 1 << 16;

/// A model that runs.
#[pyclass(frozen, module = "aerostat._aerostat")]
pub(crate) struct Engine {
    model: Py<Model>,
    options: Options,
    /// Tokens of the longest sequence that it is opened for at least, and how many sequences of that.
    floor: (usize, usize),
    open: Mutex<Option<Open>>,
    /// Calls under way.
    calls: Arc<AtomicUsize>,
    /// When the sweep at hand is to be left.
    interrupts: Arc<Interrupts>,
    notes: Arc<Mutex<Vec<String>>>,
    pid: u32,
}

struct Open {
    session: Session,
    /// Requests that it was opened for.
    requests: usize,
}

/// What the session tells on its thread.
struct Watch {
    interrupts: Arc<Interrupts>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Observer for Watch {
    fn progress(&mut self, progress: &Progress) -> bool {
        match progress.phase {
            // Leaving it ends only what it was for; what else is under way ends with the next sweep.
            Phase::Loading => self.interrupts.is_pending(),
            _ => self.interrupts.heed(),
        }
    }

    fn note(&mut self, text: &str) {
        lock(&self.notes).push(text.to_owned());
    }
}

#[pymethods]
impl Engine {
    /// Of a model, with options in JSON. It is opened at the first call, for that call's requests and at least
    /// `floor_sequences` of `floor_tokens` each.
    #[new]
    fn new(model: Py<Model>, options: &str, floor_tokens: usize, floor_sequences: usize) -> PyResult<Self> {
        let options = engine_options(options, &model.get().files)?;
        if let Draft::Model(small) = &options.draft {
            model.get().files.check_draft(small).map_err(|e| raised(&e))?;
        }
        Ok(Self {
            model,
            options,
            floor: (floor_tokens, floor_sequences.min(FLOOR_SEQUENCES_MAX)),
            open: Mutex::default(),
            calls: Arc::default(),
            interrupts: Arc::default(),
            notes: Arc::default(),
            pid: std::process::id(),
        })
    }

    /// Hands requests over, as a JSON list. With `follow`, text and tokens are told as they come; text of a single request
    /// only.
    #[pyo3(signature = (given, follow=false, hooks=None))]
    fn call(&self, py: Python<'_>, given: &str, follow: bool, hooks: Option<Vec<Asked>>) -> PyResult<Call> {
        same_process(self.pid)?;
        let (mut requests, gathered) = requests(self.model.get(), given, hooks.unwrap_or_default())?;
        let counted = UnderWay::new(&self.calls);
        let mut need = Need::none();
        requests.iter().for_each(|request| need.add(request));
        let (handle, need) = self.open_for(py, requests.len(), need)?;
        let cancel = Arc::new(AtomicBool::new(false));
        let (sender, told) = channel();
        match requests.len() {
            1 if follow => {
                let ticket = handle.submit(requests.remove(0), 0).map_err(|e| raised(&e))?;
                follow_ticket(ticket, sender, Arc::clone(&cancel), counted)?;
            }
            _ => {
                let feed = Feed::new(requests, sender.clone(), Arc::clone(&cancel));
                let attached = handle.attach(Box::new(feed), need, 0).map_err(|e| raised(&e))?;
                follow_source(attached, sender, counted)?;
            }
        }
        Ok(Call::new(told, cancel, follow, gathered))
    }

    /// Works through a batch file beside other calls, or goes on with it, and gives the counts as JSON. `given` says which
    /// files, and how. `progress(done, failed, total)` is called now and then.
    #[pyo3(signature = (given, progress=None))]
    fn run_batch(&self, py: Python<'_>, given: &str, progress: Option<Bound<'_, PyAny>>) -> PyResult<String> {
        same_process(self.pid)?;
        let _counted = UnderWay::new(&self.calls);
        let batch = Batch::new(self.model.get(), &self.options, given, &self.interrupts)?;
        let job = batch.tell(py, None, Batch::open)?;
        let left = usize::try_from(job.counts().left()).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(counted(job.counts()));
        }
        // What it needs it says itself when it is attached.
        let (handle, _) = self.open_for(py, left, Need::none())?;
        batch.tell(py, progress.as_ref(), |batch| batch.ride(job, &handle)).map(counted)
    }

    /// Those of its options that results depend on, in words.
    fn identity(&self) -> String {
        aerostat::result_identity(&self.options)
    }

    /// Leaves the sweep at hand; all calls under way end.
    fn interrupt(&self) {
        self.interrupts.make();
    }

    /// How it stands, as JSON, with what it has to say since it was last asked.
    fn status(&self, py: Python<'_>) -> PyResult<String> {
        same_process(self.pid)?;
        let status = self.open(py)?.as_ref().map(|open| open.session.handle().status()).unwrap_or_default();
        let notes = std::mem::take(&mut *lock(&self.notes));
        Ok(described(&status, self.calls.load(Ordering::Relaxed), notes).to_string())
    }

    /// Lets what is under way finish, and gives memory back. The next call opens it again.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        same_process(self.pid)?;
        let open = self.open(py)?.take();
        detached(py, || open.into_iter().for_each(|open| open.session.finish()));
        Ok(())
    }
}

impl Engine {
    /// Whether there is no call but the caller's own.
    fn is_alone(&self) -> bool {
        self.calls.load(Ordering::Relaxed) <= 1
    }

    /// The session, opened for so many requests of this need if there is none, or if it is idle and was opened for far fewer
    /// or not at all; and what it is to be told that they need.
    fn open_for(&self, py: Python<'_>, requests: usize, need: Need) -> PyResult<(SessionHandle, Need)> {
        let mut open = self.open(py)?;
        let alone = self.is_alone();
        if alone {
            // One that came when nothing was under way any more is not meant for what comes now.
            self.interrupts.heed();
        }
        let grown = |open: &Open| {
            requests >= REOPEN_REQUESTS && requests > open.requests.saturating_mul(REOPEN_TIMES)
        };
        // What could not be opened was asked for more than there is room for, and would be asked for it each time.
        let failed = |open: &Open| open.session.handle().status().plan.is_none();
        if alone && open.as_ref().is_some_and(|open| grown(open) || failed(open)) {
            let old = open.take();
            detached(py, || old.into_iter().for_each(|open| open.session.finish()));
        }
        if let Some(open) = &*open {
            return Ok((open.session.handle(), need));
        }
        let (tokens, sequences) = self.floor;
        let mut first = need;
        (0..sequences).for_each(|_| first.add_tokens(tokens, 0, Want::Generate));
        let model = self.model.get();
        let watch = Watch { interrupts: Arc::clone(&self.interrupts), notes: Arc::clone(&self.notes) };
        let (files, tokenizer) = (Arc::clone(&model.files), model.tokenizer.clone());
        let session = Session::start(files, tokenizer, self.options.clone(), first, Box::new(watch));
        let session = session.map_err(|e| raised(&e))?;
        let opened = open.insert(Open { session, requests: requests.max(sequences) });
        // What they need it has been told.
        Ok((opened.session.handle(), Need::none()))
    }

    /// What is open. Whoever holds it may wait for the interpreter, so that nobody waits for it with the interpreter held.
    fn open(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Option<Open>>> {
        loop {
            match self.open.try_lock() {
                Ok(open) => return Ok(open),
                Err(TryLockError::Poisoned(open)) => return Ok(open.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            detached(py, || thread::sleep(Duration::from_millis(2)));
            py.check_signals()?;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.pid != std::process::id() {
            // Its threads stayed behind in the process that forked this one: they cannot be waited for.
            std::mem::forget(open);
            return;
        }
        Python::attach(|py| detached(py, || drop(open)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn described(status: &Status, calls: usize, notes: Vec<String>) -> Value {
    let progress = status.progress.map(|p| {
        json!({
            "phase": format!("{:?}", p.phase).to_lowercase(),
            "sweep": p.sweep,
            "tile": p.tile,
            "tiles": p.tiles,
            "rows": p.rows,
            "read_bytes": p.read_bytes,
            "tokens": p.tokens,
            "tokens_left": p.tokens_left,
            "seconds": p.elapsed.as_secs_f64(),
        })
    });
    json!({
        "open": status.plan.is_some(),
        "budget_bytes": status.plan.as_ref().map(|plan| plan.budget_bytes),
        "reopened": status.reopened,
        "progress": progress,
        "stats": status.stats,
        "calls": calls,
        "notes": notes,
    })
}
