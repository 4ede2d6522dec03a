//! A request in the engine: its parts are handed over, what comes back is put together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aerostat::session::{Event, Priority, RequestId};
use aerostat::{FinishReason, Outcome, Request};
use aerostat_openai::{
    ApiRequest, Finish, Part, PartResult, Refusal, Scoring, Stamp, Task, Token, WriteError,
};
use hyper::body::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot::Receiver;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::app::App;
use crate::body::Body;
use crate::engine::Model;
use crate::held::Held;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::registry::{Entry, Place};
use crate::text::{Pieces, line};
use crate::turns::{Share, Turn};

/// Interactive requests enter before all that wait.
pub(crate) const INTERACTIVE: Priority = -1;
/// Requests that say that they can wait go before batches only.
pub(crate) const FLEXIBLE: Priority = 5;

/// What a response remembers of a token: the event that told it, about.
const EVENT_BYTES: usize = 256;

/// A request that was read and found good, with the engine's requests for its parts.
pub(crate) struct Prepared {
    pub(crate) request: ApiRequest,
    pub(crate) parts: Vec<Request>,
    /// The seed that was drawn, where the request named none.
    pub(crate) seed: Option<u64>,
    pub(crate) stamp: Stamp,
    /// What it is called where its answer has an id of another kind.
    pub(crate) name: Option<String>,
    pub(crate) priority: Priority,
    /// Whose it is: the place of its key.
    pub(crate) key: usize,
    /// What it holds of what clients share.
    pub(crate) held: Vec<Held>,
}

/// A request under way. Dropping it cancels what is not finished.
pub(crate) struct Run {
    pub(crate) model: Arc<Model>,
    pub(crate) request: ApiRequest,
    pub(crate) stamp: Stamp,
    seed: Option<u64>,
    parts: Vec<Progress>,
    left: usize,
    events: UnboundedReceiver<(usize, Event)>,
    /// What waits to be handed over, and for what.
    waiting: Option<(Vec<Request>, Receiver<Turn>, Priority)>,
    sender: Option<UnboundedSender<(usize, Event)>>,
    /// The memory that its answer takes.
    room: Option<Turn>,
    /// The body of the response, while it is written.
    writing: Option<JoinHandle<Result<VecDeque<Bytes>, Problem>>>,
    place: Place,
    /// When the engine was given it, and how often somebody looks whether it has taken it up.
    handed: Option<Instant>,
    look_time: Duration,
    /// Tokens of all answers so far.
    pub(crate) tokens: usize,
    pub(crate) prompt_tokens: usize,
    arrived: Instant,
    /// When the first token came, and when the last.
    first: Option<Instant>,
    last: Option<Instant>,
    /// The first answer that ended, and why.
    finish: Option<Finish>,
    metrics: Arc<Metrics>,
    /// What makes another body of it.
    pub(crate) reshape: Option<Reshape>,
    _held: Vec<Held>,
}

/// Makes the body that a client wants of the one that there is.
pub(crate) type Reshape = Box<dyn FnOnce(Value) -> Value + Send>;

struct Progress {
    id: RequestId,
    done: Option<Part>,
}

/// What happened to a part.
#[derive(Debug)]
pub(crate) enum Change {
    /// Its answer has more text.
    Text(String),
    /// Its answer has more tokens.
    Tokens(Vec<Token>),
    /// It ended; `None` if it is no answer.
    End(Option<Finish>),
}

