//! Runs of whole models against independent results and against each other.

mod adapters;
mod batch;
mod budget;
mod drafts;
mod encoders;
mod exactness;
mod expert_cache;
mod experts;
mod faults;
mod golden;
mod prompt_cache;
mod recorder;
mod sampling;
mod sentences;
mod session;
mod tasks;
mod twins;
mod urgent;

/// The results of a list none of whose members failed.
fn all<T>(results: Vec<Result<T, aerostat::Error>>) -> Vec<T> {
    results.into_iter().map(|result| result.expect("every request has a result")).collect()
}
