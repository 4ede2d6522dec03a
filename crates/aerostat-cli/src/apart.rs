//! What a command writes is nothing that it reads.

use std::fs;
use std::path::Path;

use aerostat_jobs::{JobPaths, Named, keep_apart, model_files};

use crate::failure::Failure;
use crate::options::EngineArgs;

/// What a model is read from, its adapter included, and what the engine itself writes.
pub(crate) fn read(model: &Path, engine: &EngineArgs) -> Vec<Named> {
    let adapter = engine.adapter().map(model_files).unwrap_or_default();
    let adapter = adapter.into_iter().map(|file| file.called("a file of the adapter"));
    let trace = engine.expert_trace().map(|path| Named::new("the trace of experts", path));
    model_files(model).into_iter().chain(adapter).chain(trace).collect()
}

/// Refuses a table whose results would be written over the table itself or over what a model is read from; `written` is
/// what its job writes beside the output and the error file.
pub(crate) fn table(
    paths: &JobPaths,
    output: Option<&Path>,
    written: &[Named],
    model: &[Named],
) -> Result<(), Failure> {
    if output.is_some() {
        return Ok(paths.check(model, written)?);
    }
    // What a shell opened for the command.
    let stdout = cfg!(unix).then(|| Named::new("stdout", "/dev/stdout"));
    let read = [model, &[Named::new("the input", &paths.input)]].concat();
    Ok(keep_apart(&read, stdout.as_slice())?)
}

/// Refuses results that are written in one piece over the table that they are of, over what a model is read from, or, unless
/// they are to, over anything.
pub(crate) fn results(
    input: &Path,
    output: Option<&Path>,
    model: &[Named],
    replaces: bool,
) -> Result<(), Failure> {
    let stdout = cfg!(unix).then(|| Named::new("stdout", "/dev/stdout"));
    let written = output.map_or(stdout, |output| Some(Named::new("the output", output)));
    let drafts = output.map(drafts).unwrap_or_default();
    let read = [model, &[Named::new("the input", input)]].concat();
    keep_apart(&read, &written.into_iter().chain(drafts).collect::<Vec<_>>())?;
    match output.filter(|output| !replaces && fs::metadata(output).is_ok_and(|meta| meta.len() > 0)) {
        Some(output) => Err(Failure::usage(format!(
            "{} is there and not empty: name another output, or --restart to overwrite it",
            output.display()
        ))),
        None => Ok(()),
    }
}

/// Refuses a copy that would be written over the model itself.
pub(crate) fn copy(model: &Path, out: &Path) -> Result<(), Failure> {
    let mut written = vec![Named::new("the copy", out)];
    if out.is_dir() {
        let there = model_files(out);
        written.extend(there.into_iter().skip(1).map(|file| file.called("a file of the copy")));
    }
    Ok(keep_apart(&model_files(model), &written)?)
}

/// Files that are there under the names that a file has while it is written.
pub(crate) fn drafts(path: &Path) -> Vec<Named> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let begins = [name.as_encoded_bytes(), b".part"].concat();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let drafts = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(&begins));
    drafts.map(|entry| Named::new("a draft of the output", entry.path())).collect()
}