impl Run {
    /// Hands all parts over when it is their turn.
    pub(crate) fn start(app: &App, prepared: Prepared) -> Result<Self, Problem> {
        let Prepared { request, parts, seed, stamp, name, priority, key, held } = prepared;
        let App { registry, metrics, .. } = app;
        let model = app.model()?;
        let (sender, events) = unbounded_channel();
        let responds = name.is_some();
        let prompt_tokens = parts.iter().map(|part| part.token_ids.len()).sum();
        let place = registry.enter(Entry {
            id: name.unwrap_or_else(|| id_of(&request.task, &stamp)),
            class: if priority < 0 { "interactive" } else { "batch" },
            prompt_tokens,
            tokens: 0,
            tokens_max: parts.iter().map(|part| part.max_new_tokens).sum(),
            arrived: Instant::now(),
            begun: None,
            taken: None,
            sequences: Vec::new(),
            waits: None,
        });
        let left = parts.len();
        let mut run = Self {
            model: Arc::clone(model),
            request,
            stamp,
            seed,
            parts: Vec::with_capacity(left),
            left,
            events,
            waiting: None,
            sender: Some(sender),
            room: None,
            writing: None,
            place,
            handed: None,
            look_time: app.config.limits.look_time,
            tokens: 0,
            prompt_tokens,
            arrived: Instant::now(),
            first: None,
            last: None,
            finish: None,
            metrics: Arc::clone(metrics),
            reshape: None,
            _held: held,
        };
        let events: usize = if responds { parts.iter().map(|part| part.max_new_tokens).sum() } else { 0 };
        let bytes = model.setting.answer_bytes_max(&run.request.task) + events * EVENT_BYTES;
        // Those that can wait are behind all others in the session, and take nobody's turn.
        let mut turn = match priority {
            0.. => app.later.ask(key, Share { sequences: 0, bytes }),
            _ => app.turns.ask(key, Share { sequences: left, bytes }),
        };
        match turn.try_recv() {
            Ok(turn) => run.hand_over(parts, priority, turn)?,
            Err(_) => {
                run.place.update(|entry| entry.waits = run.sender.clone());
                run.waiting = Some((parts, turn, priority));
            }
        }
        Ok(run)
    }

    /// Gives the engine all parts. The turn ends with the last of them, however long their answers are read.
    fn hand_over(&mut self, parts: Vec<Request>, priority: Priority, turn: Turn) -> Result<(), Problem> {
        let Some(all) = self.sender.take() else { return Ok(()) };
        let (turn, room) = turn.apart();
        (self.room, self.waiting) = (Some(room), None);
        self.handed = Some(Instant::now());
        let turn = Arc::new(turn);
        for (index, part) in parts.into_iter().enumerate() {
            let (sender, turn) = (all.clone(), Arc::clone(&turn));
            let listener = Box::new(move |event| {
                let _turn = &turn;
                // Nobody listens any more: then nobody wants to know.
                drop(sender.send((index, event)));
            });
            let id = self.model.handle.submit_to(part, priority, listener).map_err(|e| Problem::from(&e))?;
            self.parts.push(Progress { id, done: None });
        }
        self.place.update(|entry| {
            entry.waits = None;
            entry.sequences = self.parts.iter().map(|part| part.id).collect();
        });
        Ok(())
    }

    /// All text of an answer that has ended.
    pub(crate) fn text(&self, part: usize) -> Option<&str> {
        match &self.parts.get(part)?.done.as_ref()?.result {
            PartResult::Text { text, .. } => text.as_deref(),
            _ => None,
        }
    }

    /// The engine was not given it yet.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// What others see of it: its id.
    pub(crate) fn id(&self) -> String {
        self.place.update(|entry| entry.id.clone()).unwrap_or_default()
    }

