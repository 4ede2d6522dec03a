//! What `--dry-run` of jobs tells.

use aerostat::{Plan, size};
use aerostat_jobs::Survey;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, OutputArgs};
use crate::signs::duration;

/// What `--json` prints.
#[derive(Serialize)]
struct Dry<'a> {
    plan: &'a Plan,
    #[serde(flatten)]
    survey: &'a Survey,
    sweeps: f64,
    seconds: f64,
}

/// What a job holds beside what a survey does, in bytes: its database and what is written. Measured: 3 to 4 MiB.
pub(crate) const JOB_BYTES: u64 = 4 << 20;

/// Tells what a job would take; an error if some of its `things` cannot be served. `tokens` are its lengths in words.
pub(crate) fn tell(
    plan: &Plan,
    survey: &Survey,
    things: &str,
    tokens: &str,
    output: &OutputArgs,
) -> Result<(), Failure> {
    let (sweeps, seconds) = survey.forecast(plan);
    let counts = &survey.counts;
    if output.json {
        output::json(&Dry { plan, survey, sweeps, seconds })?;
    } else {
        output::text(&format!(
            "{plan}\n{} {things}, {} of them bad\n{tokens}, {} in the longest sequence\n\
             {sweeps:.0} sweeps at most, {} at {} a sweep\n",
            counts.total,
            counts.failed,
            survey.lengths.longest,
            duration(seconds),
            size(plan.streamed_bytes_per_sweep),
        ))?;
    }
    match counts.failed {
        0 => Ok(()),
        bad => Err(Failure::Partly(format!("{bad} of {} {things} cannot be served", counts.total))),
    }
}
