//! Results as Python's values. Arrays of numbers go as numpy's, over the memory that the engine wrote them to.

use numpy::{Element, IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use aerostat::{Completion, FinishReason, Outcome, Score, StopReason, TokenLogprobs, TopK};

use crate::error::class;

/// `[n]`, without a copy.
pub(crate) fn array<T: Element>(py: Python<'_>, values: Vec<T>) -> PyResult<Bound<'_, PyArray1<T>>> {
    // The crate takes it for granted that numpy can be imported; that it cannot is the caller's to know.
    py.import("numpy")?;
    Ok(values.into_pyarray(py))
}

/// A result as `(kind, members)`.
pub(crate) fn outcome<'py>(
    py: Python<'py>,
    outcome: Outcome,
) -> PyResult<(&'static str, Bound<'py, PyDict>)> {
    let members = PyDict::new(py);
    let kind = match outcome {
        Outcome::Completion(answer) => {
            completion(&members, answer)?;
            "completion"
        }
        Outcome::Score(Score { logprobs, logits_last, .. }) => {
            members.set_item("logprobs", logprobs)?;
            members.set_item("logits_last", logits_last.map(|l| array(py, l)).transpose()?)?;
            "score"
        }
        Outcome::TopK(TopK { k, from, ids: tokens, logprobs, .. }) => {
            members.set_item("k", k)?;
            members.set_item("from", from)?;
            members.set_item("ids", array(py, tokens)?)?;
            members.set_item("logprobs", array(py, logprobs)?)?;
            "topk"
        }
        Outcome::Hidden(mut vectors) => {
            members.set_item("rows", vectors.len())?;
            let values = match vectors.len() {
                1 => vectors.swap_remove(0),
                _ => vectors.concat(),
            };
            members.set_item("values", array(py, values)?)?;
            "hidden"
        }
        Outcome::Given => "given",
        Outcome::Failed(error) => {
            members.set_item("class", class(error.kind()))?;
            members.set_item("message", error.to_string())?;
            "failed"
        }
    };
    Ok((kind, members))
}

fn completion(members: &Bound<'_, PyDict>, answer: Completion) -> PyResult<()> {
    let reason = match answer.finish_reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Interrupted => "interrupted",
    };
    members.set_item("token_ids", answer.token_ids)?;
    members.set_item("text", answer.text)?;
    members.set_item("finish_reason", reason)?;
    match answer.stop_reason {
        None => members.set_item("stop_reason", members.py().None())?,
        Some(StopReason::Text(text)) => members.set_item("stop_reason", text)?,
        Some(StopReason::Token(token)) => members.set_item("stop_reason", token)?,
    }
    members.set_item("logprobs", answer.logprobs)?;
    members.set_item("ranks", answer.ranks)?;
    let prompt =
        answer.prompt_logprobs.map(|all| all.into_iter().map(|at| at.map(ranked)).collect::<Vec<_>>());
    members.set_item("prompt_logprobs", prompt)?;
    members.set_item("top_logprobs", answer.top_logprobs)
}

/// A token's log-probability, its rank, and the likeliest in its place: `(of the token, rank, [(id, of it), …])`.
type Ranked = (f32, u32, Vec<(u32, f32)>);

fn ranked(at: TokenLogprobs) -> Ranked {
    (at.logprob, at.rank, at.top)
}

/// Log-probabilities where tokens were chosen.
pub(crate) fn logprobs(values: Vec<TokenLogprobs>) -> Vec<Ranked> {
    values.into_iter().map(ranked).collect()
}
