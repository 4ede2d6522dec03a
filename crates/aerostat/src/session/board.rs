//! What is under way in a session, and what waits: the [`Work`] that its engine is given.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::table::Table;
use super::{Command, Ended, Event, Listener, Priority, RequestId};
use crate::model_files::ModelFiles;
use crate::need::{Need, POSITIONS_MAX};
use crate::request::{Completion, FinishReason, Gained, Outcome, Request, UnderWay, Work};
use crate::run;
use crate::{Error, ErrorKind};

/// Ids of sources' requests begin here, so that they never meet those of single requests.
const SOURCE_IDS: u64 = 1 << 63;

/// Who listens to single requests, by id; the observer of a run gives them their text.
pub(super) type Listeners = Arc<Mutex<HashMap<u64, Listener>>>;

/// A request that waits.
struct Waiting {
    id: RequestId,
    request: Box<Request>,
    priority: Priority,
}

/// A source of many requests.
struct Source {
    work: Box<dyn Work + Send>,
    need: Need,
    priority: Priority,
    ended: Sender<Ended>,
    /// Requests it has under way.
    active: usize,
    /// It gave none when it was last asked.
    dry: bool,
    failed: Option<Error>,
}

/// Requests by where they stand.
pub(super) struct Board {
    inbox: Receiver<Command>,
    files: Arc<ModelFiles>,
    /// There is a tokenizer.
    tokenizer: bool,
    /// By priority, then by arrival.
    waiting: VecDeque<Waiting>,
    pub(super) listeners: Listeners,
    /// The single requests that have not ended.
    table: Arc<Table>,
    /// The source of each of its requests under way, and its own id of it.
    owners: HashMap<u64, (usize, u64)>,
    sources: Vec<Option<Source>>,
    cancelled: Vec<u64>,
    next_source_id: u64,
    /// Positions of the KV cache that is open; 0: none is.
    pub(super) tokens_max: usize,
    /// What is to be opened for: it grew past what is open if `stale`.
    pub(super) need: Need,
    pub(super) stale: bool,
    pub(super) closing: bool,
}

impl Board {
    /// For requests to a model, with a tokenizer or without.
    pub(super) fn new(
        inbox: Receiver<Command>,
        need: Need,
        (files, tokenizer): (Arc<ModelFiles>, bool),
        table: Arc<Table>,
    ) -> Self {
        Self {
            inbox,
            files,
            tokenizer,
            waiting: VecDeque::new(),
            listeners: Listeners::default(),
            table,
            owners: HashMap::new(),
            sources: Vec::new(),
            cancelled: Vec::new(),
            next_source_id: SOURCE_IDS,
            tokens_max: 0,
            need,
            stale: true,
            closing: false,
        }
    }

