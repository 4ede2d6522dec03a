//! Which pages of the KV cache belong to which sequence, and which of them hold the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aerostat_arch::{ModelSpec, Scaling};

/// The pages of a KV cache. A page is free, held by one or more sequences, or idle: nobody holds it, but what it holds
/// is known and may be wanted again; idle pages are given away when free ones run out, longest idle first.
#[derive(Debug)]
pub struct Pages {
    page_tokens: usize,
    free: Vec<u32>,
    /// For each page, the sequences that hold it.
    holders: Vec<u32>,
    /// For each published page, what it holds.
    keys: Vec<Option<Arc<Key>>>,
    published: HashMap<Arc<Key>, u32>,
    /// By the time of their release. A sequence releases its last page first, so that no page is given away before
    /// those that follow it.
    idle: BTreeMap<u64, u32>,
    idle_since: Vec<u64>,
    now: u64,
    /// Recurrent states that no sequence has; `None`: sequences have none.
    states: Option<Vec<u32>>,
}

/// What comes before a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Before {
    /// Nothing; the number tells sequences apart that are rotated differently ([`Rotations::class`]).
    Start(u64),
    /// A published page, with all that comes before it.
    Page(u32),
}

/// What a published page holds: keys and values of these tokens, after what comes before them. Pages are compared token
/// by token, not by their hashes, so that no two texts are ever taken for one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    before: Before,
    tokens: Box<[u32]>,
}

impl Pages {
    /// `pages` free pages of `page_tokens` positions.
    pub fn new(pages: usize, page_tokens: usize) -> Self {
        Self {
            page_tokens,
            free: (0..pages as u32).rev().collect(),
            holders: vec![0; pages],
            keys: vec![None; pages],
            published: HashMap::new(),
            idle: BTreeMap::new(),
            idle_since: vec![0; pages],
            now: 0,
            states: None,
        }
    }

    /// The same with so many recurrent states beside; 0: sequences have none.
    #[must_use]
    pub fn with_states(self, states: usize) -> Self {
        Self { states: (states > 0).then(|| (0..states as u32).rev().collect()), ..self }
    }

    /// Sequences have recurrent states.
    pub fn keeps_states(&self) -> bool {
        self.states.is_some()
    }

    /// Takes a recurrent state for a sequence, if one is left; what it holds is undefined. 0 where sequences have none.
    pub fn take_state(&mut self) -> Option<u32> {
        self.states.as_mut().map_or(Some(0), Vec::pop)
    }

    /// Recurrent states that no sequence has; more than there can be where sequences have none.
    pub fn states_available(&self) -> usize {
        self.states.as_ref().map_or(usize::MAX, Vec::len)
    }

    /// A sequence gives its recurrent state back.
    pub fn release_state(&mut self, state: u32) {
        self.states.iter_mut().for_each(|states| states.push(state));
    }

    /// Positions of a page.
    pub fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// Positions of all pages.
    pub fn tokens(&self) -> usize {
        self.holders.len() * self.page_tokens
    }

    /// Pages that `tokens` positions need.
    pub fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_tokens)
    }

    /// Pages that nobody holds.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Takes so many pages, or none if there are not enough. What they hold is undefined.
    pub fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        if count > self.available() {
            return None;
        }
        while self.free.len() < count {
            let (_, page) = self.idle.pop_first()?;
            self.unpublish(page);
            self.free.push(page);
        }
        let taken = self.free.split_off(self.free.len() - count);
        for &page in &taken {
            self.holders[page as usize] = 1;
        }
        Some(taken)
    }

    /// The page that holds these tokens after what comes before them.
    pub fn find(&self, before: Before, tokens: &[u32]) -> Option<u32> {
        self.published.get(&Key { before, tokens: tokens.into() }).copied()
    }

    /// One more sequence holds a page that [`find`](Self::find) gave.
    pub fn hold(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        if *holders == 0 {
            self.idle.remove(&self.idle_since[page as usize]);
        }
        *holders += 1;
    }

    /// Whether just one sequence holds a page.
    pub fn alone(&self, page: u32) -> bool {
        self.holders[page as usize] == 1
    }

    /// Says what a page holds from now on. Whoever holds it also holds the page before. False if another page is known
    /// to hold the same.
    pub fn publish(&mut self, page: u32, before: Before, tokens: &[u32]) -> bool {
        let key = Arc::new(Key { before, tokens: tokens.into() });
        if self.published.contains_key(&key) {
            return false;
        }
        self.keys[page as usize] = Some(Arc::clone(&key));
        self.published.insert(key, page);
        true
    }

    /// A sequence gives its pages back, which it lists in order.
    pub fn release(&mut self, pages: impl IntoIterator<Item = u32, IntoIter: DoubleEndedIterator>) {
        for page in pages.into_iter().rev() {
            let holders = &mut self.holders[page as usize];
            *holders -= 1;
            if *holders > 0 {
                continue;
            }
            if self.keys[page as usize].is_some() {
                self.now += 1;
                self.idle_since[page as usize] = self.now;
                self.idle.insert(self.now, page);
            } else {
                self.free.push(page);
            }
        }
    }

    /// Forgets what pages hold.
    pub fn forget(&mut self) {
        self.published.clear();
        self.keys.fill(None);
        self.free.extend(std::mem::take(&mut self.idle).into_values());
    }

    fn unpublish(&mut self, page: u32) {
        if let Some(key) = self.keys[page as usize].take() {
            self.published.remove(&key);
        }
    }
}

