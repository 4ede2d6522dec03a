//! `aerostat pull`: a model onto this machine.

use std::path::Path;

use serde::Serialize;

use crate::args::{OutputArgs, PullArgs};
use crate::download::Bar;
use crate::failure::Failure;
use crate::{interrupt, model, output};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    path: &'a Path,
}

pub(crate) fn execute(args: &PullArgs, output: &OutputArgs) -> Result<(), Failure> {
    let _graceful = interrupt::graceful_for_a_moment();
    let path = aerostat::pull(&args.id, &model::own_cache()?, &Bar::new(output), interrupt::flag())?;
    if output.json {
        return output::json(&Report { path: &path });
    }
    Ok(output::text(&format!("{}\n", path.display()))?)
}
