//! A model that many callers share: the engine on a thread of its own.
//!
//! Requests enter between sweeps, from any thread, and ride on sweeps together; tokens and results come back on channels.
//! A job (any [`Work`]) is one more source of requests.
//!
//! What is promised:
//! - Nothing of this shows in the bits of a result: it is what the request gives alone.
//! - Every request ends with one [`Event::Finished`], whatever happens; a sweep's text comes before its tokens. Text needs
//!   a tokenizer.
//! - One request's failure, or a source's own error, costs no other anything. An error of the engine, such as a disk that
//!   fails, or an observer that asks to stop, ends all that is under way.
//! - Requests of a lower priority number go first; a single request goes before sources of its number. Up to 256 that the
//!   engine has in sight already keep their order, but those below 0 pass them too. What waits is bounded by
//!   [`QueueLimits`]: more is refused with [`ErrorKind::Busy`], which a server tells its clients.
//! - How far each request is can be read at any time, by any thread, without pausing anything:
//!   [`SessionHandle::requests`].
//! - A cancelled request leaves at the end of the sweep, and what its prompt left in the cache stays for others.

mod board;
mod table;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aerostat_plan::Plan;
use aerostat_text::Tokenizer;

use board::Board;
use table::Table;
pub use table::{QueueLimits, RequestState, RequestStatus};
use worker::Worker;

use crate::model_files::ModelFiles;
use crate::need::Need;
use crate::observe::{Observer, Progress};
use crate::options::Options;
use crate::request::{Outcome, Request, TokenLogprobs, Work};
use crate::stats::Stats;
use crate::{Error, ErrorKind};

/// The number of a request in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct RequestId(pub u64);

/// When a request is taken, among those that wait: lower ones first, equal ones in order of arrival. Those below 0 enter
/// at the next border of sweeps, before all that wait already.
pub type Priority = i32;

/// What comes back for a request.
#[derive(Debug)]
pub enum Event {
    /// New text of its answer, whole characters only.
    Text(String),
    /// What a sweep added to its answer.
    Tokens {
        /// The tokens, in order.
        token_ids: Vec<u32>,
        /// One for each of them if log-probabilities are wanted, else empty.
        logprobs: Vec<TokenLogprobs>,
    },
    /// The last event: its result, or why it has none. A cancelled answer comes as far as it came; a request that was
    /// cancelled before it began fails with [`ErrorKind::Interrupted`].
    Finished(Outcome),
}

/// A model opened for many callers. Dropping it interrupts what is under way at the next tile.
pub struct Session {
    handle: SessionHandle,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// Hands requests to a [`Session`], from any thread.
#[derive(Clone)]
pub struct SessionHandle {
    commands: Sender<Command>,
    next_id: Arc<AtomicU64>,
    status: Arc<Mutex<Status>>,
    table: Arc<Table>,
}

/// What a session tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The plan in force; `None` before the model is opened.
    pub plan: Option<Plan>,
    /// Where the load or sweep at hand stands.
    pub progress: Option<Progress>,
    /// What happened since the model was opened, as of the last time that nothing was left to do.
    pub stats: Option<Stats>,
    /// Times the model was opened again because a request did not fit.
    pub reopened: u64,
    /// Single requests that were handed over and have not ended.
    pub requests: usize,
}

/// Hears the events of one request, on the engine's thread between tiles: it must be quick.
pub type Listener = Box<dyn FnMut(Event) + Send>;

/// A request under way. Dropping it cancels the request.
pub struct Ticket {
    id: RequestId,
    events: Receiver<Event>,
    commands: Sender<Command>,
}

/// A source of requests under way; see [`SessionHandle::attach`].
pub struct Attached {
    ended: Receiver<Ended>,
}

/// A source that has ended.
pub struct Ended {
    /// The source, given back.
    pub work: Box<dyn Work + Send>,
    /// How it ended: an error of its own, or what ended the session's run.
    pub result: Result<(), Error>,
}

/// What the engine's thread is told.
enum Command {
    Submit { id: RequestId, request: Box<Request>, priority: Priority, events: Listener },
    Attach { source: Box<dyn Work + Send>, need: Need, priority: Priority, ended: Sender<Ended> },
    Cancel(RequestId),
    CancelAll,
    Close,
}

impl Session {
    /// Starts the engine's thread. The model is opened for `need` when the first request comes: for as many sequences at once
    /// as it counts ([`Need::many`]), which are answered together as far as memory allows. A request
    /// that is longer than what is open makes it plan and open again when those under way are finished. `observer` is told
    /// how loading and sweeps go on, and may stop them.
    ///
    /// # Errors
    /// The thread cannot be started. What opening meets is the result of the requests that wait for it.
    pub fn start(
        files: Arc<ModelFiles>,
        tokenizer: Option<Arc<Tokenizer>>,
        options: Options,
        need: Need,
        observer: Box<dyn Observer + Send>,
    ) -> Result<Self, Error> {
        Self::start_with(files, tokenizer, options, (need, QueueLimits::default()), observer)
    }