/// How the rotations of a model depend on the length of a sequence.
#[derive(Clone, Debug)]
pub struct Rotations(Vec<Scaling>);

impl Rotations {
    /// Those of a model.
    pub fn of(spec: &ModelSpec) -> Self {
        Self(spec.ropes.iter().map(|rope| rope.scaling).collect())
    }

    /// Sequences of lengths of the same class have the same angles at the same positions.
    pub fn class(&self, length: usize) -> u64 {
        let beyond = |original: f64| length as f64 > original;
        let mut class = 0;
        for (scaling, bit) in self.0.iter().zip(0..32) {
            match *scaling {
                Scaling::Dynamic { original, .. } if beyond(original) => return 1 << 32 | length as u64,
                Scaling::Long { original, .. } if beyond(original) => class |= 1 << bit,
                _ => {}
            }
        }
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Before = Before::Start(0);

    #[test]
    fn an_unpublished_page_belongs_to_one_sequence_at_a_time() {
        let mut pages = Pages::new(5, 16);
        assert_eq!((pages.needed(17), pages.needed(16), pages.tokens()), (2, 1, 80));
        let a = pages.take(2).unwrap();
        let b = pages.take(3).unwrap();
        assert!(a.iter().all(|p| !b.contains(p)));
        assert!(pages.take(1).is_none());
        pages.release(a);
        assert_eq!(pages.take(2).unwrap().len(), 2);
        assert_eq!(pages.take(0).unwrap().len(), 0);
    }

    #[test]
    fn a_page_is_found_by_its_tokens_and_all_before_them() {
        let mut pages = Pages::new(4, 2);
        let own = pages.take(2).unwrap();
        assert!(pages.publish(own[0], START, &[1, 2]));
        assert!(pages.publish(own[1], Before::Page(own[0]), &[3, 4]));
        assert_eq!(pages.find(START, &[1, 2]), Some(own[0]));
        assert_eq!(pages.find(Before::Page(own[0]), &[3, 4]), Some(own[1]));
        for (before, tokens) in [(START, [3, 4]), (Before::Start(1), [1, 2]), (Before::Page(own[1]), [3, 4])]
        {
            assert_eq!(pages.find(before, &tokens), None);
        }
        let other = pages.take(1).unwrap();
        assert!(!pages.publish(other[0], START, &[1, 2]), "another page holds the same");
    }

    #[test]
    fn idle_pages_come_back_or_are_given_away_last_ones_first() {
        let mut pages = Pages::new(3, 2);
        let own = pages.take(3).unwrap();
        let mut before = START;
        for (i, &page) in own.iter().enumerate() {
            assert!(pages.publish(page, before, &[i as u32, 0]));
            before = Before::Page(page);
        }
        pages.hold(own[0]);
        pages.release(own.clone());
        assert_eq!(pages.available(), 2);
        // The third goes first, then the second; the first is held.
        assert_eq!(pages.take(1).unwrap(), [own[2]]);
        assert_eq!(pages.find(Before::Page(own[1]), &[2, 0]), None);
        assert_eq!(pages.find(Before::Page(own[0]), &[1, 0]), Some(own[1]));
        pages.hold(own[1]);
        assert_eq!(pages.available(), 0);
        pages.release([own[0], own[1]]);
        pages.forget();
        assert_eq!((pages.available(), pages.find(START, &[0, 0])), (2, None));
        assert_eq!(pages.take(2).unwrap().len(), 2);
    }

    #[test]
    fn lengths_are_told_apart_where_angles_depend_on_them() {
        let dynamic = Scaling::Dynamic { factor: 2.0, original: 16.0 };
        let long = Scaling::Long { original: 32.0, attention_factor: 1.0, long_attention_factor: 1.0 };
        let classes =
            |scalings: &[Scaling]| [5, 16, 17, 18, 40].map(|l| Rotations(scalings.to_vec()).class(l));
        assert_eq!(classes(&[Scaling::None, Scaling::Linear { factor: 2.0 }]), [0; 5]);
        assert_eq!(classes(&[Scaling::None, long]), [0, 0, 0, 0, 2]);
        let [a, b, c, d, e] = classes(&[dynamic]);
        assert!(a == b && b != c && c != d && d != e);
    }
}