    /// The next thing that happened; `None` when all parts have ended.
    pub(crate) fn poll_change(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<(usize, Change)>, Problem>> {
        if self.left == 0 {
            return Poll::Ready(Ok(None));
        }
        if let Some((_, turn, _)) = &mut self.waiting {
            let Poll::Ready(turn) = Pin::new(turn).poll(context) else {
                // All that comes before its turn is that it is cancelled.
                return match self.events.poll_recv(context) {
                    Poll::Ready(Some(_)) => Poll::Ready(Err(Problem::stopping())),
                    _ => Poll::Pending,
                };
            };
            let Ok(turn) = turn else { return Poll::Ready(Err(Problem::stopping())) };
            if let Some((parts, _, priority)) = self.waiting.take()
                && let Err(problem) = self.hand_over(parts, priority, turn)
            {
                return Poll::Ready(Err(problem));
            }
        }
        let event = std::task::ready!(self.events.poll_recv(context));
        let gone = || Problem::unavailable("engine_gone", "the engine has ended; start the server again", 60);
        let Some((index, event)) = event else { return Poll::Ready(Err(gone())) };
        Poll::Ready(self.take(index, event).map(|change| Some((index, change))))
    }

    fn take(&mut self, index: usize, event: Event) -> Result<Change, Problem> {
        match event {
            Event::Text(text) => Ok(Change::Text(text)),
            Event::Tokens { token_ids, logprobs } => {
                let tokens = Token::zip(&token_ids, &logprobs)?;
                self.count(tokens.len());
                let sum = self.tokens;
                self.place.update(|entry| {
                    entry.tokens = sum;
                    entry.begun.get_or_insert_with(Instant::now);
                });
                Ok(Change::Tokens(tokens))
            }
            Event::Finished(outcome) => {
                let part = finished(outcome)?;
                let end = match &part.result {
                    PartResult::Text { finish, .. } => Some(*finish),
                    _ => None,
                };
                let place = self.parts.get_mut(index).filter(|place| place.done.is_none());
                let place = place.ok_or_else(|| Problem::internal(format!("part {index} ended twice")))?;
                place.done = Some(part);
                self.left -= 1;
                self.finish = self.finish.or(end);
                Ok(Change::End(end))
            }
        }
    }

    /// Counts tokens that came together.
    fn count(&mut self, tokens: usize) {
        let now = Instant::now();
        let metrics = &self.metrics;
        self.tokens += tokens;
        match self.last.replace(now) {
            None => metrics.first_token.add(now.duration_since(self.arrived).as_secs_f64()),
            Some(last) => {
                metrics.between_tokens.add(now.duration_since(last).as_secs_f64() / tokens.max(1) as f64)
            }
        }
        self.first.get_or_insert(now);
    }

    /// The body of the response, once all parts have ended and it is written.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Body, Problem>> {
        loop {
            if let Some(writing) = &mut self.writing {
                let written = std::task::ready!(Pin::new(writing).poll(context));
                self.writing = None;
                let pieces = written.map_err(Problem::internal).flatten();
                return Poll::Ready(pieces.map(|pieces| Body::pieces(pieces).holding(self.room.take())));
            }
            match std::task::ready!(self.poll_change(context)) {
                Ok(Some(_)) => {}
                Ok(None) => self.writing = Some(self.write()?),
                Err(problem) => return Poll::Ready(Err(problem)),
            }
        }
    }

    /// Begins to write the body, beside the connections: it may take its time.
    fn write(&mut self) -> Result<JoinHandle<Result<VecDeque<Bytes>, Problem>>, Problem> {
        let parts: Option<Vec<Part>> = self.parts.iter_mut().map(|part| part.done.take()).collect();
        let parts = parts.ok_or_else(|| Problem::internal("a response lacks a part"))?;
        let nothing = ApiRequest { model: None, task: Task::Score(Scoring::default()), ignored: Vec::new() };
        let request = std::mem::replace(&mut self.request, nothing);
        let written = Written {
            model: Arc::clone(&self.model),
            request,
            parts,
            stamp: self.stamp.clone(),
            seed: self.seed,
            reshape: self.reshape.take(),
        };
        Ok(spawn_blocking(move || written.write()))
    }

    /// When the engine took it up, as far as is known: where nobody saw it, that was after the last look before its first
    /// token. What was never handed over was never taken up.
    fn taken(&self, first: Instant) -> Instant {
        let seen = self.place.update(|entry| entry.taken).flatten();
        let unseen = || {
            let look = first.checked_sub(self.look_time);
            self.handed.map_or(first, |handed| look.map_or(handed, |look| look.max(handed)))
        };
        seen.unwrap_or_else(unseen).min(first)
    }

