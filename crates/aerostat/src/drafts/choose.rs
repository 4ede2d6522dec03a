//! Whether a small model is worth its place, and which of those on a machine is.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use aerostat_plan::DraftModel;

use super::ROUND;
use crate::engine::Engine;
use crate::model_files::ModelFiles;
use crate::need::Need;
use crate::options::{Draft, Options};
use crate::parts::Parts;
use crate::{Error, Plan};

/// Rounds of guesses before a sweep, about.
const ROUNDS: f64 = 4.0;
/// How many times as many tokens a sweep brings with a small model than with what texts tell, or more: a model that has to bring
/// more than this is not chosen.
const BRINGS: f64 = 1.5;

/// Tokens of a sequence, where nobody says how many there will be.
const TOKENS: usize = 4096;

/// What a small model costs, by its plan and those of the large one with it and without.
pub(crate) fn cost(bytes: u64, small: &Plan, with: &Plan, without: Option<&Plan>) -> DraftModel {
    let round_seconds = small.cost.seconds(ROUND, ROUND);
    let sweep = with.cost.sweep_seconds;
    let pays_above = (sweep + ROUNDS * round_seconds) / without.map_or(sweep, |plan| plan.cost.sweep_seconds);
    DraftModel { bytes, round_seconds, pays_above }
}

/// The model that is to guess for another, of those at `paths`: the largest with the same tokens that fits into memory beside it
/// and is worth that, for sequences of so many tokens, by default 4,096. `None`: none is. Paths without a model that can guess are passed over.
///
/// # Errors
/// What is wrong with the model that is guessed for, or with the machine.
pub fn best_draft(
    files: &ModelFiles,
    options: &Options,
    tokens: Option<usize>,
    paths: &[PathBuf],
) -> Result<Option<Arc<ModelFiles>>, Error> {
    let largest = files.spec().matrix_bytes() / 2;
    let open = |path: &PathBuf| ModelFiles::open(path).ok().map(Arc::new);
    let mut small: Vec<Arc<ModelFiles>> = paths.iter().filter_map(open).collect();
    small.retain(|small| small.spec().matrix_bytes() <= largest && files.check_draft(small).is_ok());
    if small.is_empty() {
        return Ok(None);
    }
    small.sort_by_key(|small| Reverse(small.spec().matrix_bytes()));
    let usual = files.spec().context_max.min(TOKENS);
    let (parts, need) = (Parts::of(files, options)?, Need::one(tokens.unwrap_or(usual)));
    Ok(small.into_iter().find(|small| {
        let options = Options { draft: Draft::Model(Arc::clone(small)), ..options.clone() };
        let plan = Engine::plan_with(files, &options, &need, &parts).ok();
        let worth = |plan: &Plan| plan.draft_model.as_ref().is_some_and(|model| model.pays_above <= BRINGS);
        plan.is_some_and(|plan| plan.draft_rows > 0 && worth(&plan))
    }))
}
