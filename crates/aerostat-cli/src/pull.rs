//! `aerostat pull`: a model onto this machine.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::download::Bar;
use crate::failure::Failure;
use crate::output::OutputArgs;
use crate::{folders, interrupt, model, output};

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[arg(help = "a Hub id (org/name[@revision]), or `demo`")]
    id: String,
    /// Check the digests of what is here already, and fetch again what does not have them.
    #[arg(long)]
    verify: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(serialize_with = "output::path")]
    path: &'a Path,
}

pub(crate) fn execute(args: &PullArgs, output: &OutputArgs) -> Result<(), Failure> {
    let _graceful = interrupt::graceful_for_a_moment();
    let (own_cache, bar) = (folders::cache()?, Bar::new(output));
    let path = aerostat::pull(&model::named(&args.id), &own_cache, args.verify, &bar, interrupt::flag())?;
    if output.json {
        return output::json(&Report { path: &path });
    }
    Ok(output::text(&format!("{}\n", path.display()))?)
}
