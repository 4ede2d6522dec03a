//! Choosing among labels by how likely the model finds them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::Engine;
use crate::need::Need;
use crate::observe::Observer;
use crate::request::{Outcome, Request, Want};
use crate::{Error, ErrorKind};

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
pub fn need(items: &[Choices], measure: &Measure) -> Need {
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
    /// A text that is empty, has no labels or an empty one, or holds token ids outside the vocabulary has an error in its
    /// place.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the text to calibrate with is empty; [`ErrorKind::Interrupted`] if the
    /// observer asked to stop; those of reading and computing.
    pub fn classify(
        &mut self,
        items: &[Choices],
        measure: &Measure,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Result<Classification, Error>>, Error> {
        if *measure == Measure::Calibrated(Vec::new()) {
            return Err(Error::new(ErrorKind::Usage, "the text to calibrate with is empty"));
        }
        let requests = requests(items, measure);
        let scores =
            self.results(requests.len(), &|i| requests[i].clone(), observer, |outcome| match outcome {
                Outcome::Score(score) => Some(score.logprobs.into_iter().flatten().collect()),
                _ => None,
            })?;
        let mut scores = scores.into_iter();
        let mut take = |count: usize| -> Result<Vec<Vec<f32>>, Error> {
            // All of them, so that the next ones begin at the right place.
            let taken: Vec<_> = scores.by_ref().take(count).collect();
            taken.into_iter().collect()
        };
        let found: Vec<_> = items.iter().map(|item| take(usable(item).map_or(0, <[_]>::len))).collect();
        let mut plain = BTreeMap::new();
        for label in neutral(items, measure) {
            // A label that cannot be scored here cannot be scored after its texts either.
            if let Ok(logprobs) = take(1) {
                plain.insert(label, logprobs.iter().map(|l| sum(l)).sum::<f64>());
            }
        }
        let mut results = Vec::with_capacity(items.len());
        for (number, (item, logprobs)) in items.iter().zip(found).enumerate() {
            results.push(match usable(item) {
                Some(labels) => logprobs.and_then(|logprobs| {
                    let plain = |i: usize| plain.get(labels.get(i)?.as_slice()).copied();
                    Classification::choose(logprobs, measure, plain).ok_or_else(uncalibrated)
                }),
                None => {
                    let message =
                        format!("text {number} is empty, has no labels, or one of them has no tokens");
                    Err(Error::new(ErrorKind::Usage, message))
                }
            });
        }
        Ok(results)
    }
}

impl Classification {
    /// What is chosen by what each label's tokens are given; `plain` is what those of a label are given after the text to
    /// calibrate with. `None` where that is missing, or where there are no labels.
    pub fn choose(
        logprobs: Vec<Vec<f32>>,
        measure: &Measure,
        plain: impl Fn(usize) -> Option<f64>,
    ) -> Option<Self> {
        let score = |(i, logprobs): (usize, &Vec<f32>)| {
            Some(match measure {
                Measure::Sum => sum(logprobs),
                Measure::Mean => sum(logprobs) / logprobs.len().max(1) as f64,
                Measure::Calibrated(_) => sum(logprobs) - plain(i)?,
            })
        };
        let scores = logprobs.iter().enumerate().map(score).collect::<Option<Vec<f64>>>()?;
        scores.first()?;
        let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        Some(Self { best, scores, logprobs })
    }
}

fn uncalibrated() -> Error {
    Error::new(ErrorKind::Usage, "a label cannot be scored after the text to calibrate with")
}

/// The labels of a text, if it has tokens, and there are some that have tokens, too.
fn usable(item: &Choices) -> Option<&[Vec<u32>]> {
    let usable = !item.prefix.is_empty() && !item.labels.is_empty() && !item.labels.iter().any(Vec::is_empty);
    usable.then_some(item.labels.as_slice())
}

/// All labels of all texts, then each label once after the text to calibrate with.
fn requests(items: &[Choices], measure: &Measure) -> Vec<Request> {
    let request = |prefix: &[u32], label: &[u32]| Request {
        token_ids: [prefix, label].concat(),
        want: Want::Score { from: prefix.len(), logits_last: false },
        ..Request::default()
    };
    let labels = |item| usable(item).into_iter().flatten();
    let given = items.iter().flat_map(|item| labels(item).map(|label| request(&item.prefix, label)));
    let mut all: Vec<Request> = given.collect();
    if let Measure::Calibrated(text) = measure {
        all.extend(neutral(items, measure).iter().map(|label| request(text, label)));
    }
    all
}

/// Each label once, if there is something to calibrate.
fn neutral<'a>(items: &'a [Choices], measure: &Measure) -> Vec<&'a [u32]> {
    let Measure::Calibrated(_) = measure else { return Vec::new() };
    let mut labels: Vec<&[u32]> = items.iter().filter_map(usable).flatten().map(Vec::as_slice).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

fn sum(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|l| f64::from(*l)).sum()
}
