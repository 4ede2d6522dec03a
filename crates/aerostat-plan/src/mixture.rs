//! Experts of a block: how many of them a sweep uses, and how many of those it reads.

use std::sync::Arc;

use aerostat_arch::{Experts, ModelSpec};
use serde::Serialize;

use crate::cost::Part;
use crate::uses::ExpertUse;

/// The experts of one block, as many of them in memory as there are slots: those that were used last.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    /// How likely a row is to use each of them, the likeliest first.
    chances: Vec<f64>,
    /// One of them.
    pub(crate) each: Part,
    slots: usize,
    hits: Arc<Hits>,
}

impl Mixture {
    /// How many of them so many rows use that choose independently of each other.
    pub(crate) fn used(&self, independent: f64) -> f64 {
        self.uses(independent).sum()
    }

    fn uses(&self, independent: f64) -> impl Iterator<Item = f64> {
        self.chances.iter().map(move |chance| 1.0 - (1.0 - chance).max(0.0).powf(independent))
    }

    /// How many of those a sweep reads. A text finds what it used before; texts that share a sweep share the slots, and find
    /// at least the experts that are likeliest whatever the text.
    pub(crate) fn read(&self, texts: usize, independent: f64) -> f64 {
        if self.slots >= self.chances.len() {
            return 0.0;
        }
        let (used, likeliest) =
            (self.used(independent), self.uses(independent).take(self.slots).sum::<f64>());
        let share = self.slots as f64 / self.chances.len().max(1) as f64;
        let found = used * self.hits.found(share / texts.max(1) as f64);
        used - found.max(likeliest).min(used)
    }

    /// Rows that each of the experts in use has, on average.
    pub(crate) fn rows_each(&self, rows: usize, independent: f64) -> f64 {
        rows as f64 * self.chosen() / self.used(independent).max(f64::MIN_POSITIVE)
    }

    /// How many a row uses.
    pub(crate) fn chosen(&self) -> f64 {
        self.chances.iter().sum()
    }

    /// Stored bytes of those that are not in memory.
    pub(crate) fn streamed_bytes(&self) -> u64 {
        self.chances.len().saturating_sub(self.slots) as u64 * self.each.streamed_bytes
    }
}

/// How many uses of experts are found in memory, by the share of a block's experts that is there.
#[derive(Clone, Debug, Serialize)]
pub struct Hits {
    /// Where that is known from: `earlier runs of this model`, or another model whose figures stand in.
    pub source: String,
    /// Pairs of the share in memory and the share of uses found there, both from 0 to 1 and ascending.
    pub curve: Vec<(f64, f64)>,
}

/// Shares in memory of the published figures below.
const SHARES: [f64; 12] = [0.05, 0.08, 0.12, 0.16, 0.20, 0.25, 0.30, 0.36, 0.45, 0.55, 0.64, 0.75];
/// Uses found, as published for one text at a time in models of so many experts: a cache of those used last in every block.
const PUBLISHED: [(usize, &str, [f64; 12]); 3] = [
    (128, "Qwen3-235B-A22B", [0.34, 0.47, 0.58, 0.67, 0.74, 0.80, 0.84, 0.89, 0.93, 0.96, 0.97, 0.98]),
    (256, "GLM-5.2", [0.30, 0.42, 0.50, 0.56, 0.61, 0.67, 0.71, 0.76, 0.82, 0.87, 0.90, 0.92]),
    (512, "Qwen3.5-397B-A17B", [0.41, 0.50, 0.58, 0.65, 0.70, 0.76, 0.80, 0.83, 0.86, 0.88, 0.89, 0.89]),
];

impl Hits {
    /// What earlier runs of the model found, or the published figures of one with nearly as many experts.
    pub(crate) fn of(spec: &ModelSpec, uses: Option<&ExpertUse>) -> Self {
        let learned = |uses: &ExpertUse| {
            let points = (1..=16).map(|i| f64::from(i) / 16.0);
            points.map(|share| Some((share, uses.found(share)?))).collect::<Option<Vec<_>>>()
        };
        if let Some(curve) = uses.and_then(learned) {
            return Self { source: "earlier runs of this model".to_owned(), curve };
        }
        let experts = spec.blocks.iter().filter_map(|block| block.experts.as_ref());
        let most = experts.map(|experts| experts.mlps.len()).max().unwrap_or(0);
        let (_, name, found) = PUBLISHED.iter().find(|(count, ..)| most <= *count).unwrap_or(&PUBLISHED[2]);
        let curve = SHARES.into_iter().zip(*found).chain([(1.0, 1.0)]).collect();
        Self { source: format!("published figures of {name}"), curve }
    }

