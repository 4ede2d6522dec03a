//! From logits to tokens and log-probabilities. All of it on the host, in an order that depends on nothing else.

use std::cmp::Ordering;

use aerostat_model::angle;

use crate::request::{Constraint, TokenLogprobs};
use crate::{Error, ErrorKind};

/// How a token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: the most likely token; else logits are divided by this.
    pub temperature: f32,
    /// Only the `k` most likely tokens; 0: all.
    pub top_k: usize,
    /// The fewest most likely tokens whose probabilities reach this; 1: all.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the most likely one; 0: all.
    pub min_p: f32,
    /// Logits of tokens already present are divided by this (multiplied if negative); 1: no penalty.
    pub repetition_penalty: f32,
    /// Taken from the logit of a token for each time the answer holds it; 0: nothing.
    pub frequency_penalty: f32,
    /// Taken from the logit of a token that the answer holds; 0: nothing.
    pub presence_penalty: f32,
    /// Added to the logits of tokens, before penalties.
    pub logit_bias: Vec<(u32, f32)>,
    /// Of the generator. The same seed gives the same text, alone or among others.
    pub seed: u64,
}

impl Sampling {
    /// Logits are changed before a token is chosen.
    fn adjusts(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
            || !self.logit_bias.is_empty()
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// `ln Σ exp(logit)`, in f64.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| angle::exp(f64::from(l - max).max(-700.0))).sum();
    f64::from(max) + angle::ln(sum)
}

/// The log-probability of a token.
pub(crate) fn log_probability(logits: &[f32], token: u32) -> f32 {
    logits.get(token as usize).map_or(f32::NEG_INFINITY, |l| (f64::from(*l) - log_sum_exp(logits)) as f32)
}

/// Whether some logit is no number.
pub(crate) fn has_nan(logits: &[f32]) -> bool {
    // Without an early end, so that it runs in vectors.
    logits.iter().fold(false, |nan, l| nan | l.is_nan())
}

/// The log-probability of a token, and the `top` likeliest with theirs.
pub(crate) fn token_logprobs(logits: &[f32], token: u32, top: usize, sampler: &mut Sampler) -> TokenLogprobs {
    let sum = log_sum_exp(logits);
    let logprob = |logit: f32| (f64::from(logit) - sum) as f32;
    TokenLogprobs {
        logprob: logits.get(token as usize).map_or(f32::NEG_INFINITY, |l| logprob(*l)),
        top: sampler.top(logits, top).iter().map(|(l, id)| (*id, logprob(*l))).collect(),
    }
}

/// Chooses tokens; holds the scratch for it.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    candidates: Vec<(f32, u32)>,
    masked: Vec<f32>,
    seen: Vec<u32>,
}

impl Sampler {
    /// The token that follows `tokens`, of which so many are the prompt. `stream` tells apart several answers to one
    /// request.
    pub(crate) fn choose(
        &mut self,
        logits: &[f32],
        (tokens, prompt): (&[u32], usize),
        sampling: &Sampling,
        stream: u64,
        mask: Option<&mut (dyn Constraint + 'static)>,
    ) -> Result<u32, Error> {
        let mut masked = std::mem::take(&mut self.masked);
        let logits = match mask {
            None => logits,
            Some(constraint) => {
                masked.clear();
                masked.extend_from_slice(logits);
                constraint.mask(&mut masked)?;
                if masked.iter().all(|l| *l == f32::NEG_INFINITY) {
                    return Err(Error::new(ErrorKind::Usage, "the grammar allows no token here"));
                }
                &masked
            }
        };
        let token = self.choose_of(logits, (tokens, prompt), sampling, stream);
        self.masked = masked;
        Ok(token)
    }

    fn choose_of(
        &mut self,
        logits: &[f32],
        (tokens, prompt): (&[u32], usize),
        sampling: &Sampling,
        stream: u64,
    ) -> u32 {
        if sampling.temperature <= 0.0 && !sampling.adjusts() {
            return largest(logits);
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().zip(0..).map(|(l, i)| (*l, i)));
        if sampling.adjusts() {
            adjust(candidates, (tokens, prompt), sampling, &mut self.seen);
        }
        if sampling.temperature <= 0.0 {
            return candidates.iter().copied().min_by(likelier).map_or(0, |(_, id)| id);
        }
        for (logit, _) in candidates.iter_mut() {
            *logit /= sampling.temperature;
        }
        if sampling.top_k > 0 && sampling.top_k < candidates.len() {
            candidates.select_nth_unstable_by(sampling.top_k - 1, likelier);
            candidates.truncate(sampling.top_k);
            candidates.sort_unstable_by_key(|(_, id)| *id);
        }
        draw(candidates, sampling, uniform(sampling.seed, stream, tokens.len() as u64))
    }

    /// The `count` largest logits, largest first.
    pub(crate) fn top(&mut self, logits: &[f32], count: usize) -> &[(f32, u32)] {
        let candidates = &mut self.candidates;
        candidates.clear();
        if count > 0 {
            candidates.extend(logits.iter().zip(0..).map(|(l, i)| (*l, i)));
            if count < candidates.len() {
                candidates.select_nth_unstable_by(count - 1, likelier);
                candidates.truncate(count);
            }
            candidates.sort_unstable_by(likelier);
        }
        candidates
    }
}

/// The first of the largest.
fn largest(logits: &[f32]) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    logits.iter().position(|l| *l >= max).unwrap_or(0) as u32
}

