//! What a sweep costs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::mixture::Mixture;
use crate::{Machine, Multiply};

/// Predicted cost of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Of a sweep with one row.
    pub sweep_seconds: f64,
    /// Tokens per second when this many rows decode together.
    pub tokens_per_second: BTreeMap<usize, f64>,
    /// Read rate the prediction assumes.
    pub read_bytes_per_second: f64,
    /// Compute rate the prediction assumes, with many rows.
    pub flops_per_second: f64,
    #[serde(skip)]
    blocks: Part,
    #[serde(skip)]
    head: Part,
    #[serde(skip)]
    mixtures: Vec<Mixture>,
    #[serde(skip)]
    multiply: Vec<Multiply>,
}

/// Rows of a sweep that guess what follows others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guesses {
    /// How many.
    pub count: usize,
    /// The share of its experts that one has in common with the rows before it, from 0 to 1.
    pub common: f64,
}

/// Part of a sweep: what it reads from disk, and its multiply-adds for a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(crate) streamed_bytes: u64,
    pub(crate) weights: u64,
}

impl Cost {
    pub(crate) fn new(blocks: Part, head: Part, mixtures: Vec<Mixture>, machine: &Machine) -> Self {
        let multiply = machine.multiply.clone();
        let rate = |m: &Multiply| 2.0 * m.rows as f64 / m.seconds_per_weight;
        let mut cost = Self {
            sweep_seconds: 0.0,
            tokens_per_second: BTreeMap::new(),
            read_bytes_per_second: machine.read_bytes_per_second,
            flops_per_second: multiply.last().map_or(f64::INFINITY, rate),
            blocks,
            head,
            mixtures,
            multiply,
        };
        cost.sweep_seconds = cost.seconds(1, 1);
        cost.tokens_per_second = [1, 8, 50].map(|r| (r, r as f64 / cost.seconds(r, r))).into();
        cost
    }

    /// The same at another rate of the disk.
    pub fn at_read_rate(&self, bytes_per_second: f64) -> Self {
        Self { read_bytes_per_second: bytes_per_second, ..self.clone() }
    }

    /// Seconds of a sweep with this many rows, some of them with logits; without any the head is left out.
    ///
    /// Computing hides behind reading or the other way round: the longer counts. Where they take nearly the same time,
    /// neither hides wholly, since they share memory and processors; the sum of fourth powers fits what is measured there
    /// (a fifth more where they are equal, 2 % where one takes half as long).
    pub fn seconds(&self, rows: usize, logit_rows: usize) -> f64 {
        self.seconds_with(rows, logit_rows, Guesses::default())
    }

    /// The same with guesses of what follows the rows, each with logits.
    pub fn seconds_with(&self, rows: usize, logit_rows: usize, guesses: Guesses) -> f64 {
        let Guesses { count, common } = guesses;
        let independent = rows as f64 + count as f64 * (1.0 - common);
        let logit_rows = logit_rows + count;
        let read = self.reading(rows, logit_rows, independent) / self.read_bytes_per_second;
        let compute = self.computing(rows + count, logit_rows, independent);
        (read.powi(4) + compute.powi(4)).sqrt().sqrt()
    }

    /// Bytes that a sweep is expected to read.
    pub fn read_bytes(&self, rows: usize, logit_rows: usize) -> f64 {
        self.reading(rows, logit_rows, rows as f64)
    }

    /// The same where so many texts choose as many experts as so many independent rows.
    fn reading(&self, texts: usize, logit_rows: usize, independent: f64) -> f64 {
        let head = if logit_rows > 0 { self.head.streamed_bytes } else { 0 };
        let bytes = |m: &Mixture| m.read(texts, independent) * m.each.streamed_bytes as f64;
        (self.blocks.streamed_bytes + head) as f64 + self.mixtures.iter().map(bytes).sum::<f64>()
    }

