//! From MODEL to files, tokenizer and template.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aerostat::{Draft, ModelFiles, Options, PromptCache, Tokenizer};

use crate::download::Bar;
use crate::failure::Failure;
use crate::options::EngineArgs;
use crate::output::{self, OutputArgs};
use crate::scratch::Scratch;
use crate::{folders, interrupt};

/// Bytes of prompts' KV caches that a folder holds at most.
const PROMPTS_BYTES: u64 = 4 << 30;

/// MODEL as it was given: the path of one need not be text. As text it is what can be shown of it.
#[derive(Clone, Debug)]
pub(crate) struct ModelName {
    given: OsString,
    shown: String,
}

impl From<OsString> for ModelName {
    fn from(given: OsString) -> Self {
        Self { shown: given.to_string_lossy().into_owned(), given }
    }
}

impl ModelName {
    /// What it names: what is given, if that is a path alone, or an id.
    fn named(&self) -> Cow<'_, OsStr> {
        match (self.given.to_str().map(named), &self.given) {
            (Some(Cow::Owned(id)), _) => Cow::Owned(id.into()),
            (_, given) => Cow::Borrowed(given),
        }
    }
}

impl Deref for ModelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.shown
    }
}

impl AsRef<OsStr> for ModelName {
    fn as_ref(&self) -> &OsStr {
        &self.given
    }
}

/// What people paste, as the id that it names: addresses of the Hub's pages, with or without a revision or a file.
pub(crate) fn named(model: &str) -> Cow<'_, str> {
    const HOSTS: [&str; 3] = ["huggingface.co/", "www.huggingface.co/", "hf.co/"];
    let bare =
        ["https://", "http://"].into_iter().find_map(|scheme| model.strip_prefix(scheme)).unwrap_or(model);
    let Some(path) = HOSTS.into_iter().find_map(|host| bare.strip_prefix(host)) else { return model.into() };
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [org, name, "tree" | "blob" | "resolve", revision, file @ ..] => {
            let at = if *revision == "main" { String::new() } else { format!("@{revision}") };
            let file = file.join("/");
            let file = if file.ends_with(".gguf") { format!(":{file}") } else { String::new() };
            format!("{org}/{name}{at}{file}").into()
        }
        _ => path.to_owned().into(),
    }
}

/// The folder for downloads. What lies here needs none: services may have no home.
fn own_cache_for(model: &OsStr) -> Result<PathBuf, Failure> {
    match folders::cache() {
        Err(_) if Path::new(model).exists() => Ok(PathBuf::new()),
        own_cache => own_cache,
    }
}

/// Finds a model, downloading it if need be.
pub(crate) fn find(model: &ModelName, output: &OutputArgs) -> Result<PathBuf, Failure> {
    let _graceful = interrupt::graceful_for_a_moment();
    let model = model.named();
    let own_cache = own_cache_for(&model)?;
    let path = aerostat::resolve(&model, &own_cache, &Bar::new(output), interrupt::flag())?;
    interrupt::check()?;
    Ok(path)
}

/// The headers of a model: those of the model itself, or an outline of one that is not here, in a folder for a moment.
pub(crate) struct Headers {
    path: PathBuf,
    outline: Option<aerostat::Outline>,
    _folder: Scratch,
}

