//! From logits to tokens and log-probabilities. All of it on the host, in an order that depends on nothing else.

use std::cmp::Ordering;
use std::sync::Arc;

use aerostat_model::angle;

use crate::hook::SharedHook;
use crate::request::{Constraint, TokenLogprobs};
use crate::rules::{self, Place, TokenRules};
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
    pub logit_bias: Arc<[(u32, f32)]>,
    /// Which tokens may come; shared, since answers to one prompt have the same.
    pub rules: Arc<TokenRules>,
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

    /// Numbers that are none, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self {
            temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty, ..
        } = self;
        let cuts = [("temperature", temperature), ("top_p", top_p), ("min_p", min_p)];
        let penalties = [
            ("repetition_penalty", repetition_penalty),
            ("frequency_penalty", frequency_penalty),
            ("presence_penalty", presence_penalty),
        ];
        match cuts.iter().chain(&penalties).find(|(_, number)| number.is_nan()) {
            Some((name, _)) => Err(format!("`{name}` is not a number")),
            None => Ok(()),
        }
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
            logit_bias: Arc::default(),
            rules: Arc::default(),
            seed: 0,
        }
    }
}

/// `ln Σ exp(logit)`, in f64.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| weight(*l, max)).sum();
    f64::from(max) + angle::ln(sum)
}

/// `exp(logit - max)`. Infinite logits are as likely as each other, and all others impossible beside them.
fn weight(logit: f32, max: f32) -> f64 {
    let below = if logit == max { 0.0 } else { logit - max };
    angle::exp(f64::from(below).max(-700.0))
}

/// A log-probability, of the [`log_sum_exp`] of all.
fn logprob(logit: f32, sum: f64) -> f32 {
    // Infinite logits leave nothing to the others.
    if sum.is_infinite() && f64::from(logit) == sum { 0.0 } else { (f64::from(logit) - sum) as f32 }
}

/// The log-probability of a token.
pub(crate) fn log_probability(logits: &[f32], token: u32) -> f32 {
    logits.get(token as usize).map_or(f32::NEG_INFINITY, |l| logprob(*l, log_sum_exp(logits)))
}

/// Whether some logit is no number.
pub(crate) fn has_nan(logits: &[f32]) -> bool {
    // Without an early end, so that it runs in vectors.
    logits.iter().fold(false, |nan, l| nan | l.is_nan())
}

/// The log-probability of a token and its rank, and the `top` likeliest with theirs.
pub(crate) fn token_logprobs(logits: &[f32], token: u32, top: usize, sampler: &mut Sampler) -> TokenLogprobs {
    let sum = log_sum_exp(logits);
    let own = logits.get(token as usize).copied();
    TokenLogprobs {
        logprob: own.map_or(f32::NEG_INFINITY, |l| logprob(l, sum)),
        rank: own.map_or(0, |own| logits.iter().filter(|l| **l >= own).count() as u32),
        top: sampler.top(logits, top).iter().map(|(l, id)| (*id, logprob(*l, sum))).collect(),
    }
}

/// What a token is chosen for, and how.
pub(crate) struct Choice<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) sampling: &'a Sampling,
    /// Tells apart several answers to one request.
    pub(crate) stream: u64,
    pub(crate) hook: Option<&'a SharedHook>,
}

/// Chooses tokens; holds the scratch for it.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    candidates: Vec<(f32, u32)>,
    changed: Vec<f32>,
    seen: Vec<u32>,
}

