//! A request in the engine: its parts are handed over, what comes back is put together.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use aerostat::session::{Event, Priority, RequestId};
use aerostat::{FinishReason, Outcome, Request};
use aerostat_openai::{ApiRequest, Finish, Part, PartResult, Refusal, Stamp, Task, Token};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot::Receiver;

use crate::engine::Model;
use crate::held::Held;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::registry::{Entry, Place, Registry};
use crate::turns::{Turn, Turns};

/// Interactive requests enter before all that wait.
pub(crate) const INTERACTIVE: Priority = -1;
/// Requests that say that they can wait go before batches only.
pub(crate) const FLEXIBLE: Priority = 5;

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
    turn: Option<Turn>,
    place: Place,
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
    /// Hands all parts over.
    pub(crate) fn start(
        model: &Arc<Model>,
        (registry, metrics, turns): (&Arc<Registry>, &Arc<Metrics>, &Arc<Turns>),
        prepared: Prepared,
    ) -> Result<Self, Problem> {
        let Prepared { request, parts, seed, stamp, name, priority, key, held } = prepared;
        let (sender, events) = unbounded_channel();
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
            turn: None,
            place,
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
        run.metrics.prompt_tokens.fetch_add(prompt_tokens as u64, Ordering::Relaxed);
        // Those that can wait are behind all others in the session, and take nobody's turn.
        if priority >= 0 {
            run.hand_over(parts, priority)?;
            return Ok(run);
        }
        let mut turn = turns.ask(key, left);
        match turn.try_recv() {
            Ok(turn) => {
                run.turn = Some(turn);
                run.hand_over(parts, priority)?;
            }
            Err(_) => {
                run.place.update(|entry| entry.waits = run.sender.clone());
                run.waiting = Some((parts, turn, priority));
            }
        }
        Ok(run)
    }

    /// Gives the engine all parts.
    fn hand_over(&mut self, parts: Vec<Request>, priority: Priority) -> Result<(), Problem> {
        let Some(all) = self.sender.take() else { return Ok(()) };
        for (index, part) in parts.into_iter().enumerate() {
            let sender = all.clone();
            // Nobody listens any more: then nobody wants to know.
            let listener = Box::new(move |event| drop(sender.send((index, event))));
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
            self.turn = turn.ok();
            if let Some((parts, _, priority)) = self.waiting.take()
                && let Err(problem) = self.hand_over(parts, priority)
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
        metrics.generated_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        match self.last.replace(now) {
            None => metrics.first_token.add(now.duration_since(self.arrived).as_secs_f64()),
            Some(last) => {
                metrics.between_tokens.add(now.duration_since(last).as_secs_f64() / tokens.max(1) as f64)
            }
        }
        self.first.get_or_insert(now);
    }

    /// The body of the response, once all parts have ended.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Value, Problem>> {
        loop {
            match std::task::ready!(self.poll_change(context)) {
                Ok(Some(_)) => {}
                Ok(None) => return Poll::Ready(self.body()),
                Err(problem) => return Poll::Ready(Err(problem)),
            }
        }
    }

    fn body(&mut self) -> Result<Value, Problem> {
        let parts: Option<Vec<Part>> = self.parts.iter_mut().map(|part| part.done.take()).collect();
        let parts = parts.ok_or_else(|| Problem::internal("a response lacks a part"))?;
        let mut body = self.model.setting.respond(&self.request, &parts, &self.stamp)?;
        self.complete(&mut body);
        Ok(match self.reshape.take() {
            Some(reshape) => reshape(body),
            None => body,
        })
    }

    /// Says which model answered, and with which seed.
    pub(crate) fn complete(&self, body: &mut Value) {
        let Some(body) = body.as_object_mut() else { return };
        if let Some(fingerprint) = body.get_mut("system_fingerprint") {
            *fingerprint = self.model.fingerprint.as_str().into();
        }
        if let Some(seed) = self.seed {
            let own = body.entry("aerostat").or_insert_with(|| json!({}));
            own["seed"] = seed.into();
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
        if let Some(taken) = self.place.update(|entry| entry.taken).flatten() {
            metrics.queue.add(taken.duration_since(self.arrived).as_secs_f64());
            metrics.inference.add(now.duration_since(taken).as_secs_f64());
            if let Some(first) = self.first {
                metrics.prefill.add(first.saturating_duration_since(taken).as_secs_f64());
            }
        }
        if let Some(first) = self.first {
            metrics.decode.add(now.duration_since(first).as_secs_f64());
            metrics.answers.add(self.tokens as f64);
        }
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
