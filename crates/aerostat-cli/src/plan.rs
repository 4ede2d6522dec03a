//! `aerostat plan`: what a run would do, without running.

use aerostat::{Engine, Need, Plan};
use serde::Serialize;

use crate::args::{OutputArgs, PlanArgs};
use crate::failure::Failure;
use crate::{model, output};

/// Tokens that are planned for unless the user names a context.
const CONTEXT_DEFAULT: usize = 512;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    #[serde(flatten)]
    plan: &'a Plan,
}

pub(crate) fn execute(args: &PlanArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, output)?;
    let options = model::learning(options, &args.engine, &files);
    // It counts: a run would hold it, too.
    let _tokenizer = model::tokenizer(&files, false, output)?;
    let context = args.engine.context().unwrap_or(files.spec().context_max.min(CONTEXT_DEFAULT));
    let plan = Engine::plan(&files, &options, &Need::one(context))?;
    if output.json {
        return output::json(&Report { model: &args.model, plan: &plan });
    }
    Ok(output::text(&format!("{} with {context} tokens\n{plan}", args.model))?)
}
