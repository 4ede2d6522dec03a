//! Responses under way: each has a log of its events, which any number of clients follow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::alarm::Alarm;
use crate::body::{Broken, Live};
use crate::config::Limits;
use crate::engine::locked;
use crate::problem::Problem;
use crate::text::line;

/// Responses that have ended and whose events are kept for those who ask again.
const ENDED_MAX: usize = 64;
/// Bytes of those events.
const ENDED_BYTES_MAX: usize = 4 << 20;

/// All responses under way, and the last that ended.
#[derive(Default)]
pub(crate) struct Hubs(Mutex<Known>);

#[derive(Default)]
struct Known {
    hubs: HashMap<String, Arc<Hub>>,
    /// Those that ended, in order.
    ended: Vec<String>,
    /// By what their clients may send again.
    attempts: HashMap<[u8; 32], String>,
    /// Why responses are not under way that have not ended.
    paused: HashMap<String, String>,
}

/// A response under way.
#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Somebody who followed has gone.
    pub(crate) left: Notify,
    /// It is not wanted any more.
    pub(crate) cancel: Notify,
}

#[derive(Default)]
struct State {
    log: Vec<Bytes>,
    followers: Vec<UnboundedSender<Bytes>>,
    /// The number of the next event.
    next: u64,
    /// As it was last told.
    object: Value,
    /// Why it failed, if it did.
    problem: Option<Problem>,
    ended: bool,
}

impl Hubs {
    pub(crate) fn enter(&self, id: &str, attempt: Option<[u8; 32]>) -> Arc<Hub> {
        let hub = Arc::new(Hub::default());
        let mut known = locked(&self.0);
        known.hubs.insert(id.to_owned(), Arc::clone(&hub));
        known.attempts.extend(attempt.map(|key| (key, id.to_owned())));
        hub
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Hub>> {
        locked(&self.0).hubs.get(id).cloned()
    }

    /// The one that the same request began, unless it has ended.
    pub(crate) fn of_attempt(&self, key: &[u8; 32]) -> Option<Arc<Hub>> {
        let known = locked(&self.0);
        let hub = known.attempts.get(key).and_then(|id| known.hubs.get(id)).cloned();
        hub.filter(|hub| !hub.has_ended())
    }

    /// It has ended; what happened is kept for a while, or not.
    pub(crate) fn leave(&self, id: &str, keep: bool) {
        let mut known = locked(&self.0);
        known.attempts.retain(|_, of| of != id);
        match keep {
            true => known.ended.push(id.to_owned()),
            false => drop(known.hubs.remove(id)),
        }
        while known.ended.len() > ENDED_MAX || known.ended_bytes() > ENDED_BYTES_MAX {
            let oldest = known.ended.remove(0);
            known.hubs.remove(&oldest);
        }
    }

    /// How many have not ended.
    pub(crate) fn under_way(&self) -> usize {
        locked(&self.0).hubs.values().filter(|hub| !hub.has_ended()).count()
    }

    /// It has not ended, and does not go on in this server.
    pub(crate) fn pause(&self, id: &str, why: impl Into<String>) {
        locked(&self.0).paused.insert(id.to_owned(), why.into());
    }

    /// Why it does not go on.
    pub(crate) fn why_paused(&self, id: &str) -> Option<String> {
        locked(&self.0).paused.get(id).cloned()
    }

    /// It is deleted.
    pub(crate) fn forget(&self, id: &str) {
        let mut known = locked(&self.0);
        known.paused.remove(id);
        known.ended.retain(|other| other != id);
        known.hubs.remove(id);
    }
}

impl Known {
    fn ended_bytes(&self) -> usize {
        self.ended.iter().filter_map(|id| self.hubs.get(id)).map(|hub| hub.bytes()).sum()
    }
}

impl Hub {
    /// Bytes of its events.
    fn bytes(&self) -> usize {
        locked(&self.state).log.iter().map(Bytes::len).sum()
    }

