//! Biases of scores by distance.

use super::vector::Vector;

/// What is added to attention's scores by the distance of two positions: buckets of distances, each with a bias for each head
/// (T5, Raffel et al. 2019, arXiv:1910.10683). Half of the buckets are for positions before a row's own and itself, half for
/// those after it; in each half the first ones are of one distance, later ones ever wider.
#[derive(Clone, Debug, PartialEq)]
pub struct DistanceBiases {
    /// `[buckets or more, heads]`.
    pub table: Vector,
    /// Number of buckets, a multiple of 4.
    pub buckets: usize,
    /// From this distance on, all are in the last bucket.
    pub distance_max: usize,
}

impl DistanceBiases {
    /// The greatest distance that has a bias of its own.
    pub fn reach(&self) -> usize {
        self.distance_max
    }

    /// The bucket of a position that lies so far after a row's own; before it where that is negative.
    pub fn bucket(&self, after: i64) -> usize {
        let half = self.buckets / 2;
        let (first, exact) = (if after > 0 { half } else { 0 }, half / 2);
        let distance = usize::try_from(after.unsigned_abs()).unwrap_or(usize::MAX).min(self.distance_max);
        if distance < exact {
            return first + distance;
        }
        // The floor of `steps * ln(distance / exact) / ln(distance_max / exact)`, by powers alone.
        let steps = half - exact;
        let ratio = |of: usize| of as f64 / exact.max(1) as f64;
        let power = (0..steps).fold(1.0, |power, _| power * ratio(distance));
        let mut bound = 1.0;
        let passed = (0..steps).take_while(|_| {
            bound *= ratio(self.distance_max);
            power >= bound
        });
        first + (exact + passed.count()).min(half - 1)
    }
}
