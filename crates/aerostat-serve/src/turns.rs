//! Whose turn it is: single requests are handed to the engine a bounded number at a time, those of each key in turn, so
//! that nobody who asks a thousand things at once keeps the others waiting for all of them. A request has its turn when there
//! is memory for all that it may be answered with, too.

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
    /// Bytes that answers may take together.
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    used: Share,
    /// Those that wait, by key, in order of arrival.
    waiting: BTreeMap<usize, VecDeque<(Share, Sender<Turn>)>>,
    /// The key that had the last turn.
    last: usize,
}

/// Of what is shared: sequences in the engine, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) sequences: usize,
    pub(crate) bytes: usize,
}

/// A request's turn, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    share: Share,
}

impl Turns {
    pub(crate) fn new(max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), max: max.max(1), bytes_max })
    }

    /// What an answer may take; more never has its turn.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Waits for the turn of a request.
    pub(crate) fn ask(self: &Arc<Self>, key: usize, share: Share) -> Receiver<Turn> {
        let (sender, receiver) = channel();
        let share =
            Share { sequences: share.sequences.min(self.max), bytes: share.bytes.min(self.bytes_max) };
        locked(&self.state).waiting.entry(key).or_default().push_back((share, sender));
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
            let Some((share, sender)) = state.next(self.max, self.bytes_max) else { return };
            state.used.sequences += share.sequences;
            state.used.bytes += share.bytes;
            drop(state);
            // Who has gone gives it back by this very drop.
            drop(sender.send(Turn { turns: Arc::clone(self), share }));
        }
    }
}

impl State {
    /// The first of the key that comes after the last one, if there is room for it.
    /// It calls itself once for each key whose clients have all gone.
    fn next(&mut self, max: usize, bytes_max: usize) -> Option<(Share, Sender<Turn>)> {
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
            return self.next(max, bytes_max);
        }
        let Share { sequences, bytes } = self.used;
        let fits = |share: &Share| sequences + share.sequences <= max && bytes + share.bytes <= bytes_max;
        let fits = queue.front().is_some_and(|(share, _)| fits(share));
        let first = if fits { queue.pop_front() } else { None };
        if queue.is_empty() {
            self.waiting.remove(&key);
        }
        self.last = if first.is_some() { key } else { self.last };
        first
    }
}

impl Turn {
    /// What it has of the engine, and what it has of memory, each to be given back by itself: an answer that has ended may wait
    /// for its reader.
    pub(crate) fn apart(mut self) -> (Self, Self) {
        let bytes = std::mem::take(&mut self.share.bytes);
        let room = Self { turns: Arc::clone(&self.turns), share: Share { sequences: 0, bytes } };
        (self, room)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = locked(&self.turns.state);
        state.used.sequences -= self.share.sequences;
        state.used.bytes -= self.share.bytes;
        drop(state);
        self.turns.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_turns_and_nobody_who_left_holds_one() {
        let one = Share { sequences: 1, bytes: 1 };
        let turns = Turns::new(2, 100);
        let mut held: Vec<_> = (0..2).map(|_| turns.ask(0, one).try_recv().unwrap()).collect();
        let mut many: Vec<_> = (0..5).map(|_| turns.ask(0, one)).collect();
        let mut other = turns.ask(7, one);
        let gone = turns.ask(3, one);
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
        let mut heavy = turns.ask(9, Share { sequences: 1_000_000, bytes: 1_000_000 });
        let rest: Vec<_> = many.iter_mut().skip(1).filter_map(|one| one.try_recv().ok()).collect();
        assert_eq!(rest.len(), 2);
        drop(rest);
        drop(heavy.try_recv().unwrap());
        drop(many);
        assert_eq!((turns.waiting(), locked(&turns.state).used), (0, Share::default()));
    }

    /// Readers who were slow to take their answers once kept others from the engine, and nothing bounded what they kept.
    #[test]
    fn an_answer_that_has_ended_keeps_its_memory_and_not_its_place() {
        let turns = Turns::new(1, 100);
        let ask = |bytes| turns.ask(0, Share { sequences: 1, bytes });
        let (place, room) = ask(60).try_recv().unwrap().apart();
        let (mut large, mut small) = (ask(50), ask(30));
        drop(place);
        assert!(large.try_recv().is_err() && small.try_recv().is_err(), "those behind wait, too");
        drop(room);
        let large = large.try_recv().unwrap();
        assert!(small.try_recv().is_err());
        drop(large);
        assert!(small.try_recv().is_ok());
    }
}