impl Headers {
    /// Whether the model itself is here.
    pub(crate) fn is_here(&self) -> bool {
        self.outline.is_none()
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the tokenizer's files that are not here.
    pub(crate) fn tokenizer_bytes(&self) -> u64 {
        self.outline.as_ref().map_or(0, |outline| outline.tokenizer_bytes)
    }

    /// Reads them.
    pub(crate) fn open(&self, adapter: Option<&Path>, output: &OutputArgs) -> Result<ModelFiles, Failure> {
        open_at(&self.path, adapter, output)
    }
}

/// Finds a model for its headers alone: what is not here is not downloaded.
pub(crate) fn headers(model: &ModelName, output: &OutputArgs) -> Result<Headers, Failure> {
    let _graceful = interrupt::graceful_for_a_moment();
    let model = model.named();
    let folder = Scratch::new()?;
    let own_cache = own_cache_for(&model)?;
    let found = aerostat::headers(&model, &own_cache, folder.path(), &Bar::new(output), interrupt::flag())?;
    interrupt::check()?;
    Ok(match found {
        aerostat::Headers::Here(path) => Headers { path, outline: None, _folder: folder },
        aerostat::Headers::Outline(outline) => {
            if outline.fetched_bytes > 0 {
                let fetched = aerostat::size(outline.fetched_bytes);
                output::note(
                    output,
                    &format!("{} is not on this machine: {fetched} of headers were fetched", model.display()),
                );
            }
            Headers { path: outline.path.clone(), outline: Some(outline), _folder: folder }
        }
    })
}

/// Finds a model and reads its headers, and those of the adapter that is to be applied.
pub(crate) fn open(
    model: &ModelName,
    adapter: Option<&Path>,
    output: &OutputArgs,
) -> Result<ModelFiles, Failure> {
    open_at(&find(model, output)?, adapter, output)
}

fn open_at(path: &Path, adapter: Option<&Path>, output: &OutputArgs) -> Result<ModelFiles, Failure> {
    let files = match adapter {
        None => ModelFiles::open(path)?,
        Some(adapter) => ModelFiles::open_with_adapter(path, adapter)?,
    };
    files.spec().notes.iter().for_each(|text| output::note(output, text));
    Ok(files)
}

/// The tokenizer, if the model has one. A broken one is an error only if it is `needed`.
pub(crate) fn tokenizer(
    files: &ModelFiles,
    needed: bool,
    output: &OutputArgs,
) -> Result<Option<Tokenizer>, Failure> {
    match files.tokenizer() {
        Ok(Some(tokenizer)) => Ok(Some(tokenizer)),
        Ok(None) if needed => {
            let message = format!(
                "{}: the model has no tokenizer, so it cannot take text\n  \
                 hint: give the prompt as token ids: --token-ids 5,6,7",
                files.path().display()
            );
            Err(Failure::failed(message))
        }
        Err(e) if needed => {
            Err(Failure::failed(format!("{e}\n  hint: --token-ids 5,6,7 works without a tokenizer")))
        }
        Ok(None) => Ok(None),
        Err(e) => {
            output::note(output, &format!("going on without the tokenizer: {e}"));
            Ok(None)
        }
    }
}

/// The options with what they are for this model: the type of keys and values where the user names none, and the file that learns
/// which experts it uses, if it has some and the user allows it.
pub(crate) fn of_model(options: Options, args: &EngineArgs, files: &ModelFiles) -> Options {
    let options = Options { kv: args.kv().unwrap_or_else(|| files.usual_kv()), ..options };
    let mixes = files.spec().blocks.iter().any(|block| block.experts.is_some());
    if !mixes || !args.learns() {
        return options;
    }
    let mut name = DefaultHasher::new();
    files.path().canonicalize().unwrap_or_else(|_| files.path().to_owned()).hash(&mut name);
    files.spec().matrix_bytes().hash(&mut name);
    let file = format!("experts/{:016x}.json", name.finish());
    Options { expert_use: folders::cache().ok().map(|cache| cache.join(file)), ..options }
}

/// The options with the folder that keeps the KV cache of prompts: the one that the user names, or Aerostat's own if that is
/// what this command does by itself.
pub(crate) fn keeping(
    options: Options,
    args: &EngineArgs,
    files: &ModelFiles,
    by_itself: bool,
) -> Result<Options, Failure> {
    let usual = folders::cache().ok().filter(|_| by_itself).map(|cache| cache.join("prompts"));
    let Some(folder) = args.prompt_cache(usual) else { return Ok(options) };
    // Files that were written again are others, even where they begin and end alike.
    let mut identity =
        aerostat_jobs::files_digest(files).map_err(|error| Failure::failed(error.to_string()))?;
    for file in files.catalog().files() {
        let changed = file.path.metadata().and_then(|data| data.modified()).map(|time| format!(" {time:?}"));
        identity += &changed.unwrap_or_default();
    }
    Ok(Options { prompt_cache: Some(PromptCache { folder, bytes_max: PROMPTS_BYTES, identity }), ..options })
}

/// Notes what has no effect where nothing is answered: guesses, and prompts that are kept.
pub(crate) fn nothing_is_answered(args: &EngineArgs, output: &OutputArgs) {
    if args.draft_model().is_some() {
        output::note(output, "--draft has no effect: no tokens are generated");
    }
    if args.prompt_cache(None).is_some() {
        output::note(output, "--cache has no effect: it keeps prompts of answers");
    }
}

/// The options with the small model that is to guess, if the user names one, or wants the best there is.
pub(crate) fn drafting(
    options: Options,
    args: &EngineArgs,
    files: &ModelFiles,
    output: &OutputArgs,
) -> Result<Options, Failure> {
    let small = match args.draft_model() {
        Some(name) => {
            let small = open(&OsString::from(name).into(), None, output)?;
            files.check_draft(&small)?;
            Arc::new(small)
        }
        None if args.finds_draft() => {
            let found = folders::stores()?.list().into_iter().filter(|found| found.complete);
            let paths: Vec<PathBuf> = found.map(|found| found.path).collect();
            match aerostat::best_draft(files, &options, args.context(), &paths)? {
                Some(small) => {
                    output::note(output, &format!("{} guesses, too", small.path().display()));
                    small
                }
                None => {
                    let why = "none of those that `aerostat models` lists has the same tokens and is worth its memory";
                    output::note(output, &format!("--draft auto: no small model guesses: {why}"));
                    return Ok(options);
                }
            }
        }
        None => return Ok(options),
    };
    Ok(Options { draft: Draft::Model(small), ..options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_hub_are_the_ids_that_they_name() {
        for (pasted, id) in [
            ("https://huggingface.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
            ("https://huggingface.co/Qwen/Qwen3-0.6B/", "Qwen/Qwen3-0.6B"),
            ("https://huggingface.co/Qwen/Qwen3-0.6B?library=transformers", "Qwen/Qwen3-0.6B"),
            ("https://huggingface.co/a/b/tree/main", "a/b"),
            ("https://huggingface.co/a/b/tree/v1.0", "a/b@v1.0"),
            ("https://huggingface.co/a/b/blob/main/x-Q4_K_M.gguf", "a/b:x-Q4_K_M.gguf"),
            ("https://huggingface.co/a/b/resolve/dev/q/x.gguf?download=true", "a/b@dev:q/x.gguf"),
            ("hf.co/a/b:x.gguf", "a/b:x.gguf"),
            ("huggingface.co/a/b", "a/b"),
            ("a/b", "a/b"),
            ("./hf.co/a", "./hf.co/a"),
            ("demo", "demo"),
        ] {
            assert_eq!(named(pasted), id, "{pasted}");
        }
    }
}
