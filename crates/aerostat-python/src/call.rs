//! Requests under way, as a Python caller holds them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use aerostat::session::{Attached, Event, Ticket};
use aerostat::{Error, ErrorKind, Outcome};

use crate::error::{class, exception, same_process, usage};
use crate::feed::Told;
use crate::hook::{self, Gathering};
use crate::values;
use crate::wait::{FOREVER, MOMENT, receive};

/// Counts a call as under way until it is dropped.
pub(crate) struct UnderWay(Arc<std::sync::atomic::AtomicUsize>);

impl UnderWay {
    /// One call more.
    pub(crate) fn new(count: &Arc<std::sync::atomic::AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Requests under way. Dropping it cancels them.
#[pyclass(frozen, module = "aerostat._aerostat")]
pub(crate) struct Call {
    told: Mutex<Receiver<Told>>,
    cancel: Arc<AtomicBool>,
    /// Tokens of answers that have not ended.
    partial: Mutex<BTreeMap<u64, Vec<u32>>>,
    /// Tokens and text are wanted as they come.
    follow: bool,
    /// What is gathered of requests that want it.
    gathered: Gathering,
    pid: u32,
}

impl Call {
    /// What is told on a channel, while `follow` as it comes.
    pub(crate) fn new(
        told: Receiver<Told>,
        cancel: Arc<AtomicBool>,
        follow: bool,
        gathered: Gathering,
    ) -> Self {
        let partial = Mutex::default();
        Self { told: Mutex::new(told), cancel, partial, follow, gathered, pid: std::process::id() }
    }
}

#[pymethods]
impl Call {
    /// What was told since, as `(index, kind, members)`; waits up to so many seconds for the first, or without an end where
    /// none are named, and then no signals are looked at: for threads that get none. The last one is `(0, "end", None)` or
    /// `(0, "ended", {…})` with an error.
    #[pyo3(signature = (seconds=None))]
    fn next(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Vec<Py<PyTuple>>> {
        same_process(self.pid)?;
        let time = match seconds {
            Some(seconds) => {
                Duration::try_from_secs_f64(seconds).map_err(|e| usage(format!("seconds: {e}")))?
            }
            None => FOREVER,
        };
        let moment = if seconds.is_some() { MOMENT } else { FOREVER };
        let Ok(mut told) = self.told.try_lock() else {
            return Err(usage("another thread is waiting for this call"));
        };
        let mut events = Vec::new();
        let until = Instant::now() + time.min(FOREVER);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let first = match receive(py, &mut told, left, moment)? {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => return Ok(events),
                Err(RecvTimeoutError::Disconnected) => {
                    Told::Ended(Err(Error::new(ErrorKind::Usage, "the model is closed")))
                }
            };
            self.add(py, first, &mut events)?;
            while let Ok(more) = told.try_recv() {
                self.add(py, more, &mut events)?;
            }
            // Tokens that nobody follows are no event.
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Ends it at the end of the sweep.
    fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// The tokens of answers that have not ended, by index.
    fn partial(&self) -> Vec<(u64, Vec<u32>)> {
        let partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        partial.iter().map(|(id, tokens)| (*id, tokens.clone())).collect()
    }
}

impl Call {
    /// Adds what was told to `events`.
    fn add(&self, py: Python<'_>, told: Told, events: &mut Vec<Py<PyTuple>>) -> PyResult<()> {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let event = match told {
            Told::Text(id, text) if self.follow => (id, "text", text).into_pyobject(py)?,
            Told::Text(..) => return Ok(()),
            Told::Tokens(new) => {
                for (id, tokens, logprobs) in new {
                    partial.entry(id).or_default().extend(&tokens);
                    if self.follow {
                        let told = (tokens, values::logprobs(logprobs));
                        events.push((id, "tokens", told).into_pyobject(py)?.unbind());
                    }
                }
                return Ok(());
            }
            Told::Finished(id, outcome) => {
                partial.remove(&id);
                let (kind, members) = values::outcome(py, outcome)?;
                if let Some(gathered) = self.gathered.get(&id) {
                    members.set_item("gathered", hook::members(py, gathered)?)?;
                }
                (id, kind, members).into_pyobject(py)?
            }
            Told::Ended(Ok(())) => (0, "end", py.None()).into_pyobject(py)?,
            Told::Ended(Err(error)) => {
                let members = pyo3::types::PyDict::new(py);
                members.set_item("class", class(error.kind()))?;
                members.set_item("message", error.to_string())?;
                (0, "ended", members).into_pyobject(py)?
            }
        };
        events.push(event.unbind());
        Ok(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

/// Tells when a source has ended. `counted` ends before that is told.
pub(crate) fn follow_source(attached: Attached, told: Sender<Told>, counted: UnderWay) -> PyResult<()> {
    started(thread::Builder::new().name("aerostat-call".to_owned()).spawn(move || {
        let ended = match attached.wait() {
            Ok(ended) => ended.result,
            Err(error) => Err(error),
        };
        drop(counted);
        // Nobody listens any more: then nobody wants to know.
        let _ = told.send(Told::Ended(ended));
    }))
}

/// Tells what becomes of a single request.
pub(crate) fn follow_ticket(
    ticket: Ticket,
    told: Sender<Told>,
    cancel: Arc<AtomicBool>,
    counted: UnderWay,
) -> PyResult<()> {
    const MOMENT: Duration = Duration::from_millis(50);
    started(thread::Builder::new().name("aerostat-call".to_owned()).spawn(move || {
        let mut result = Ok(());
        loop {
            // Dropping the ticket cancels the request; whoever cancels wants what came so far, so it is asked for gently.
            if cancel.load(Ordering::Relaxed) {
                break;
            }
            let event = match ticket.next_within(MOMENT) {
                Ok(Event::Text(text)) => Told::Text(0, text),
                Ok(Event::Tokens { token_ids, logprobs }) => Told::Tokens(vec![(0, token_ids, logprobs)]),
                Ok(Event::Finished(Outcome::Failed(error))) if error.kind() == ErrorKind::Interrupted => {
                    result = Err(error);
                    break;
                }
                Ok(Event::Finished(outcome)) => Told::Finished(0, outcome),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let last = matches!(event, Told::Finished(..));
            if told.send(event).is_err() || last {
                break;
            }
        }
        drop((ticket, counted));
        let _ = told.send(Told::Ended(result));
    }))
}

fn started(thread: std::io::Result<thread::JoinHandle<()>>) -> PyResult<()> {
    thread.map(drop).map_err(|e| exception("DeviceError", format!("a thread cannot be started: {e}")))
}