    /// The share of uses that are found with this share in memory.
    pub fn found(&self, share: f64) -> f64 {
        let after = self.curve.partition_point(|(at, _)| *at < share);
        let (x0, y0) = after.checked_sub(1).and_then(|i| self.curve.get(i)).copied().unwrap_or((0.0, 0.0));
        let Some((x1, y1)) = self.curve.get(after).copied() else { return y0 };
        if x1 > x0 { y0 + (y1 - y0) * (share - x0) / (x1 - x0) } else { y1 }
    }
}

/// The experts of each block that has some, with so many slots.
pub(crate) fn mixtures(
    spec: &ModelSpec,
    slots: &[usize],
    uses: Option<&ExpertUse>,
    hits: &Hits,
) -> Vec<Mixture> {
    let hits = Arc::new(hits.clone());
    let blocks = spec.blocks.iter().zip(slots).enumerate();
    let mixture = |i: usize, experts: &Experts, slots: usize| {
        let count = experts.mlps.len();
        let chosen = experts.routing.chosen as f64;
        let mut chances = match uses.and_then(|uses| uses.shares(i, count)) {
            None => vec![chosen / count as f64; count],
            Some(shares) => shares.iter().map(|share| (chosen * share).min(1.0)).collect(),
        };
        chances.sort_by(|a, b| b.total_cmp(a));
        let matrices = experts.mlps.iter().flat_map(|mlp| mlp.linears()).map(|(_, linear)| &linear.weight);
        let (all, weights) = (experts.bytes(), matrices.map(|m| m.rows as u64 * m.cols as u64).sum::<u64>());
        let each = Part { streamed_bytes: all / count as u64, weights: weights / count as u64 };
        Mixture { chances, each, slots, hits: Arc::clone(&hits) }
    };
    blocks.filter_map(|(i, (block, slots))| Some(mixture(i, block.experts.as_ref()?, *slots))).collect()
}

#[cfg(test)]
impl Mixture {
    /// Experts that are chosen alike, none of them in memory.
    pub(crate) fn even(count: usize, chosen: usize, each: Part) -> Self {
        let hits = Arc::new(Hits { source: String::new(), curve: vec![(0.0, 0.0), (1.0, 1.0)] });
        Self { chances: vec![chosen as f64 / count as f64; count], each, slots: 0, hits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture(chances: Vec<f64>, slots: usize, curve: Vec<(f64, f64)>) -> Mixture {
        let hits = Arc::new(Hits { source: String::new(), curve });
        Mixture { chances, each: Part { streamed_bytes: 10, weights: 5 }, slots, hits }
    }

    #[test]
    fn a_text_finds_what_it_used_and_many_texts_find_what_is_there() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        let curve = vec![(0.1, 0.4), (0.2, 0.75), (1.0, 1.0)];
        let even = mixture(vec![8.0 / 128.0; 128], 25, curve.clone());
        near(even.used(1.0), 8.0);
        near(even.read(1, 1.0), 8.0 * (1.0 - even.hits.found(25.0 / 128.0)));
        // Of 64 texts each finds a resident expert by chance alone.
        near(even.read(64, 64.0), even.used(64.0) * 103.0 / 128.0);
        near(mixture(vec![0.5; 4], 4, curve.clone()).read(3, 3.0), 0.0);
        // Two that every text uses, and 98 that few do.
        let skewed = mixture([vec![1.0; 2], vec![0.01; 98]].concat(), 2, curve);
        assert!(skewed.read(1, 1.0) < 1.0 && skewed.read(1, 1.0) > 0.9, "{}", skewed.read(1, 1.0));
    }

    #[test]
    fn between_points_hits_lie_on_a_line() {
        let hits = Hits { source: String::new(), curve: vec![(0.1, 0.4), (0.2, 0.8), (1.0, 1.0)] };
        for (share, found) in
            [(0.0, 0.0), (0.05, 0.2), (0.1, 0.4), (0.15, 0.6), (0.6, 0.9), (1.0, 1.0), (2.0, 1.0)]
        {
            assert!((hits.found(share) - found).abs() < 1e-9, "{share}: {}", hits.found(share));
        }
    }
}
