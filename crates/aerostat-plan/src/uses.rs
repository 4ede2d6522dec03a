//! How often experts were used.

use serde::{Deserialize, Serialize};

/// For each block and expert, in how many sweeps some row used it. A block without experts has an empty list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertUse {
    blocks: Vec<Vec<u64>>,
    /// Uses by how many other experts of the block were used since the one before, as a share of all: [`BUCKETS`] equal parts,
    /// and last those of experts that were never used before.
    #[serde(default)]
    reuse: Vec<u64>,
}

/// Parts of the experts of a block that are told apart in what a cache of some of them would find.
const BUCKETS: usize = 64;
/// Fewer uses say nothing of it.
const REUSES_MIN: u64 = 2_000;

/// Counts are halved when one is larger, so that what is new weighs more.
const COUNT_MAX: u64 = 1 << 20;

impl ExpertUse {
    /// Counts one sweep that used an expert.
    pub fn add(&mut self, block: usize, expert: usize) {
        if self.blocks.len() <= block {
            self.blocks.resize(block + 1, Vec::new());
        }
        let counts = &mut self.blocks[block];
        if counts.len() <= expert {
            counts.resize(expert + 1, 0);
        }
        counts[expert] += 1;
    }

    /// Counts a use of one of `experts`: so many others were used since its last; `None`: it is its first.
    pub fn reused(&mut self, since: Option<usize>, experts: usize) {
        self.reuse.resize(BUCKETS + 1, 0);
        let bucket = since.map_or(BUCKETS, |since| (since * BUCKETS / experts.max(1)).min(BUCKETS - 1));
        self.reuse[bucket] += 1;
    }

    /// The share of uses that a cache of this share of the experts of each block would have found, those used last; `None`:
    /// too few were counted.
    pub fn found(&self, share: f64) -> Option<f64> {
        let all: u64 = self.reuse.iter().sum();
        if all < REUSES_MIN || self.reuse.len() != BUCKETS + 1 {
            return None;
        }
        let within = |(bucket, count): (usize, &u64)| {
            *count as f64 * (share * BUCKETS as f64 - bucket as f64).clamp(0.0, 1.0)
        };
        let found: f64 = self.reuse[..BUCKETS].iter().enumerate().map(within).sum();
        Some(found / all as f64)
    }

    /// Adds all counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.reuse.resize(self.reuse.len().max(other.reuse.len()), 0);
        self.reuse
            .iter_mut()
            .zip(&other.reuse)
            .for_each(|(count, other)| *count = count.saturating_add(*other));
        if self.reuse.iter().any(|count| *count > COUNT_MAX << 10) {
            self.reuse.iter_mut().for_each(|count| *count /= 2);
        }
        self.blocks.resize(self.blocks.len().max(other.blocks.len()), Vec::new());
        for (counts, others) in self.blocks.iter_mut().zip(&other.blocks) {
            counts.resize(counts.len().max(others.len()), 0);
            counts.iter_mut().zip(others).for_each(|(count, other)| *count = count.saturating_add(*other));
        }
        while self.blocks.iter().flatten().any(|count| *count > COUNT_MAX) {
            self.blocks.iter_mut().flatten().for_each(|count| *count /= 2);
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.blocks.iter().flatten().all(|count| *count == 0)
    }

    /// The experts of a block that were used, those used most first; at most so many.
    pub fn most_used(&self, block: usize, most: usize) -> Vec<u32> {
        let counts = self.blocks.get(block).map_or(&[][..], Vec::as_slice);
        let mut used: Vec<(u64, u32)> =
            counts.iter().copied().zip(0..).filter(|(count, _)| *count > 0).collect();
        used.sort_unstable_by_key(|(count, expert)| (u64::MAX - count, *expert));
        used.into_iter().take(most).map(|(_, expert)| expert).collect()
    }

    /// How often an expert was used.
    pub(crate) fn count(&self, block: usize, expert: usize) -> u64 {
        self.blocks.get(block).and_then(|counts| counts.get(expert)).copied().unwrap_or(0)
    }

    /// Each expert's share of a block's uses, if enough are known; one that was never seen counts as half a use.
    pub(crate) fn shares(&self, block: usize, experts: usize) -> Option<Vec<f64>> {
        let counts = |e| (self.count(block, e) as f64).max(0.5);
        let total: f64 = (0..experts).map(counts).sum();
        (total > 2.0 * experts as f64).then(|| (0..experts).map(|e| counts(e) / total).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cache_would_find_is_learned_from_how_soon_experts_come_again() {
        let mut uses = ExpertUse::default();
        (0..REUSES_MIN / 4).for_each(|_| {
            uses.reused(Some(3), 128);
            uses.reused(Some(40), 128);
            uses.reused(Some(127), 128);
        });
        assert_eq!(uses.found(0.5), None, "too few to say");
        (0..REUSES_MIN / 4).for_each(|_| uses.reused(None, 128));
        let found = [0.0, 4.0, 40.0, 42.0, 128.0].map(|slots| uses.found(slots / 128.0).unwrap());
        assert_eq!(found, [0.0, 0.25, 0.25, 0.5, 0.75]);
        let mut twice = uses.clone();
        twice.merge(&uses);
        assert_eq!(twice.found(0.5), uses.found(0.5));
    }

    #[test]
    fn counts_add_up_and_fade() {
        let mut uses = ExpertUse::default();
        assert!(uses.is_empty());
        (0..3).for_each(|_| uses.add(1, 2));
        uses.add(1, 0);
        assert_eq!((uses.count(1, 2), uses.count(1, 1), uses.count(0, 9)), (3, 0, 0));
        assert_eq!(uses.shares(1, 3), None, "too few to say");
        let mut all = uses.clone();
        for _ in 0..21 {
            let same = all.clone();
            all.merge(&same);
        }
        assert!(all.count(1, 2) <= COUNT_MAX);
        let shares = all.shares(1, 3).unwrap();
        assert!((shares[2] / shares[0] - 3.0).abs() < 1e-3, "{shares:?}");
    }
}
