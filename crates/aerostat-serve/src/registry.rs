//! Which requests are under way, for those who ask and for those who cancel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aerostat::session::RequestId;
use serde_json::{Value, json};

use crate::engine::locked;

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
    /// Its sequences in the session.
    pub(crate) sequences: Vec<RequestId>,
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

    /// All requests as clients see them.
    pub(crate) fn list(&self) -> Vec<Value> {
        let entries = locked(&self.entries);
        let mut position = 0;
        let waits = |entry: &Entry| entry.begun.is_none();
        entries
            .1
            .values()
            .map(|entry| {
                position += usize::from(waits(entry));
                entry.show(waits(entry).then_some(position))
            })
            .collect()
    }

    /// How many have begun, and how many have not.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let entries = locked(&self.entries);
        let running = entries.1.values().filter(|entry| entry.begun.is_some()).count();
        (running, entries.1.len() - running)
    }

    /// The sequences of a request.
    pub(crate) fn sequences(&self, id: &str) -> Option<Vec<RequestId>> {
        let entries = locked(&self.entries);
        entries.1.values().find(|entry| entry.id == id).map(|entry| entry.sequences.clone())
    }
}

impl Entry {
    fn show(&self, position: Option<usize>) -> Value {
        json!({
            "id": self.id,
            "class": self.class,
            "state": if self.begun.is_some() { "decode" } else { "waiting" },
            "position": position,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "tokens_max": self.tokens_max,
            "seconds": self.arrived.elapsed().as_secs_f64(),
        })
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