    /// Nothing is there to be run.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.sources.iter().all(Option::is_none)
    }

    /// Single requests that have not ended.
    pub(super) fn requests(&self) -> usize {
        self.listeners().len()
    }

    /// All that is there are sources that have nothing now and may have something later.
    pub(super) fn is_dry(&self) -> bool {
        self.waiting.is_empty()
            && self.sources.iter().flatten().all(|source| source.dry && source.active == 0)
    }

    /// Waits for a command, or where sources may have something, a moment.
    pub(super) fn wait(&mut self) {
        const MOMENT: Duration = Duration::from_millis(20);
        let command = match self.is_idle() {
            true => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => self.inbox.recv_timeout(MOMENT),
        };
        match command {
            Ok(command) => self.take(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.closing = true,
        }
    }

    /// Takes what has come in.
    pub(super) fn drain(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit { id, mut events, .. } if self.closing => {
                self.table.leave(id.0);
                events(Event::Finished(Outcome::Failed(super::closed())));
            }
            Command::Submit { id, request, priority, mut events } => {
                // What no opening can serve is refused before any is tried.
                let request = Box::new(Request { id: id.0, ..*request });
                if let Err(error) = run::check(&self.files.spec, usize::MAX, &request, self.tokenizer) {
                    self.table.leave(id.0);
                    return events(Event::Finished(Outcome::Failed(error)));
                }
                self.listeners().insert(id.0, events);
                let place = self.waiting.partition_point(|waiting| waiting.priority <= priority);
                self.waiting.insert(place, Waiting { id, request, priority });
            }
            Command::Attach { source, ended, .. } if self.closing => {
                give_back(source, Err(super::closed()), &ended)
            }
            Command::Attach { source: work, need, priority, ended } => {
                self.need.merge(&need);
                self.stale |= need.positions_max() > self.tokens_max;
                let source = Source { work, need, priority, ended, active: 0, dry: false, failed: None };
                self.sources.push(Some(source));
            }
            Command::Cancel(id) => self.cancel(id.0),
            Command::CancelAll => {
                let ids: Vec<u64> = self.listeners().keys().chain(self.owners.keys()).copied().collect();
                ids.into_iter().for_each(|id| self.cancel(id));
                for source in self.sources.iter_mut().flatten() {
                    source.failed.get_or_insert_with(Error::interrupted);
                }
            }
            Command::Close => self.closing = true,
        }
    }

    fn cancel(&mut self, id: u64) {
        let known = self.listeners().contains_key(&id) || self.owners.contains_key(&id);
        match self.waiting.iter().position(|waiting| waiting.id.0 == id) {
            Some(place) => {
                self.waiting.remove(place);
                self.end(id, Outcome::Failed(Error::new(ErrorKind::Interrupted, "cancelled")));
            }
            None => self.cancelled.extend(known.then_some(id)),
        }
    }

    /// Ends all that is there with an error.
    pub(super) fn fail_all(&mut self, error: &Error) {
        self.waiting.clear();
        let again = || Error::new(error.kind(), error.to_string());
        let listeners = std::mem::take(&mut *self.listeners());
        for (id, mut events) in listeners {
            self.table.leave(id);
            events(Event::Finished(Outcome::Failed(again())));
        }
        self.owners.clear();
        for source in self.sources.iter_mut().filter_map(Option::take) {
            give_back(source.work, Err(source.failed.unwrap_or_else(again)), &source.ended);
        }
        self.cancelled.clear();
    }

    /// Ends what does not fit into what is open, which nothing larger can take the place of.
    pub(super) fn fail_unfit(&mut self, error: &Error) {
        let tokens_max = self.tokens_max;
        let unfit = |waiting: &&Waiting| waiting.request.positions() > tokens_max;
        let ids: Vec<u64> = self.waiting.iter().filter(unfit).map(|waiting| waiting.id.0).collect();
        self.waiting.retain(|waiting| waiting.request.positions() <= tokens_max);
        let again = || Error::new(error.kind(), error.to_string());
        ids.into_iter().for_each(|id| self.end(id, Outcome::Failed(again())));
        for source in self.sources.iter_mut().flatten().filter(|s| s.need.positions_max() > tokens_max) {
            source.failed.get_or_insert_with(again);
        }
        self.end_sources();
    }

    /// A request has ended.
    fn end(&mut self, id: u64, outcome: Outcome) {
        let listener = self.listeners().remove(&id);
        if let Some(mut events) = listener {
            self.table.leave(id);
            return events(Event::Finished(outcome));
        }
        let Some((index, own)) = self.owners.remove(&id) else { return };
        if let Some(Some(source)) = self.sources.get_mut(index) {
            source.active -= 1;
        }
        let outcome = match outcome {
            Outcome::Completion(c) => Outcome::Completion(Completion { index: own as usize, ..c }),
            other => other,
        };
        self.with_source(index, |source| {
            match outcome {
                // A source that is cancelled goes on where it was when it is run again.
                Outcome::Completion(so_far) if so_far.finish_reason == FinishReason::Interrupted => {
                    source.work.unfinished(own, so_far)
                }
                Outcome::Failed(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
                outcome => source.work.finished(own, outcome),
            }
        });
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<u64, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of a source's own ends that source alone: it is not called again, and its requests leave.
    fn with_source(&mut self, index: usize, call: impl FnOnce(&mut Source) -> Result<(), Error>) {
        if let Some(Some(source)) = self.sources.get_mut(index)
            && source.failed.is_none()
            && let Err(error) = call(source)
        {
            self.fail_source(index, error);
        }
    }

    fn fail_source(&mut self, index: usize, error: Error) {
        if let Some(Some(source)) = self.sources.get_mut(index) {
            source.failed = Some(error);
            let own = self.owners.iter().filter(|(_, (of, _))| *of == index);
            self.cancelled.extend(own.map(|(id, _)| *id));
        }
    }

    /// Gives back the sources that have nothing left.
    pub(super) fn end_sources(&mut self) {
        for place in &mut self.sources {
            let over =
                |s: &mut Source| s.active == 0 && (s.failed.is_some() || s.dry && !s.work.more_may_come());
            if let Some(source) = place.take_if(over) {
                let Source { work, failed, ended, .. } = source;
                give_back(work, failed.map_or(Ok(()), Err), &ended);
            }
        }
    }

    /// The first of those that wait that are at least this urgent, if it fits what is open.
    fn next_waiting(&mut self, up_to: Priority) -> Option<Request> {
        let first = self.waiting.front().filter(|first| first.priority <= up_to)?;
        let positions = first.request.positions();
        // One that no model has positions for is refused as it is.
        if (self.tokens_max + 1..=POSITIONS_MAX).contains(&positions) {
            // It waits until the model is opened for it; those behind it wait too, or it would wait forever.
            self.need.add(&first.request);
            self.stale = true;
            return None;
        }
        let Waiting { id, request, .. } = self.waiting.pop_front()?;
        Some(Request { id: id.0, ..*request })
    }

    /// The next request of a source that has some.
    fn next_of_sources(&mut self) -> Option<Request> {
        let mut order: Vec<usize> = (0..self.sources.len()).collect();
        order.sort_by_key(|i| self.sources[*i].as_ref().map_or(Priority::MAX, |source| source.priority));
        for index in order {
            let Some(Some(source)) =
                self.sources.get_mut(index).filter(|s| s.as_ref().is_some_and(|s| s.failed.is_none()))
            else {
                continue;
            };
            match source.work.next() {
                Ok(Some(request)) => {
                    source.dry = false;
                    source.active += 1;
                    let id = self.next_source_id;
                    self.next_source_id += 1;
                    self.owners.insert(id, (index, request.id));
                    return Some(Request { id, one_of_many: true, ..request });
                }
                Ok(None) => source.dry = true,
                Err(error) => self.fail_source(index, error),
            }
        }
        None
    }
}

impl Work for Board {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        self.drain();
        if self.stale {
            return Ok(None);
        }
        let source = self.sources.iter().flatten().map(|source| source.priority).min();
        // A single request goes before sources of its priority.
        Ok(match self.next_waiting(source.unwrap_or(Priority::MAX)) {
            Some(request) => Some(request),
            None if self.stale => None,
            None => self.next_of_sources().or_else(|| self.next_waiting(Priority::MAX)),
        })
    }

    fn next_urgent(&mut self) -> Result<Option<Request>, Error> {
        self.drain();
        Ok(if self.stale { None } else { self.next_waiting(-1) })
    }

    fn cancelled(&mut self) -> Result<Vec<u64>, Error> {
        self.drain();
        Ok(std::mem::take(&mut self.cancelled))
    }

    fn more_may_come(&self) -> bool {
        !self.closing
    }

    fn sweeping(&mut self, under_way: &[UnderWay]) -> Result<(), Error> {
        self.table.under_way(under_way);
        Ok(())
    }

    fn swept(&mut self, gained: &[Gained<'_>]) -> Result<(), Error> {
        let mut of_sources: HashMap<usize, Vec<Gained<'_>>> = HashMap::new();
        for gained in gained {
            if let Some(events) = self.listeners().get_mut(&gained.id) {
                let (token_ids, logprobs) = (gained.tokens.to_vec(), gained.logprobs.to_vec());
                self.table.gained(gained.id, token_ids.len());
                events(Event::Tokens { token_ids, logprobs });
            } else if let Some((source, own)) = self.owners.get(&gained.id) {
                of_sources.entry(*source).or_default().push(Gained { id: *own, ..*gained });
            }
        }
        for (source, gained) in of_sources {
            self.with_source(source, |source| source.work.swept(&gained));
        }
        Ok(())
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        self.end(id, outcome);
        Ok(())
    }

    fn sweep_over(&mut self) -> Result<(), Error> {
        for index in 0..self.sources.len() {
            self.with_source(index, |source| source.work.sweep_over());
        }
        self.end_sources();
        Ok(())
    }

    fn unfinished(&mut self, id: u64, so_far: Completion) -> Result<(), Error> {
        self.end(id, Outcome::Completion(so_far));
        Ok(())
    }

    fn tokens_left(&self) -> u64 {
        self.sources.iter().flatten().map(|source| source.work.tokens_left()).sum()
    }
}

fn give_back(work: Box<dyn Work + Send>, result: Result<(), Error>, to: &Sender<Ended>) {
    let _ = to.send(Ended { work, result });
}