    /// Tells events, and the response as it is after them.
    pub(crate) fn tell(&self, events: Vec<Value>, object: &Value) {
        let mut state = locked(&self.state);
        for event in events {
            let kind = event["type"].as_str().unwrap_or_default();
            let bytes = Bytes::from(format!("event: {kind}\ndata: {}\n\n", line(&event)));
            state.followers.retain(|follower| follower.send(bytes.clone()).is_ok());
            state.log.push(bytes);
            state.next = event["sequence_number"].as_u64().map_or(state.next, |number| number + 1);
        }
        state.object = object.clone();
    }

    /// Nothing more comes.
    pub(crate) fn end(&self, problem: Option<Problem>) {
        let mut state = locked(&self.state);
        (state.ended, state.problem) = (true, problem);
        state.followers.clear();
    }

    /// Nothing more comes here, though the response has not ended: an event tells those who follow it why.
    pub(crate) fn break_off(&self, problem: Problem) {
        let (number, object) = {
            let state = locked(&self.state);
            (state.next, state.object.clone())
        };
        let error = &problem.body()["error"];
        let event = json!({"type": "error", "sequence_number": number, "code": error["code"],
            "message": error["message"], "param": null});
        self.tell(vec![event], &object);
        self.end(Some(problem));
    }

    /// Follows it from an event on.
    pub(crate) fn follow(self: &Arc<Self>, from: usize) -> Follower {
        let (sender, events) = unbounded_channel();
        let mut state = locked(&self.state);
        for event in state.log.iter().skip(from) {
            // The other end is right here.
            let _ = sender.send(event.clone());
        }
        if !state.ended {
            state.followers.push(sender);
        }
        drop(state);
        Follower { hub: Arc::clone(self), events }
    }

    pub(crate) fn object(&self) -> Value {
        locked(&self.state).object.clone()
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        locked(&self.state).problem.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        locked(&self.state).ended
    }

    /// Nobody follows it.
    pub(crate) fn is_alone(&self) -> bool {
        let mut state = locked(&self.state);
        state.followers.retain(|follower| !follower.is_closed());
        state.followers.is_empty()
    }
}

/// Somebody who follows a response.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    events: UnboundedReceiver<Bytes>,
}

impl Follower {
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The next event; `None` at the end.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.events.poll_recv(context)
    }

    /// Waits for the end.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while std::task::ready!(self.events.poll_recv(context)).is_some() {}
        Poll::Ready(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.events.close();
        self.hub.left.notify_one();
    }
}

/// The events of a response, kept alive by comments.
pub(crate) struct Events {
    follower: Follower,
    sign: Alarm,
}

impl Events {
    pub(crate) fn new(follower: Follower, limits: &Limits) -> Self {
        Self { follower, sign: Alarm::new(limits.sign_time) }
    }
}

impl Live for Events {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Poll::Ready(event) = self.follower.poll(context) {
            self.sign.reset();
            return Poll::Ready(event.map(Ok));
        }
        match self.sign.poll(context) {
            true => Poll::Ready(Some(Ok(Bytes::from_static(b":\n")))),
            false => Poll::Pending,
        }
    }
}

/// A response that comes whole and late: line ends, then the object. What fails breaks the connection.
pub(crate) struct LateObject {
    follower: Follower,
    sign: Alarm,
    state: (bool, bool),
}

impl LateObject {
    pub(crate) fn new(follower: Follower, limits: &Limits) -> Self {
        Self { follower, sign: Alarm::new(limits.sign_time), state: (false, false) }
    }
}

impl Live for LateObject {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let (begun, ended) = self.state;
        if ended {
            return Poll::Ready(None);
        }
        if self.follower.poll_end(context).is_ready() {
            self.state.1 = true;
            let hub = self.follower.hub();
            return Poll::Ready(Some(match hub.problem() {
                Some(_) => Err(Broken),
                None => Ok(line(&hub.object()).into()),
            }));
        }
        if begun && !self.sign.poll(context) {
            return Poll::Pending;
        }
        self.state.0 = true;
        Poll::Ready(Some(Ok(Bytes::from_static(b"\n"))))
    }
}