/// The likelier first; of equals the lower id.
fn likelier(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Applies biases, then penalties. `seen` is scratch.
fn adjust(
    candidates: &mut [(f32, u32)],
    (tokens, prompt): (&[u32], usize),
    sampling: &Sampling,
    seen: &mut Vec<u32>,
) {
    for &(token, bias) in &sampling.logit_bias {
        if let Some((logit, _)) = candidates.get_mut(token as usize) {
            *logit += bias;
        }
    }
    let mut each = |tokens: &[u32], change: &dyn Fn(f32, usize) -> f32| {
        seen.clear();
        seen.extend_from_slice(tokens);
        seen.sort_unstable();
        for same in seen.chunk_by(|a, b| a == b) {
            if let Some((logit, _)) = candidates.get_mut(same[0] as usize) {
                *logit = change(*logit, same.len());
            }
        }
    };
    let Sampling { repetition_penalty: repetition, frequency_penalty, presence_penalty, .. } = *sampling;
    if repetition != 1.0 {
        each(tokens, &|l, _| if l > 0.0 { l / repetition } else { l * repetition });
    }
    if frequency_penalty != 0.0 || presence_penalty != 0.0 {
        let answer = tokens.get(prompt..).unwrap_or_default();
        each(answer, &|l, times| l - times as f32 * frequency_penalty - presence_penalty);
    }
}

/// Draws from candidates in the order of their ids.
fn draw(candidates: &mut [(f32, u32)], sampling: &Sampling, uniform: f64) -> u32 {
    let max = candidates.iter().map(|c| c.0).fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| angle::exp(f64::from(logit - max).max(-700.0));
    let total: f64 = candidates.iter().map(|c| weight(c.0)).sum();
    let mut sorted = Sorted { candidates, done: 0 };
    let mut mass = total;
    let mut kept = sorted.candidates.len();
    if sampling.top_p < 1.0 || sampling.min_p > 0.0 {
        (kept, mass) = (0, 0.0);
        while let Some((logit, _)) = sorted.get(kept) {
            let below_top_p = mass / total >= f64::from(sampling.top_p);
            if kept > 0 && (below_top_p || weight(logit) < f64::from(sampling.min_p)) {
                break;
            }
            mass += weight(logit);
            kept += 1;
        }
    }
    let mut left = uniform * mass;
    for i in 0..kept {
        let Some((logit, id)) = sorted.get(i) else { break };
        left -= weight(logit);
        if left < 0.0 {
            return id;
        }
    }
    sorted.get(kept.saturating_sub(1)).map_or(0, |(_, id)| id)
}

/// Candidates, the likeliest first; sorted as far as they are looked at, since most draws need a few of many.
struct Sorted<'a> {
    candidates: &'a mut [(f32, u32)],
    done: usize,
}

impl Sorted<'_> {
    fn get(&mut self, i: usize) -> Option<(f32, u32)> {
        const FIRST: usize = 64;
        while i >= self.done && self.done < self.candidates.len() {
            let rest = &mut self.candidates[self.done..];
            let more = self.done.max(FIRST).min(rest.len());
            if more < rest.len() {
                rest.select_nth_unstable_by(more, likelier);
            }
            rest[..more].sort_unstable_by(likelier);
            self.done += more;
        }
        self.candidates.get(i).copied()
    }
}

/// A number in [0, 1) that depends on the seed, the stream and the position alone.
fn uniform(seed: u64, stream: u64, position: u64) -> f64 {
    let key = mix(mix(mix(seed) ^ stream) ^ position);
    (key >> 11) as f64 / (1u64 << 53) as f64
}

