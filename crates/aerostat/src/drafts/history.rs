//! What was written before: the longest end of a text that stands elsewhere says what may follow.

use std::collections::HashMap;

/// The longest end that is compared.
pub(super) const MATCH_MAX: usize = 32;
/// Places that are looked at, the latest first.
const PLACES: usize = 24;
/// No place.
const NONE: u32 = u32::MAX;

/// Texts, and where each pair of tokens stands in them.
#[derive(Debug, Default)]
pub(super) struct History {
    tokens: Vec<u32>,
    /// For each token, where the pair that ends with it stood before.
    earlier: Vec<u32>,
    latest: HashMap<(u32, u32), u32>,
    /// No pair reaches back before it.
    begin: usize,
}

/// A token that followed where the same stood before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    pub(super) token: u32,
    /// Tokens before it that are the same, at least two.
    pub(super) matched: usize,
}

impl History {
    /// Bytes that a token takes at most.
    pub(super) const TOKEN_BYTES: u64 = 48;

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Takes what a text has that was not there yet.
    pub(super) fn extend(&mut self, text: &[u32]) {
        let known = self.tokens.len() - self.begin;
        let Some(new) = text.get(known..) else { return };
        for &token in new {
            let place = self.tokens.len();
            let before = self.tokens.last().filter(|_| place > self.begin);
            let earlier = before.and_then(|&before| self.latest.insert((before, token), place as u32));
            self.tokens.push(token);
            self.earlier.push(earlier.unwrap_or(NONE));
        }
    }

    /// Takes another text after those that are there.
    pub(super) fn append(&mut self, text: &[u32]) {
        self.begin = self.tokens.len();
        self.extend(text);
    }

    /// What followed the longest ends of a text, each token once; `end` is the text's end, at least two tokens.
    pub(super) fn continuations(&self, end: &[u32], found: &mut Vec<Continuation>) {
        let [.., before, last] = *end else { return };
        let mut place = self.latest.get(&(before, last)).copied().unwrap_or(NONE);
        for _ in 0..PLACES {
            let Some(&earlier) = self.earlier.get(place as usize) else { break };
            if let Some(&token) = self.tokens.get(place as usize + 1) {
                let alike = self.tokens[..=place as usize].iter().rev().zip(end.iter().rev());
                let matched = alike.take(MATCH_MAX).take_while(|(a, b)| a == b).count();
                match found.iter_mut().find(|c| c.token == token) {
                    Some(known) => known.matched = known.matched.max(matched),
                    None => found.push(Continuation { token, matched }),
                }
            }
            place = earlier;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(history: &History, end: &[u32]) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        history.continuations(end, &mut found);
        found.iter().map(|c| (c.token, c.matched)).collect()
    }

    #[test]
    fn what_followed_the_longest_match_is_found_with_its_length() {
        let mut history = History::default();
        history.extend(&[1, 2, 3, 9, 2, 3, 4, 1, 2, 3]);
        // The end itself has nothing after it; the match before reaches one token, the first one two further.
        assert_eq!(after(&history, &[4, 1, 2, 3]), [(4, 2), (9, 3)]);
        assert_eq!(after(&history, &[3]), []);
        assert_eq!(after(&history, &[7, 7]), []);
    }

    #[test]
    fn texts_do_not_run_into_each_other_and_grow_by_what_is_new() {
        let mut history = History::default();
        history.append(&[1, 2]);
        history.append(&[3, 4, 5]);
        history.extend(&[3, 4, 5, 6]);
        assert_eq!(after(&history, &[2, 3]), []);
        assert_eq!(after(&history, &[4, 5]), [(6, 2)]);
        assert_eq!(history.len(), 6);
    }
}
