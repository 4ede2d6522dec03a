//! The results of a list of prompts: one that failed costs the others nothing.

use aerostat::Error;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::tell;

/// A result as `--json` prints it, in the place of its prompt.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Told<T> {
    /// What was found.
    Found(T),
    /// Why nothing was.
    Failed {
        /// The reason.
        error: String,
    },
}

impl<T> Told<T> {
    /// What was found, if anything was.
    pub(crate) fn found(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Failed { .. } => None,
        }
    }

    /// The same, taken out.
    pub(crate) fn into_found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Failed { .. } => None,
        }
    }
}

/// How the command ends once its results are printed.
pub(crate) type End = Result<(), Failure>;

/// All results of a list, and how the command ends: those that failed are told on stderr. Where none worked, the first
/// reason is the whole command's.
pub(crate) fn tell<T>(results: Vec<Result<T, Error>>) -> Result<(Vec<Told<T>>, End), Failure> {
    let count = results.len();
    let (mut told, mut first) = (Vec::with_capacity(count), None);
    for result in results {
        told.push(match result {
            Ok(found) => Told::Found(found),
            Err(error) => {
                let reason = error.to_string();
                first.get_or_insert(error);
                Told::Failed { error: reason }
            }
        });
    }
    let Some(first) = first else { return Ok((told, Ok(()))) };
    if told.iter().all(|told| told.found().is_none()) {
        return Err(first.into());
    }
    let mut failed = 0;
    for (number, told) in told.iter().enumerate() {
        if let Told::Failed { error } = told {
            tell!("error: result {number}: {error}");
            failed += 1;
        }
    }
    Ok((told, Err(Failure::Partly(format!("{failed} of {count} results failed")))))
}
