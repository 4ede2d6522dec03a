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
        let read = self.read_bytes(rows, logit_rows) / self.read_bytes_per_second;
        let compute = self.computing(rows, logit_rows);
        (read.powi(4) + compute.powi(4)).sqrt().sqrt()
    }

    /// Bytes that a sweep is expected to read.
    pub fn read_bytes(&self, rows: usize, logit_rows: usize) -> f64 {
        let head = if logit_rows > 0 { self.head.streamed_bytes } else { 0 };
        let experts: f64 = self.mixtures.iter().map(|m| m.read(rows) * m.each.streamed_bytes as f64).sum();
        (self.blocks.streamed_bytes + head) as f64 + experts
    }

    /// Whether there are experts.
    pub(crate) fn has_experts(&self) -> bool {
        !self.mixtures.is_empty()
    }

    /// Stored bytes of all experts that do not stay in memory.
    pub(crate) fn expert_bytes(&self) -> u64 {
        self.mixtures.iter().map(Mixture::streamed_bytes).sum()
    }

    /// Seconds of computing in a sweep.
    fn computing(&self, rows: usize, logit_rows: usize) -> f64 {
        let experts =
            |m: &Mixture| m.each.weights as f64 * m.used(rows) * self.per_weight(m.rows_each(rows).max(1.0));
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
            self.computing(rows, rows) <= fixed.max(read)
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
