//! What guessing brings: the same answers with and without, in turns.

use std::time::Instant;

use serde::Serialize;

use super::Stoppable;
use crate::generate;
use crate::observe::Observer;
use crate::{Completion, Engine, Error, ErrorKind, ModelFiles, Options, Request};

/// One prompt, answered with guesses and without.
#[derive(Clone, Debug, Serialize)]
pub struct SpeculatePoint {
    /// The kind of prompt, as the caller names it.
    pub task: String,
    /// Tokens of the answer.
    pub tokens: usize,
    /// The answer holds some 32 tokens twice: what repeats itself is easily guessed.
    pub loops: bool,
    /// Sweeps that brought tokens, without guesses and with.
    pub sweeps: (u64, u64),
    /// Wall time of these answers, their prompts read before, without guesses and with.
    pub seconds: (f64, f64),
    /// Rows of guesses.
    pub drafted: u64,
    /// Those that were right.
    pub accepted: u64,
}

/// Answers each request twice and compares: first without guesses, then with, every second one the other way round. Nothing is
/// remembered from one request to the next but how often guesses were right.
///
/// # Errors
/// Those of [`Engine::open`] and [`Engine::generate`]; [`ErrorKind::Defect`] if two answers differ.
pub fn speculate(
    files: &ModelFiles,
    options: &Options,
    requests: &[(String, Request)],
    observer: &mut dyn Observer,
) -> Result<Vec<SpeculatePoint>, Error> {
    let mut need = crate::Need::none();
    for (_, request) in requests {
        let mut one = generate::need(std::slice::from_ref(request));
        std::mem::swap(&mut need, &mut one);
        need.longer(&one);
    }
    let mut engine = Engine::open(files, options, &need, observer)?;
    let mut points = Vec::new();
    for (number, (task, request)) in requests.iter().enumerate() {
        // Its prompt is in the cache from here on.
        one(&mut engine, &Request { max_new_tokens: 1, ..request.clone() }, false, observer)?;
        let mut turns = [false, true];
        turns.rotate_left(number % 2);
        let mut all = Vec::new();
        for guesses in turns {
            all.push((guesses, one(&mut engine, request, guesses, observer)?));
        }
        all.sort_by_key(|(guesses, _)| *guesses);
        let [(_, without), (_, with)] = &all[..] else { return Err(differ(number)) };
        if without.answer.token_ids != with.answer.token_ids || without.answer.text != with.answer.text {
            return Err(differ(number));
        }
        points.push(SpeculatePoint {
            task: task.clone(),
            tokens: with.answer.token_ids.len(),
            loops: loops(&with.answer.token_ids),
            sweeps: (without.sweeps, with.sweeps),
            seconds: (without.seconds, with.seconds),
            drafted: with.drafted,
            accepted: with.accepted,
        });
    }
    Ok(points)
}

/// An answer and what it took.
struct Taken {
    answer: Completion,
    sweeps: u64,
    seconds: f64,
    drafted: u64,
    accepted: u64,
}

fn one(
    engine: &mut Engine,
    request: &Request,
    guesses: bool,
    observer: &mut dyn Observer,
) -> Result<Taken, Error> {
    engine.drafts.begin_anew(guesses);
    let counted = |engine: &Engine| {
        let clock = &engine.sweeper.clock;
        (clock.answered.1, clock.drafted, clock.accepted)
    };
    let (before, begun) = (counted(engine), Instant::now());
    let mut answers = engine.generate(std::slice::from_ref(request), None, &mut Stoppable(observer))?;
    let (after, seconds) = (counted(engine), begun.elapsed().as_secs_f64());
    if answers.interrupted {
        return Err(Error::interrupted());
    }
    let answer = answers.completions.pop().unwrap_or_else(|| Err(differ(0)))?;
    let (sweeps, drafted, accepted) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    Ok(Taken { answer, sweeps, seconds, drafted, accepted })
}

fn differ(number: usize) -> Error {
    Error::new(ErrorKind::Defect, format!("prompt {number}: guesses changed its answer"))
}

/// Whether some 32 tokens stand there twice.
fn loops(tokens: &[u32]) -> bool {
    let mut seen = std::collections::HashSet::new();
    !tokens.windows(32).all(|run| seen.insert(run))
}
