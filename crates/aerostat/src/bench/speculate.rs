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

/// Answers that are computed together where only their beginning is timed.
const TOGETHER: usize = 8;

/// Answers each request twice and compares: first without guesses, then with, every second one the other way round. Nothing is
/// remembered from one request to the next but how often guesses were right.
///
/// With `timed`, no more than so many tokens of each are answered alone without guesses, and the time of the others is taken to be
/// the same; what answers are compared with comes from a run of eight at a time. A sweep without guesses takes as long
/// for the first token as for the last where reading decides, and a hundred answers would take a night.
///
/// # Errors
/// Those of [`Engine::open`] and [`Engine::generate`]; [`ErrorKind::Defect`] if two answers differ.
pub fn speculate(
    files: &ModelFiles,
    options: &Options,
    requests: &[(String, Request)],
    timed: Option<usize>,
    observer: &mut dyn Observer,
) -> Result<Vec<SpeculatePoint>, Error> {
    let mut need = crate::Need::none();
    for (_, request) in requests {
        let mut one = generate::need(std::slice::from_ref(request));
        std::mem::swap(&mut need, &mut one);
        need.longer(&one);
    }
    if timed.is_some() {
        need = crate::Need::many(TOGETHER.min(requests.len()), need.positions_max());
    }
    let mut engine = Engine::open(files, options, &need, observer)?;
    let together = timed.map(|_| together(&mut engine, requests, observer)).transpose()?;
    let mut points = Vec::new();
    for (number, (task, request)) in requests.iter().enumerate() {
        // Its prompt is in the cache from here on.
        one(&mut engine, &Request { max_new_tokens: 1, ..request.clone() }, false, observer)?;
        let mut turns = [false, true];
        turns.rotate_left(number % 2);
        let short = Request {
            max_new_tokens: request.max_new_tokens.min(timed.unwrap_or(usize::MAX)),
            ..request.clone()
        };
        let mut all = Vec::new();
        for guesses in turns {
            let request = if guesses { request } else { &short };
            all.push((guesses, one(&mut engine, request, guesses, observer)?));
        }
        all.sort_by_key(|(guesses, _)| *guesses);
        let [(_, without), (_, with)] = &mut all[..] else { return Err(differ(number)) };
        let whole = together.as_ref().map_or(&without.answer.token_ids, |all| &all[number]);
        if *whole != with.answer.token_ids || !whole.starts_with(&without.answer.token_ids) {
            return Err(differ(number));
        }
        let part = whole.len() as f64 / without.answer.token_ids.len().max(1) as f64;
        if part > 1.0 {
            (without.seconds, without.sweeps) = (without.seconds * part, whole.len() as u64);
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

/// The tokens of all answers, without guesses, some of them computed together.
fn together(
    engine: &mut Engine,
    requests: &[(String, Request)],
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<u32>>, Error> {
    engine.drafts.begin_anew(false);
    let requests: Vec<Request> = requests.iter().map(|(_, request)| request.clone()).collect();
    let answers = engine.generate(&requests, None, &mut Stoppable(observer))?;
    match answers.interrupted {
        true => Err(Error::interrupted()),
        false => answers.completions.into_iter().map(|answer| Ok(answer?.token_ids)).collect(),
    }
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