    /// The same with a bound on what may wait.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn start_with(
        files: Arc<ModelFiles>,
        tokenizer: Option<Arc<Tokenizer>>,
        options: Options,
        (need, limits): (Need, QueueLimits),
        observer: Box<dyn Observer + Send>,
    ) -> Result<Self, Error> {
        let table = Arc::new(Table::new(limits));
        let (commands, inbox) = channel();
        let status = Arc::new(Mutex::new(Status::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            files: Arc::clone(&files),
            tokenizer: tokenizer.clone(),
            options,
            observer,
            board: Board::new(inbox, need, (Arc::clone(&files), tokenizer.is_some()), Arc::clone(&table)),
            first_need: need,
            status: Arc::clone(&status),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("aerostat-engine".to_owned()).spawn(|| worker.run());
        let thread = thread.map_err(|e| {
            Error::new(ErrorKind::Device, format!("the engine's thread cannot be started: {e}"))
        })?;
        let handle = SessionHandle { commands, next_id: Arc::new(AtomicU64::new(0)), status, table };
        Ok(Self { handle, thread: Some(thread), stop })
    }

    /// Hands requests over; it can be cloned and sent to other threads.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// Lets what is under way finish, and closes the model. What is handed over from now on is refused.
    pub fn finish(mut self) {
        // The thread is gone only if it was closed before.
        let _ = self.handle.commands.send(Command::Close);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the engine has been told by its thread; there is nothing more to save.
            let _ = thread.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.thread.is_none() {
            return;
        }
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.handle.commands.send(Command::CancelAll);
        let _ = self.handle.commands.send(Command::Close);
        self.join();
    }
}

impl SessionHandle {
    /// Hands a request over; its `id` is not looked at.
    ///
    /// # Errors
    /// The session is closed, or too much waits: [`ErrorKind::Busy`].
    pub fn submit(&self, request: Request, priority: Priority) -> Result<Ticket, Error> {
        let (events, receiver) = channel();
        // Nobody listens any more: then nobody wants to know.
        let listener = Box::new(move |event| drop(events.send(event)));
        let id = self.submit_to(request, priority, listener)?;
        Ok(Ticket { id, events: receiver, commands: self.commands.clone() })
    }

    /// Hands a request over whose events a listener hears, for callers that no thread of their own waits for; it is
    /// cancelled by [`cancel`](Self::cancel) alone. The listener is dropped after the last event.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_to(
        &self,
        request: Request,
        priority: Priority,
        events: Listener,
    ) -> Result<RequestId, Error> {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.table.enter(id, &request, priority)?;
        let sent = self.send(Command::Submit { id, request: Box::new(request), priority, events });
        sent.inspect_err(|_| self.table.leave(id.0))?;
        Ok(id)
    }

    /// Lets a source's requests ride along until it has none left: a batch job, say. `need` is what all of them need.
    ///
    /// # Errors
    /// The session is closed.
    pub fn attach(
        &self,
        source: Box<dyn Work + Send>,
        need: Need,
        priority: Priority,
    ) -> Result<Attached, Error> {
        let (ended, receiver) = channel();
        self.send(Command::Attach { source, need, priority, ended })?;
        Ok(Attached { ended: receiver })
    }

    /// Cancels a request at the end of the sweep; one that has ended is left alone.
    pub fn cancel(&self, id: RequestId) {
        // Without a session nothing is under way.
        let _ = self.commands.send(Command::Cancel(id));
    }

    /// Cancels all requests; sources end as if they were interrupted.
    pub fn cancel_all(&self) {
        let _ = self.commands.send(Command::CancelAll);
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far each single request is that has not ended, in order of arrival.
    pub fn requests(&self) -> Vec<RequestStatus> {
        self.table.list()
    }

    /// Sequences that the last sweep carried on, those of sources too, and the positions that they take in the KV cache.
    pub fn under_way(&self) -> (usize, usize) {
        self.table.carried()
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).map_err(|_| closed())
    }
}

impl Ticket {
    /// The request's number.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// The next event, once there is one; `None` after the last.
    pub fn next(&self) -> Option<Event> {
        self.events.recv().ok()
    }

    /// The next event if one comes within this time.
    ///
    /// # Errors
    /// None came, or none will.
    pub fn next_within(&self, time: Duration) -> Result<Event, RecvTimeoutError> {
        self.events.recv_timeout(time)
    }

    /// Waits for the result.
    pub fn wait(self) -> Outcome {
        loop {
            match self.events.recv() {
                Ok(Event::Finished(outcome)) => return outcome,
                Ok(_) => {}
                Err(_) => return Outcome::Failed(closed()),
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel(self.id));
    }
}

impl Attached {
    /// Waits until the source has ended, and gives it back.
    ///
    /// # Errors
    /// The session is gone, and the source with it.
    pub fn wait(self) -> Result<Ended, Error> {
        self.ended.recv().map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Usage, "the session is closed")
}
