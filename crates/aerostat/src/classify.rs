//! Choosing among labels by how likely the model finds them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::Engine;
use crate::observe::Observer;
use crate::run::{Outcome, Request, RunEnd, Want};
use crate::{Error, ErrorKind, Need, Score};

/// A text and what may follow it.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// The text; at least one token.
    pub prefix: Vec<u32>,
    /// Its labels, each of at least one token.
    pub labels: Vec<Vec<u32>>,
}

/// How labels are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// By their log-probabilities. Long labels lose.
    #[default]
    Sum,
    /// By their log-probabilities for each token.
    Mean,
    /// By how much likelier the text makes them than this one does, which says nothing about it ("Answer:"): labels that
    /// are likely anyway do not win for that.
    Calibrated(Vec<u32>),
}

/// What was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Classification {
    /// The label of the highest score; of equals the first.
    pub best: usize,
    /// For each label, by the measure.
    pub scores: Vec<f64>,
    /// For each label, the log-probability of each of its tokens.
    pub logprobs: Vec<Vec<f32>>,
}

/// What the plan must provide for these texts and labels.
pub fn demand(items: &[Choices], measure: &Measure) -> Need {
    let mut need = Need::none();
    for request in requests(items, measure) {
        need.add(&request);
    }
    need
}

impl Engine {
    /// Chooses a label for each text. What labels of a text share is computed once, and they ride on one sweep as far as
    /// its rows allow.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for empty texts, texts without labels, empty labels, or token ids outside the vocabulary;
    /// [`ErrorKind::Interrupted`] if the observer asked to stop; those of reading and computing.
    pub fn classify(
        &mut self,
        items: &[Choices],
        measure: &Measure,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Classification>, Error> {
        let empty = |item: &Choices| item.labels.is_empty() || item.labels.iter().any(Vec::is_empty);
        if let Some(bad) = items.iter().position(empty) {
            let message = format!("text {bad} has no labels, or one of them has no tokens");
            return Err(Error::new(ErrorKind::Usage, message));
        }
        if *measure == Measure::Calibrated(Vec::new()) {
            return Err(Error::new(ErrorKind::Usage, "the text to calibrate with is empty"));
        }
        let requests = requests(items, measure);
        let (outcomes, end) = self.run_list(requests.len(), &|i| requests[i].clone(), None, observer)?;
        if end == RunEnd::Interrupted {
            return Err(Error::interrupted());
        }
        let mut scores = outcomes.into_iter().filter_map(|outcome| match outcome {
            Some(Outcome::Score(Score { logprobs, .. })) => Some(logprobs.into_iter().flatten().collect()),
            _ => None,
        });
        let mut take = |count: usize| -> Vec<Vec<f32>> { scores.by_ref().take(count).collect() };
        let found: Vec<Vec<Vec<f32>>> = items.iter().map(|item| take(item.labels.len())).collect();
        let plain = neutral(items, measure);
        let plain: BTreeMap<&[u32], f64> =
            plain.iter().copied().zip(take(plain.len()).iter().map(|l| sum(l))).collect();
        Ok(items.iter().zip(found).map(|(item, logprobs)| choose(item, logprobs, measure, &plain)).collect())
    }
}

/// All labels of all texts, then each label once after the text to calibrate with.
fn requests(items: &[Choices], measure: &Measure) -> Vec<Request> {
    let request = |prefix: &[u32], label: &[u32]| Request {
        token_ids: [prefix, label].concat(),
        want: Want::Score { from: prefix.len(), logits_last: false },
        ..Request::default()
    };
    let given = items.iter().flat_map(|item| item.labels.iter().map(|label| request(&item.prefix, label)));
    let mut all: Vec<Request> = given.collect();
    if let Measure::Calibrated(text) = measure {
        all.extend(neutral(items, measure).iter().map(|label| request(text, label)));
    }
    all
}

/// Each label once, if there is something to calibrate.
fn neutral<'a>(items: &'a [Choices], measure: &Measure) -> Vec<&'a [u32]> {
    let Measure::Calibrated(_) = measure else { return Vec::new() };
    let mut labels: Vec<&[u32]> = items.iter().flat_map(|item| &item.labels).map(Vec::as_slice).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

fn sum(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|l| f64::from(*l)).sum()
}

fn choose(
    item: &Choices,
    logprobs: Vec<Vec<f32>>,
    measure: &Measure,
    plain: &BTreeMap<&[u32], f64>,
) -> Classification {
    let score = |(label, logprobs): (&Vec<u32>, &Vec<f32>)| match measure {
        Measure::Sum => sum(logprobs),
        Measure::Mean => sum(logprobs) / logprobs.len().max(1) as f64,
        Measure::Calibrated(_) => sum(logprobs) - plain.get(label.as_slice()).copied().unwrap_or(0.0),
    };
    let scores: Vec<f64> = item.labels.iter().zip(&logprobs).map(score).collect();
    let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
    Classification { best, scores, logprobs }
}