    /// Says which model answered, and with which seed.
    pub(crate) fn complete(&self, body: &mut Value) {
        if let Some(body) = body.as_object_mut() {
            complete(&self.model, self.seed, body);
        }
    }
}

fn complete(model: &Model, seed: Option<u64>, body: &mut Map<String, Value>) {
    if let Some(fingerprint) = body.get_mut("system_fingerprint") {
        *fingerprint = model.fingerprint.as_str().into();
    }
    if let Some(seed) = seed {
        let own = body.entry("aerostat").or_insert_with(|| json!({}));
        own["seed"] = seed.into();
    }
}

/// A response that is to be written.
struct Written {
    model: Arc<Model>,
    request: ApiRequest,
    parts: Vec<Part>,
    stamp: Stamp,
    seed: Option<u64>,
    reshape: Option<Reshape>,
}

impl Written {
    fn write(self) -> Result<VecDeque<Bytes>, Problem> {
        let Self { model, request, parts, stamp, seed, reshape } = self;
        if let Some(reshape) = reshape {
            let mut body = model.setting.respond(&request, &parts, &stamp)?;
            if let Some(body) = body.as_object_mut() {
                complete(&model, seed, body);
            }
            return Ok(VecDeque::from([line(&reshape(body)).into()]));
        }
        let mut pieces = Pieces::default();
        let mut parts = parts.into_iter();
        let next = |_| parts.next().ok_or_else(|| Refusal::defect("a response lacks a part"));
        let complete = |body: &mut Map<String, Value>| complete(&model, seed, body);
        let written = model.setting.write_response_with(request, next, (&stamp, complete), &mut pieces);
        match written {
            Ok(()) => Ok(pieces.finish()),
            Err(WriteError::Part(refusal) | WriteError::Refused(refusal)) => Err(refusal.into()),
            Err(WriteError::Io(e)) => Err(Problem::internal(e)),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        let counter = match (self.left, self.finish) {
            (0, Some(Finish::Length)) => &metrics.full,
            (0, _) => &metrics.stopped,
            _ => &metrics.aborted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        metrics.whole.add(now.duration_since(self.arrived).as_secs_f64());
        metrics.prompts.add(self.prompt_tokens as f64);
        // Every request is counted in each of them, so that their counts agree.
        let first = self.first.unwrap_or(now);
        let taken = self.taken(first);
        metrics.queue.add(taken.duration_since(self.arrived).as_secs_f64());
        metrics.prefill.add(first.duration_since(taken).as_secs_f64());
        metrics.inference.add(now.duration_since(taken).as_secs_f64());
        metrics.decode.add(now.duration_since(first).as_secs_f64());
        metrics.answers.add(self.tokens as f64);
        for part in self.parts.iter().filter(|part| part.done.is_none()) {
            self.model.handle.cancel(part.id);
        }
    }
}

/// A part that ended.
fn finished(outcome: Outcome) -> Result<Part, Problem> {
    match outcome {
        Outcome::Completion(answer) if answer.finish_reason == FinishReason::Interrupted => {
            Err(Problem::stopping())
        }
        Outcome::Failed(error) => Err(Problem::from(&error)),
        outcome => Ok(Part::of(outcome)?),
    }
}

/// What the answer to a task is called.
fn id_of(task: &Task, stamp: &Stamp) -> String {
    let prefix = match task {
        Task::Chat(_) => "chatcmpl",
        Task::Completions(_) => "cmpl",
        Task::Embeddings(_) => "embd",
        Task::Score(_) => "score",
    };
    format!("{prefix}-{}", stamp.id)
}

/// The engine's requests for all parts of a task, each with its own grammar.
pub(crate) fn parts(model: &Model, request: &ApiRequest) -> Result<Vec<Request>, Refusal> {
    let shape = request.task.shape();
    let part = |index| {
        let mut part = request.task.part(index)?;
        if let Some(shape) = shape {
            part.constraint = Some(Box::new(model.constraint(shape)?));
        }
        Ok(part)
    };
    (0..request.task.parts()).map(part).collect()
}