impl Sampler {
    /// The token that comes next: logits are masked by the grammar, then changed by biases, penalties, rules and the hook, in
    /// this order, then divided by the temperature and cut.
    pub(crate) fn choose(
        &mut self,
        logits: &[f32],
        choice: &Choice<'_>,
        mask: Option<&mut (dyn Constraint + 'static)>,
    ) -> Result<u32, Error> {
        let Choice { sampling, hook, .. } = choice;
        if mask.is_none() && hook.is_none() && !sampling.adjusts() && sampling.rules.is_empty() {
            return Ok(self.choose_of(logits, choice));
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        changed.extend_from_slice(logits);
        let token = self.change(&mut changed, choice, mask).map(|()| self.choose_of(&changed, choice));
        let told = token.and_then(|token| self.tell(&changed, choice).map(|()| token));
        self.changed = changed;
        told
    }

    /// Applies all that changes logits.
    fn change(
        &mut self,
        logits: &mut [f32],
        choice: &Choice<'_>,
        mask: Option<&mut (dyn Constraint + 'static)>,
    ) -> Result<(), Error> {
        let Choice { place, sampling, hook, .. } = choice;
        let changes = mask.is_some() || hook.is_some() || !sampling.rules.is_empty();
        if let Some(constraint) = mask {
            constraint.mask(logits)?;
        }
        if sampling.adjusts() {
            adjust(logits, (place.tokens, place.prompt), sampling, &mut self.seen);
        }
        if !sampling.rules.is_empty() {
            sampling.rules.apply(place, logits);
        }
        if let Some(hook) = hook {
            hook.lock().process(place.tokens, logits)?;
            if has_nan(logits) {
                let message = "a processor of logits gave something that is no number";
                return Err(Error::new(ErrorKind::Usage, message));
            }
        }
        match changes && logits.iter().all(|l| *l == f32::NEG_INFINITY) {
            true => Err(rules::no_token()),
            false => Ok(()),
        }
    }

    fn choose_of(&mut self, logits: &[f32], choice: &Choice<'_>) -> u32 {
        let Choice { place, sampling, stream, .. } = choice;
        if sampling.temperature <= 0.0 {
            return match sampling.adjusts() {
                true => (0..).zip(logits).map(|(i, l)| (*l, i)).min_by(likelier).map_or(0, |(_, id)| id),
                false => largest(logits),
            };
        }
        self.cool(logits, sampling);
        draw(&mut self.candidates, sampling, uniform(sampling.seed, *stream, place.tokens.len() as u64))
    }

    /// Gathers the candidates: logits divided by the temperature, cut to the likeliest `top_k`, in order of their ids.
    fn cool(&mut self, logits: &[f32], sampling: &Sampling) {
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().zip(0..).map(|(l, i)| (*l, i)));
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Where the largest overflows, what counts is how far others are below it.
        let overflows = !(max / sampling.temperature).is_finite();
        for (logit, _) in candidates.iter_mut() {
            if overflows {
                *logit = if *logit == max { 0.0 } else { *logit - max };
            }
            *logit /= sampling.temperature;
        }
        if sampling.top_k > 0 && sampling.top_k < candidates.len() {
            candidates.select_nth_unstable_by(sampling.top_k - 1, likelier);
            candidates.truncate(sampling.top_k);
            candidates.sort_unstable_by_key(|(_, id)| *id);
        }
    }

    /// Gives the hook what the token was chosen from.
    fn tell(&mut self, logits: &[f32], choice: &Choice<'_>) -> Result<(), Error> {
        let Some(hook) = choice.hook.filter(|hook| hook.lock().wants_processed()) else { return Ok(()) };
        let position = choice.place.tokens.len() - 1;
        if choice.sampling.temperature <= 0.0 {
            return hook.lock().processed(position, logits);
        }
        self.cool(logits, choice.sampling);
        let mut cut = vec![f32::NEG_INFINITY; logits.len()];
        let (mut sorted, kept, _) = nucleus(&mut self.candidates, choice.sampling);
        for i in 0..kept {
            if let Some((logit, id)) = sorted.get(i) {
                cut[id as usize] = logit;
            }
        }
        hook.lock().processed(position, &cut)
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
fn adjust(logits: &mut [f32], (tokens, prompt): (&[u32], usize), sampling: &Sampling, seen: &mut Vec<u32>) {
    for &(token, bias) in sampling.logit_bias.iter() {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
    let mut each = |tokens: &[u32], change: &dyn Fn(f32, usize) -> f32| {
        seen.clear();
        seen.extend_from_slice(tokens);
        seen.sort_unstable();
        for same in seen.chunk_by(|a, b| a == b) {
            if let Some(logit) = logits.get_mut(same[0] as usize) {
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
    let (mut sorted, kept, mass) = nucleus(candidates, sampling);
    let mut left = uniform * mass;
    for i in 0..kept {
        let Some((logit, id)) = sorted.get(i) else { break };
        left -= weight(logit, max);
        if left < 0.0 {
            return id;
        }
    }
    sorted.get(kept.saturating_sub(1)).map_or(0, |(_, id)| id)
}

/// How many of the likeliest candidates `top_p` and `min_p` leave, and the sum of their weights.
fn nucleus<'a>(candidates: &'a mut [(f32, u32)], sampling: &Sampling) -> (Sorted<'a>, usize, f64) {
    let max = candidates.iter().map(|c| c.0).fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = candidates.iter().map(|c| weight(c.0, max)).sum();
    let mut sorted = Sorted { candidates, done: 0 };
    let mut mass = total;
    let mut kept = sorted.candidates.len();
    if sampling.top_p < 1.0 || sampling.min_p > 0.0 {
        (kept, mass) = (0, 0.0);
        while let Some((logit, _)) = sorted.get(kept) {
            let below_top_p = mass / total >= f64::from(sampling.top_p);
            if kept > 0 && (below_top_p || weight(logit, max) < f64::from(sampling.min_p)) {
                break;
            }
            mass += weight(logit, max);
            kept += 1;
        }
    }
    (sorted, kept, mass)
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

    fn choice<'a>(tokens: &'a [u32], prompt: usize, sampling: &'a Sampling) -> Choice<'a> {
        let place = Place { tokens, prompt, last: false, ends: &[], constrained: false };
        Choice { place, sampling, stream: 0, hook: None }
    }

    fn choose(logits: &[f32], tokens: &[u32], sampling: &Sampling) -> u32 {
        Sampler::default().choose(logits, &choice(tokens, 0, sampling), None).unwrap()
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
            sampler.choose(&[3.0, 2.5, 2.0], &choice(&[0, 0, 1, 1, 2], 2, sampling), None).unwrap()
        };
        let plain = Sampling::default();
        assert_eq!(choose(&Sampling { logit_bias: [(2, 1.5)].into(), ..plain.clone() }), 2);
        assert_eq!(choose(&Sampling { logit_bias: [(0, -100.0)].into(), ..plain.clone() }), 1);
        // The prompt's two zeros do not count; the answer holds 1 twice and 2 once.
        let frequency =
            |f| Sampling { frequency_penalty: f, logit_bias: [(0, -0.9)].into(), ..plain.clone() };
        assert_eq!(choose(&frequency(0.1)), 1);
        assert_eq!(choose(&frequency(0.3)), 0);
        let presence = |p| Sampling { presence_penalty: p, logit_bias: [(0, -0.9)].into(), ..plain.clone() };
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

    /// A temperature of 1e-38 made every logit infinite, and the text random.
    #[test]
    fn temperatures_and_logits_of_any_size_give_the_right_tokens() {
        for temperature in [1e-38, f32::MIN_POSITIVE, 1e-45] {
            for (logits, want) in [
                ([-5.0, 30.0, 29.0, 1.0], 1),
                ([-50.0, -31.0, -30.0, -41.0], 2),
                ([0.0, -1e-3, -2.0, -3.0], 0),
                ([f32::MIN, -1e38, f32::MAX, 3e38], 2),
                ([f32::NEG_INFINITY, -1.0, f32::NEG_INFINITY, f32::NEG_INFINITY], 1),
                ([f32::MAX, f32::INFINITY, 0.0, f32::NEG_INFINITY], 1),
            ] {
                for top_k in [0, 1, 3] {
                    for seed in 0..50 {
                        let sampling = Sampling { temperature, top_k, seed, ..Sampling::default() };
                        assert_eq!(choose(&logits, &[], &sampling), want, "{logits:?} at {temperature}");
                    }
                }
            }
        }
        // As likely as each other, and everything else impossible.
        let seen: std::collections::BTreeSet<u32> = (0..50)
            .map(|seed| Sampling { temperature: 1.0, seed, top_p: 0.9, ..Sampling::default() })
            .map(|sampling| choose(&[f32::INFINITY, 3.0, f32::INFINITY, f32::MAX], &[], &sampling))
            .collect();
        assert_eq!(seen, [0, 2].into());
        let hot = Sampling { temperature: f32::INFINITY, ..Sampling::default() };
        assert!(choose(&[1.0, 2.0], &[], &hot) < 2);
        assert!(Sampling { temperature: f32::NAN, ..Sampling::default() }.check().is_err());
    }

    #[test]
    fn log_probabilities_of_infinite_logits_are_numbers() {
        let logits = [f32::INFINITY, 2.0, f32::NEG_INFINITY];
        assert_eq!(
            [0, 1, 2].map(|t| log_probability(&logits, t)),
            [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]
        );
        let logits = [f32::MAX, f32::MIN];
        assert_eq!(log_probability(&logits, 0), 0.0);
        assert!(log_probability(&logits, 1) < -1e38);
    }

    /// Tokens that are as likely stand beside each other: a rank counts them all, as vLLM's does.
    #[test]
    fn ranks_count_the_tokens_that_are_as_likely() {
        let rank = |token| token_logprobs(&[0.5, 2.0, -1.0, 2.0], token, 0, &mut Sampler::default()).rank;
        assert_eq!([0, 1, 2, 3].map(rank), [3, 2, 4, 2]);
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 20.0).collect();
        let sum: f64 = (0..1000).map(|i| f64::from(log_probability(&logits, i)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
}
