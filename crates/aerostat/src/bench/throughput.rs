//! Tokens per second of a prompt and of an answer, as a user meets them.

use std::time::Instant;

use serde::Serialize;

use super::{Stoppable, median};
use crate::generate;
use crate::observe::Observer;
use crate::{Draft, Engine, Error, ModelFiles, Options, Prefixes, Request};

/// How fast prompts are read or answers written.
#[derive(Clone, Debug, Serialize)]
pub struct ThroughputPoint {
    /// `prompt` or `generate`.
    pub test: &'static str,
    /// Tokens of each sequence.
    pub tokens: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// Tokens of all sequences over wall time, median over the rounds.
    pub tokens_per_second: f64,
    /// Slowest and fastest round.
    pub tokens_per_second_spread: (f64, f64),
    /// Weights kept in memory, as a share of all.
    pub pinned_fraction: f64,
    /// The process's peak resident set so far.
    pub memory_peak_bytes: u64,
}

/// What [`throughput`] measures.
#[derive(Clone, Copy, Debug)]
pub struct ThroughputSettings {
    /// Tokens of a prompt; 0 leaves prompts out.
    pub prompt: usize,
    /// Tokens of an answer to a prompt of one token; 0 leaves answers out.
    pub generate: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// How often each is measured.
    pub rounds: usize,
}

/// Reads prompts, and writes answers to prompts of one token; the two take turns.
///
/// # Errors
/// Those of [`Engine::open`] and [`Engine::generate`].
pub fn throughput(
    files: &ModelFiles,
    options: &Options,
    settings: ThroughputSettings,
    observer: &mut dyn Observer,
) -> Result<Vec<ThroughputPoint>, Error> {
    let requests = |prompt: usize, generate: usize| -> Vec<Request> {
        let token = |i: usize| (i * 7919 % files.spec.vocab) as u32;
        let request = |s: usize| Request {
            token_ids: (s..s + prompt).map(token).collect(),
            max_new_tokens: generate,
            ..Request::default()
        };
        (0..settings.sequences.max(1)).map(request).collect()
    };
    // A prompt's last row gives the first token of its answer, so a prompt of one token and an answer of n take n sweeps.
    let tests: Vec<(&'static str, usize, Vec<Request>)> = [
        ("prompt", settings.prompt, requests(settings.prompt, 1)),
        ("generate", settings.generate, requests(1, settings.generate)),
    ]
    .into_iter()
    .filter(|(_, tokens, _)| *tokens > 0)
    .collect();
    let need =
        generate::need(&tests.iter().flat_map(|(_, _, requests)| requests.clone()).collect::<Vec<_>>());
    // A prompt that was read before would be found again.
    // And answers of random prompts repeat themselves, which is easily guessed and is nobody's text.
    let options = Options { prefixes: Prefixes::Apart, draft: Draft::None, ..options.clone() };
    let mut engine = Engine::open(files, &options, &need, observer)?;
    let mut rates = vec![Vec::new(); tests.len()];
    // The first round warms up.
    for round in 0..settings.rounds.max(1) + 1 {
        for ((_, tokens, requests), rates) in tests.iter().zip(&mut rates) {
            let begun = Instant::now();
            if engine.generate(requests, None, &mut Stoppable(observer))?.interrupted {
                return Err(Error::interrupted());
            }
            if round > 0 {
                rates.push((tokens * requests.len()) as f64 / begun.elapsed().as_secs_f64());
            }
        }
    }
    let pinned_fraction = engine.current_plan().pinned_fraction(&files.spec);
    let point = |((test, tokens, requests), rates): ((&'static str, usize, Vec<Request>), Vec<f64>)| {
        let (tokens_per_second, tokens_per_second_spread) = median(rates);
        ThroughputPoint {
            test,
            tokens,
            sequences: requests.len(),
            tokens_per_second,
            tokens_per_second_spread,
            pinned_fraction,
            memory_peak_bytes: engine.stats().memory_peak_bytes,
        }
    };
    Ok(tests.into_iter().zip(rates).map(point).collect())
}
