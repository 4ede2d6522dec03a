//! How often experts were used.

use serde::{Deserialize, Serialize};

/// For each block and expert, in how many sweeps some row used it. A block without experts has an empty list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertUse {
    blocks: Vec<Vec<u64>>,
}

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

    /// Adds all counts of another.
    pub fn merge(&mut self, other: &Self) {
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