/// The finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(logits: &[f32], tokens: &[u32], sampling: &Sampling) -> u32 {
        Sampler::default().choose(logits, (tokens, 0), sampling, 0, None).unwrap()
    }

    #[test]
    fn greedy_takes_the_largest_and_of_equals_the_first() {
        assert_eq!(choose(&[0.0, 2.0, 2.0, -1.0], &[], &Sampling::default()), 1);
    }

    #[test]
    fn a_penalty_counts_a_repeated_token_once() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(choose(&[3.0, 2.0], &[0], &sampling), 1);
        assert_eq!(choose(&[5.0, 2.0], &[0, 0, 0], &sampling), 0);
        assert_eq!(choose(&[-1.0, -1.5], &[0], &sampling), 1);
    }

    #[test]
    fn biases_are_added_and_the_answers_own_tokens_are_penalised_by_count() {
        let mut sampler = Sampler::default();
        let mut choose = |sampling: &Sampling| {
            sampler.choose(&[3.0, 2.5, 2.0], (&[0, 0, 1, 1, 2], 2), sampling, 0, None).unwrap()
        };
        let plain = Sampling::default();
        assert_eq!(choose(&Sampling { logit_bias: vec![(2, 1.5)], ..plain.clone() }), 2);
        assert_eq!(choose(&Sampling { logit_bias: vec![(0, -100.0)], ..plain.clone() }), 1);
        // The prompt's two zeros do not count; the answer holds 1 twice and 2 once.
        let frequency = |f| Sampling { frequency_penalty: f, logit_bias: vec![(0, -0.9)], ..plain.clone() };
        assert_eq!(choose(&frequency(0.1)), 1);
        assert_eq!(choose(&frequency(0.3)), 0);
        let presence = |p| Sampling { presence_penalty: p, logit_bias: vec![(0, -0.9)], ..plain.clone() };
        assert_eq!(choose(&presence(0.3)), 1);
        assert_eq!(choose(&presence(0.5)), 0);
    }

    #[test]
    fn the_likeliest_tokens_come_in_order() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        let found = token_logprobs(&logits, 0, 3, &mut Sampler::default());
        assert_eq!(found.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 0]);
        assert_eq!((found.top[2].1, found.top[0].1), (found.logprob, log_probability(&logits, 1)));
        assert_eq!(token_logprobs(&logits, 0, 9, &mut Sampler::default()).top.len(), 4);
    }

    #[test]
    fn draws_follow_the_distribution_and_its_cuts() {
        let logits = [1.0f32, 0.0, -1.0, -2.0];
        let count = |sampling: &Sampling| {
            let mut counts = [0usize; 4];
            for position in 0..20_000 {
                counts[choose(
                    &logits,
                    &vec![0; position % 50],
                    &Sampling { seed: position as u64, ..sampling.clone() },
                ) as usize] += 1;
            }
            counts.map(|n| n as f64 / 20_000.0)
        };
        let all = count(&Sampling { temperature: 1.0, ..Sampling::default() });
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for (found, logit) in all.iter().zip(logits) {
            assert!((found - f64::from(logit).exp() / total).abs() < 0.012, "{all:?}");
        }
        assert_eq!(count(&Sampling { temperature: 1.0, top_k: 2, ..Sampling::default() })[2..], [0.0, 0.0]);
        // 0.64, 0.24, 0.09, 0.03: two reach 0.8.
        assert_eq!(count(&Sampling { temperature: 1.0, top_p: 0.8, ..Sampling::default() })[2..], [0.0, 0.0]);
        let min_p = count(&Sampling { temperature: 1.0, min_p: 0.1, ..Sampling::default() });
        assert!(min_p[2] > 0.0 && min_p[3] == 0.0);
    }

    #[test]
    fn sorting_as_far_as_needed_is_sorting() {
        let mut candidates: Vec<(f32, u32)> = (0..1000).map(|i| ((i * 7919 % 500) as f32, i)).collect();
        let mut want = candidates.clone();
        want.sort_by(likelier);
        let mut sorted = Sorted { candidates: &mut candidates, done: 0 };
        for i in [0, 63, 64, 500, 999] {
            assert_eq!(sorted.get(i), Some(want[i]));
            assert!(sorted.done <= (2 * i).max(64));
        }
        assert_eq!(sorted.get(1000), None);
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 20.0).collect();
        let sum: f64 = (0..1000).map(|i| f64::from(log_probability(&logits, i)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
}
