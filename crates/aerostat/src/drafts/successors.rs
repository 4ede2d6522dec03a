//! What a model expected after a token the last time, kept: logits are computed anyway, and their likeliest tokens are
//! guesses for the next time that the same token comes.

use std::collections::HashMap;

/// Tokens kept for each token or pair.
pub(super) const KEPT: usize = 8;
/// Tokens and pairs that are known at most.
const KNOWN_MAX: usize = 8 << 10;
/// Logits of which the largest is found at once.
const CHUNK: usize = 64;

/// The likeliest tokens, likeliest first, and how likely each is among them.
type Likeliest = [(u32, f32); KEPT];

/// The likeliest successors of tokens, and of pairs of tokens.
#[derive(Debug, Default)]
pub(super) struct Successors {
    of_token: HashMap<u32, Likeliest>,
    of_pair: HashMap<(u32, u32), Likeliest>,
}

impl Successors {
    /// What all of it takes at most.
    pub(super) const BYTES: u64 = (2 * KNOWN_MAX * (size_of::<Likeliest>() + 16)) as u64 * 2;

    /// Takes the logits after the pair.
    pub(super) fn learn(&mut self, (before, token): (Option<u32>, u32), logits: &[f32]) {
        let likeliest = likeliest(logits, 1.0);
        insert(&mut self.of_token, token, likeliest);
        if let Some(before) = before {
            insert(&mut self.of_pair, (before, token), likeliest);
        }
    }

    /// What was likely after the pair, and how likely; else after its last token.
    pub(super) fn after(&self, (before, token): (Option<u32>, u32)) -> Option<(&Likeliest, bool)> {
        let of_pair = before.and_then(|before| self.of_pair.get(&(before, token)));
        of_pair.map(|found| (found, true)).or_else(|| self.of_token.get(&token).map(|found| (found, false)))
    }
}

fn insert<K: std::hash::Hash + Eq>(known: &mut HashMap<K, Likeliest>, key: K, likeliest: Likeliest) {
    if known.len() >= KNOWN_MAX && !known.contains_key(&key) {
        known.clear();
    }
    known.insert(key, likeliest);
}

/// The largest logits as chances among each other at a temperature; `u32::MAX` where the vocabulary has no more.
pub(super) fn likeliest(logits: &[f32], temperature: f32) -> Likeliest {
    let mut best = [(u32::MAX, f32::NEG_INFINITY); KEPT];
    for (chunk, first) in logits.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
        let largest = chunk.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
        if largest <= best[KEPT - 1].1 {
            continue;
        }
        for (&logit, token) in chunk.iter().zip(first..) {
            let place = best.partition_point(|(_, kept)| *kept >= logit);
            if place < KEPT && !logit.is_nan() {
                best.copy_within(place..KEPT - 1, place + 1);
                best[place] = (token, logit);
            }
        }
    }
    let max = best[0].1;
    let chance = |logit: f32| if logit == max { 1.0 } else { ((logit - max) / temperature).exp() };
    let sum: f32 = best.iter().map(|(_, logit)| chance(*logit)).sum();
    best.map(|(token, logit)| (token, chance(logit) / sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_those_of_a_sort() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919 % 1009) as f32).sin() * 9.0).collect();
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        let found = likeliest(&logits, 1.0);
        assert_eq!(found.map(|(token, _)| token)[..], sorted[..KEPT].iter().map(|s| s.0).collect::<Vec<_>>());
        assert!((found.iter().map(|(_, chance)| chance).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(likeliest(&[1.0, f32::NEG_INFINITY], 0.5)[0], (0, 1.0));
        assert_eq!(likeliest(&[f32::NAN, 2.0], 2.0)[0], (1, 1.0));
    }

    #[test]
    fn a_pair_is_known_better_than_its_last_token() {
        let mut known = Successors::default();
        known.learn((Some(1), 2), &[0.0, 0.0, 0.0, 9.0]);
        known.learn((Some(5), 2), &[9.0, 0.0, 0.0, 0.0]);
        let first = |pair| known.after(pair).map(|(found, of_pair)| (found[0].0, of_pair));
        assert_eq!(first((Some(1), 2)), Some((3, true)));
        assert_eq!(first((Some(7), 2)), Some((0, false)));
        assert_eq!(first((Some(7), 3)), None);
    }
}
