//! The requests that wait: a few of those to come, so that the one that fits best can be chosen.

use std::collections::VecDeque;

use crate::Error;
use crate::sequence::{Ask, Next, Sequence};

/// Sequences that wait at most.
const WAITING_MAX: usize = 256;
/// What they weigh together at most, in tokens, unless one alone weighs more.
const WAITING_TOKENS_MAX: usize = 1 << 17;
/// What a grammar weighs: it may have megabytes.
const GRAMMAR_TOKENS: usize = WAITING_TOKENS_MAX / 16;
/// So many may pass one that waits; then nobody does.
const PASSED_MAX: usize = 256;
/// So many are tried if the first does not fit.
const TRIED_MAX: usize = 16;

/// In order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Ahead<'t> {
    waiting: VecDeque<Sequence<'t>>,
    /// What they weigh.
    tokens: usize,
    /// How many of them, from the first, wait for nobody else.
    urgent: usize,
    /// How many have passed the first.
    passed: usize,
    /// There were no more requests when they were last asked for.
    pub(crate) dry: bool,
}

impl<'t> Ahead<'t> {
    /// Takes requests while there is room to wait.
    pub(crate) fn refill(&mut self, next: Next<'_, 't>) -> Result<(), Error> {
        self.dry = false;
        while let Some(sequence) = next(Ask::Urgent)? {
            self.tokens += weight(&sequence);
            self.waiting.insert(self.urgent, sequence);
            self.urgent += 1;
        }
        while self.waiting.is_empty() || self.waiting.len() < WAITING_MAX && self.tokens < WAITING_TOKENS_MAX
        {
            let Some(sequence) = next(Ask::Any)? else {
                self.dry = true;
                break;
            };
            self.tokens += weight(&sequence);
            self.waiting.push_back(sequence);
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether some wait that wait for nobody else.
    pub(crate) fn has_urgent(&self) -> bool {
        self.urgent > 0
    }

    /// Those.
    pub(crate) fn urgent(&self) -> impl Iterator<Item = &Sequence<'t>> {
        self.waiting.range(..self.urgent)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sequence<'t>> {
        self.waiting.iter()
    }

    /// The places of those that may enter, best first: in order of arrival, or those first that have most left to
    /// generate.
    pub(crate) fn candidates(&self, longest_first: bool) -> Vec<usize> {
        if self.passed >= PASSED_MAX {
            return (0..=self.urgent.min(TRIED_MAX - 1)).collect();
        }
        let mut places: Vec<usize> = (0..self.waiting.len()).collect();
        if longest_first && self.urgent == 0 {
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
        self.tokens -= weight(&sequence);
        // Urgent ones wait for nobody, and nobody who waits is passed by them for that.
        match place < self.urgent {
            true => self.urgent -= 1,
            false => self.passed = if place == self.urgent { 0 } else { self.passed + 1 },
        }
        Some(sequence)
    }

    /// Takes out the one of this id.
    pub(crate) fn cancel(&mut self, id: u64) -> Option<Sequence<'t>> {
        let place = self.waiting.iter().position(|sequence| sequence.id == id)?;
        let passed = self.passed;
        let sequence = self.take(place);
        self.passed = if place == 0 { 0 } else { passed };
        sequence
    }

    /// Takes all out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Sequence<'t>> {
        (self.tokens, self.urgent) = (0, 0);
        self.waiting.drain(..)
    }
}

fn weight(sequence: &Sequence<'_>) -> usize {
    sequence.tokens.len() + if sequence.constrained() { GRAMMAR_TOKENS } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use crate::request::{Request, Want};

    fn sequence(id: u64, tokens: usize, max_new_tokens: usize) -> Sequence<'static> {
        let token_ids = vec![1; tokens];
        let request = Request { id, token_ids, max_new_tokens, want: Want::Generate, ..Request::default() };
        Sequence::new(request, None, &mut Silent).unwrap()
    }

    #[test]
    fn a_few_wait_in_order_and_nobody_is_passed_for_ever() {
        let mut id = 0;
        let mut next = |ask| {
            if ask == Ask::Urgent {
                return Ok(None);
            }
            id += 1;
            Ok(Some(sequence(id, 1, id as usize % 7 + 1)))
        };
        let mut ahead = Ahead::default();
        ahead.refill(&mut next).unwrap();
        assert_eq!((ahead.iter().count(), ahead.dry), (WAITING_MAX, false));
        assert_eq!(ahead.candidates(false), (0..TRIED_MAX).collect::<Vec<_>>());
        // The longest first; of equals the first.
        assert_eq!(ahead.candidates(true)[..2], [5, 12]);
        for _ in 0..PASSED_MAX {
            assert_ne!(ahead.take(1).unwrap().id, 1);
            ahead.refill(&mut next).unwrap();
        }
        assert_eq!(ahead.candidates(true), [0]);
        assert_eq!(ahead.take(0).unwrap().id, 1);
        assert!(ahead.candidates(false).len() > 1);
    }

    #[test]
    fn long_prompts_wait_in_small_numbers_and_the_end_is_known() {
        let mut coming = vec![sequence(2, 5, 1), sequence(1, WAITING_TOKENS_MAX, 1)];
        let mut ahead = Ahead::default();
        ahead.refill(&mut |ask| Ok(if ask == Ask::Any { coming.pop() } else { None })).unwrap();
        assert_eq!((ahead.iter().count(), ahead.dry), (1, false));
        assert_eq!(ahead.take(0).unwrap().id, 1);
        ahead.refill(&mut |ask| Ok(if ask == Ask::Any { coming.pop() } else { None })).unwrap();
        assert_eq!((ahead.drain().count(), ahead.dry, ahead.is_empty()), (1, true, true));
    }
}