    /// As many rows that choose independently of each other use so many experts in a sweep, in all blocks together. `None`: no
    /// number of rows does, or there are no experts.
    pub fn independent_rows(&self, experts: u64) -> Option<f64> {
        let (wanted, used) = (experts as f64, |rows| self.mixtures.iter().map(|m| m.used(rows)).sum::<f64>());
        let (mut low, mut high) = (0.0, 4096.0);
        if wanted <= 0.0 || used(high) < wanted {
            return None;
        }
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            *(if used(middle) < wanted { &mut low } else { &mut high }) = middle;
        }
        Some(high)
    }

    /// Whether there are experts.
    pub fn has_experts(&self) -> bool {
        !self.mixtures.is_empty()
    }

    /// Stored bytes of all experts that do not stay in memory.
    pub(crate) fn expert_bytes(&self) -> u64 {
        self.mixtures.iter().map(Mixture::streamed_bytes).sum()
    }

    /// Seconds of computing in a sweep.
    fn computing(&self, rows: usize, logit_rows: usize, independent: f64) -> f64 {
        let each = |m: &Mixture| self.per_weight(m.rows_each(rows, independent).max(1.0));
        let experts = |m: &Mixture| m.each.weights as f64 * m.used(independent) * each(m);
        let head = if logit_rows > 0 { self.head.weights } else { 0 };
        self.blocks.weights as f64 * self.per_weight(rows as f64)
            + head as f64 * self.per_weight(logit_rows as f64)
            + self.mixtures.iter().map(experts).sum::<f64>()
    }

    /// Seconds of computing alone that so many rows take in sweeps of many rows: the roofline.
    pub fn compute_seconds(&self, rows: u64, logit_rows: u64) -> f64 {
        let experts: f64 = self.mixtures.iter().map(|m| m.each.weights as f64 * m.chosen()).sum();
        let blocks = self.blocks.weights as f64 + experts;
        2.0 * (blocks * rows as f64 + self.head.weights as f64 * logit_rows as f64) / self.flops_per_second
    }

    /// Seconds that a weight takes with this many rows: on the lines through what was measured, and in proportion to
    /// rows beyond.
    fn per_weight(&self, rows: f64) -> f64 {
        let (Some(first), Some(last)) = (self.multiply.first(), self.multiply.last()) else { return 0.0 };
        if rows <= first.rows as f64 {
            return first.seconds_per_weight;
        }
        let between = self.multiply.windows(2).find(|pair| rows <= pair[1].rows as f64);
        let Some([a, b]) = between else {
            return last.seconds_per_weight * rows / last.rows as f64;
        };
        let share = (rows - a.rows as f64) / (b.rows - a.rows).max(1) as f64;
        a.seconds_per_weight + share * (b.seconds_per_weight - a.seconds_per_weight)
    }

    /// The rows at which computing takes as long as what it hides behind: reading, or one row's pass through memory.
    pub fn knee(&self) -> usize {
        let fixed = self.seconds(1, 1);
        let computes = |rows: usize| {
            let read = self.read_bytes(rows, rows) / self.read_bytes_per_second;
            self.computing(rows, rows, rows as f64) <= fixed.max(read)
        };
        let (mut low, mut high) = (1, 1 << 20);
        while low + 1 < high {
            let middle = (low + high) / 2;
            *(if computes(middle) { &mut low } else { &mut high }) = middle;
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gigabyte of BF16 on a disk of 1 GB/s; one row takes 0.1 s, 128 take 1.28 s.
    fn cost(streamed_bytes: u64) -> Cost {
        let machine = Machine {
            available_bytes: 0,
            process_bytes: 0,
            process_peak_bytes: 0,
            threads: 1,
            alignment: 4096,
            read_bytes_per_second: 1e9,
            multiply: vec![
                Multiply { rows: 1, seconds_per_weight: 2e-10 },
                Multiply { rows: 8, seconds_per_weight: 2.4e-10 },
                Multiply { rows: 128, seconds_per_weight: 25.6e-10 },
            ],
        };
        let half = Part { streamed_bytes: streamed_bytes / 2, weights: 250_000_000 };
        Cost::new(half, half, Vec::new(), &machine)
    }

    /// A guess that needs no experts of its own costs computing alone; how much alike rows are is told by what they used.
    #[test]
    fn guesses_cost_the_experts_that_they_add() {
        let mut cost = cost(1 << 30);
        let whole = cost.seconds_with(4, 4, Guesses { count: 8, common: 0.5 });
        assert_eq!(whole, cost.seconds(12, 12));
        cost.mixtures = vec![Mixture::even(128, 8, Part { streamed_bytes: 10 << 20, weights: 5 << 20 }); 3];
        let with = |count, common| cost.seconds_with(1, 1, Guesses { count, common });
        let (alone, alike, half, strange) = (with(0, 0.0), with(8, 1.0), with(8, 0.5), with(8, 0.0));
        assert!(alone < alike && alike < half && half < strange, "{alone} {alike} {half} {strange}");
        // The first strangers bring most.
        assert!(with(1, 0.0) - alone > with(64, 0.0) - with(63, 0.0));
        for rows in [1.0, 2.5, 40.0] {
            let used: f64 = cost.mixtures.iter().map(|mixture| mixture.used(rows)).sum();
            let found = cost.independent_rows(used.round() as u64).unwrap();
            assert!((found / rows - 1.0).abs() < 0.05, "{rows} {found}");
        }
        assert_eq!((cost.independent_rows(0), cost.independent_rows(400)), (None, None));
    }

    #[test]
    fn the_longer_of_reading_and_computing_counts() {
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.02, "{a} {b}");
        let streamed = cost(1_000_000_000);
        for (rows, logit_rows, seconds) in
            [(1, 1, 1.0), (8, 8, 1.0), (256, 256, 2.577), (512, 512, 5.12), (128, 1, 1.052), (512, 0, 2.56)]
        {
            near(streamed.seconds(rows, logit_rows), seconds);
        }
        near(streamed.seconds(99, 99), 1.19);
        near(streamed.at_read_rate(5e8).seconds(50, 50), 2.0);
        near(cost(0).seconds(1, 1), 0.1);
        near(cost(0).seconds(68, 68), 0.7);
    }

    #[test]
    fn the_knee_is_where_computing_takes_as_long() {
        assert!((98..=99).contains(&cost(1_000_000_000).knee()), "{}", cost(1_000_000_000).knee());
        assert_eq!(cost(0).knee(), 1);
    }
}
