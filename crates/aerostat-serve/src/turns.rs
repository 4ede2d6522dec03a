//! Whose turn it is: single requests are handed to the engine a bounded number at a time, those of each key in turn, so
//! that nobody who asks a thousand things at once keeps the others waiting for all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::engine::locked;

/// Hands out turns.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    /// Sequences that are handed over at once.
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// Those that wait, by key, in order of arrival.
    waiting: BTreeMap<usize, VecDeque<(usize, Sender<Turn>)>>,
    /// The key that had the last turn.
    last: usize,
}

/// A request's turn, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    weight: usize,
}

impl Turns {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), max: max.max(1) })
    }

    /// Waits for the turn of a request of so many sequences.
    pub(crate) fn ask(self: &Arc<Self>, key: usize, weight: usize) -> Receiver<Turn> {
        let (sender, receiver) = channel();
        let weight = weight.clamp(1, self.max);
        locked(&self.state).waiting.entry(key).or_default().push_back((weight, sender));
        self.give();
        receiver
    }

    /// Requests that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        locked(&self.state).waiting.values().map(VecDeque::len).sum()
    }

    /// Gives turns while there are some.
    fn give(self: &Arc<Self>) {
        loop {
            let mut state = locked(&self.state);
            let Some((weight, sender)) = state.next(self.max) else { return };
            state.used += weight;
            drop(state);
            // Who has gone gives it back by this very drop.
            drop(sender.send(Turn { turns: Arc::clone(self), weight }));
        }
    }
}

impl State {
    /// The first of the key that comes after the last one, if there is room for it.
    /// It calls itself once for each key whose clients have all gone.
    fn next(&mut self, max: usize) -> Option<(usize, Sender<Turn>)> {
        let key = self
            .waiting
            .range(self.last + 1..)
            .chain(self.waiting.range(..=self.last))
            .next()
            .map(|(k, _)| *k)?;
        let queue = self.waiting.get_mut(&key)?;
        // Who has gone takes no turn.
        while queue.front().is_some_and(|(_, sender)| sender.is_closed()) {
            queue.pop_front();
        }
        if queue.is_empty() {
            self.waiting.remove(&key);
            return self.next(max);
        }
        let fits = queue.front().is_some_and(|(weight, _)| self.used + weight <= max);
        let first = if fits { queue.pop_front() } else { None };
        if queue.is_empty() {
            self.waiting.remove(&key);
        }
        self.last = if first.is_some() { key } else { self.last };
        first
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = locked(&self.turns.state);
        state.used -= self.weight;
        drop(state);
        self.turns.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_turns_and_nobody_who_left_holds_one() {
        let turns = Turns::new(2);
        let mut held: Vec<_> = (0..2).map(|_| turns.ask(0, 1).try_recv().unwrap()).collect();
        let mut many: Vec<_> = (0..5).map(|_| turns.ask(0, 1)).collect();
        let mut other = turns.ask(7, 1);
        let gone = turns.ask(3, 1);
        assert_eq!(turns.waiting(), 7);
        assert!(other.try_recv().is_err() && many[0].try_recv().is_err());
        drop(gone);
        drop(held.pop());
        // The one that had gone came first and gave its turn on.
        let theirs = other.try_recv().unwrap();
        assert!(many[0].try_recv().is_err());
        drop(theirs);
        let first = many[0].try_recv().unwrap();
        assert!(many[1].try_recv().is_err());
        drop((first, held));
        // One that is heavier than all there is takes all there is.
        let mut heavy = turns.ask(9, 1_000_000);
        let rest: Vec<_> = many.iter_mut().skip(1).filter_map(|one| one.try_recv().ok()).collect();
        assert_eq!(rest.len(), 2);
        drop(rest);
        drop(heavy.try_recv().unwrap());
        drop(many);
        assert_eq!((turns.waiting(), locked(&turns.state).used), (0, 0));
    }
}
