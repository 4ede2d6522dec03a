//! Which requests are under way, for those who ask and for those who cancel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::engine::locked;
use aerostat::session::{Event, RequestId};
use tokio::sync::mpsc::UnboundedSender;

/// Requests that are not answered yet, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Mutex<(u64, BTreeMap<u64, Entry>)>,
}

/// A request under way.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As its answer names it.
    pub(crate) id: String,
    /// `interactive` or `batch`.
    pub(crate) class: &'static str,
    pub(crate) prompt_tokens: usize,
    /// Tokens of its answers so far, and at most.
    pub(crate) tokens: usize,
    pub(crate) tokens_max: usize,
    pub(crate) arrived: Instant,
    /// When its first token came.
    pub(crate) begun: Option<Instant>,
    /// When the engine took it up, as far as anybody looked.
    pub(crate) taken: Option<Instant>,
    /// Its sequences in the session.
    pub(crate) sequences: Vec<RequestId>,
    /// Who hears that it is cancelled, while it waits for its turn.
    pub(crate) waits: Option<UnboundedSender<(usize, Event)>>,
}

/// A request's place; it is left by dropping this.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    number: u64,
}

impl Registry {
    pub(crate) fn enter(self: &Arc<Self>, entry: Entry) -> Place {
        let mut entries = locked(&self.entries);
        entries.0 += 1;
        let number = entries.0;
        entries.1.insert(number, entry);
        Place { registry: Arc::clone(self), number }
    }

    /// All requests, in order of arrival.
    pub(crate) fn list(&self) -> Vec<Entry> {
        locked(&self.entries).1.values().cloned().collect()
    }

    /// Notes which requests the engine has taken up: of those, `taken` says so.
    pub(crate) fn look(&self, taken: impl Fn(RequestId) -> bool) {
        for entry in locked(&self.entries).1.values_mut().filter(|entry| entry.taken.is_none()) {
            if entry.sequences.iter().any(|id| taken(*id)) {
                entry.taken = Some(Instant::now());
            }
        }
    }

    /// How many have begun, and how many have not.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let entries = locked(&self.entries);
        let running = entries.1.values().filter(|entry| entry.begun.is_some()).count();
        (running, entries.1.len() - running)
    }

    pub(crate) fn is_empty(&self) -> bool {
        locked(&self.entries).1.is_empty()
    }

    /// A request.
    pub(crate) fn find(&self, id: &str) -> Option<Entry> {
        locked(&self.entries).1.values().find(|entry| entry.id == id).cloned()
    }
}

impl Place {
    /// Changes what is known of the request.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        locked(&self.registry.entries).1.get_mut(&self.number).map(change)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.registry.entries).1.remove(&self.number);
    }
}
