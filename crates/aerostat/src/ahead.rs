//! The requests that wait: a few of those to come, so that the one that fits best can be chosen.

use std::collections::VecDeque;

use crate::Error;
use crate::schedule::{Next, Sequence};

/// Sequences that wait at most.
const WAITING_MAX: usize = 256;
/// Their tokens together at most, unless one alone has more.
const WAITING_TOKENS_MAX: usize = 1 << 17;
/// So many may pass one that waits; then nobody does.
const PASSED_MAX: usize = 256;
/// So many are tried if the first does not fit.
const TRIED_MAX: usize = 16;

/// In order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Ahead<'t> {
    waiting: VecDeque<Sequence<'t>>,
    tokens: usize,
    /// How many have passed the first.
    passed: usize,
    /// There were no more requests when they were last asked for.
    pub(crate) dry: bool,
}

impl<'t> Ahead<'t> {
    /// Takes requests while there is room to wait.
    pub(crate) fn refill(&mut self, next: Next<'_, 't>) -> Result<(), Error> {
        self.dry = false;
        while self.waiting.is_empty() || self.waiting.len() < WAITING_MAX && self.tokens < WAITING_TOKENS_MAX
        {
            let Some(sequence) = next()? else {
                self.dry = true;
                break;
            };
            self.tokens += sequence.tokens.len();
            self.waiting.push_back(sequence);
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sequence<'t>> {
        self.waiting.iter()
    }

    /// The places of those that may enter, best first: in order of arrival, or those first that have most left to
    /// generate.
    pub(crate) fn candidates(&self, longest_first: bool) -> Vec<usize> {
        if self.passed >= PASSED_MAX {
            return vec![0];
        }
        let mut places: Vec<usize> = (0..self.waiting.len()).collect();
        if longest_first {
            places.sort_by_key(|&i| std::cmp::Reverse(self.waiting[i].tokens_left()));
        }
        places.truncate(TRIED_MAX);
        places
    }

    /// The one at a place of [`candidates`](Self::candidates).
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut Sequence<'t>> {
        self.waiting.get_mut(place)
    }

    /// Takes that one out.
    pub(crate) fn take(&mut self, place: usize) -> Option<Sequence<'t>> {
        let sequence = self.waiting.remove(place)?;
        self.tokens -= sequence.tokens.len();
        self.passed = if place == 0 { 0 } else { self.passed + 1 };
        Some(sequence)
    }

    /// Takes all out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Sequence<'t>> {
        self.tokens = 0;
        self.waiting.drain(..)
    }
}
