//! From what the user types to a folder or file.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aerostat_hub::{Hub, ModelId, demo, outline_of_folder};

pub use aerostat_hub::{Found, Outline, Progress as Download, Store, Stores};

use crate::{Error, ErrorKind};

/// What of the Hub the caller decides; what is `None` the environment does, as everywhere.
#[derive(Clone, Default)]
pub struct HubChoice {
    /// Sent to the Hub and nowhere else, and never shown.
    pub token: Option<String>,
    /// A branch, a tag, a commit or `refs/pr/N`, where the id names none.
    pub revision: Option<String>,
    /// The cache, which holds the `models--…` folders.
    pub cache_dir: Option<PathBuf>,
    /// Stay within the cache.
    pub offline: Option<bool>,
}

impl fmt::Debug for HubChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, revision, cache_dir, offline } = self;
        let mut told = f.debug_struct("HubChoice");
        told.field("token", &token.as_ref().map(|_| "…")).field("revision", revision);
        told.field("cache_dir", cache_dir).field("offline", offline).finish()
    }
}

impl HubChoice {
    /// The Hub that the environment names, with what the caller decides.
    fn hub(&self) -> Result<Hub, Error> {
        let mut hub = Hub::from_environment()?;
        if let Some(token) = &self.token {
            hub.token = Some(token.clone()).filter(|token| !token.is_empty());
        }
        if let Some(cache_dir) = &self.cache_dir {
            hub.cache_dir.clone_from(cache_dir);
        }
        hub.offline = self.offline.unwrap_or(hub.offline);
        Ok(hub)
    }

    /// An id with the revision, if the caller decides it.
    fn id(&self, model: &str) -> Result<ModelId, Error> {
        let id = model.parse::<ModelId>()?;
        let Some(revision) = self.revision.as_ref().filter(|revision| *revision != id.revision()) else {
            return Ok(id);
        };
        if model.contains('@') {
            let message =
                format!("`{model}` names a revision, and `{revision}` is asked for: name one of them");
            return Err(Error::new(ErrorKind::Usage, message));
        }
        let file = id.file().map_or_else(String::new, |file| format!(":{file}"));
        Ok(format!("{}@{revision}{file}", id.repository()).parse()?)
    }
}

impl HubChoice {
    /// The id of a model that is no path here, with the revision.
    fn named(&self, model: &str) -> Result<ModelId, Error> {
        let looks_like_path = model.starts_with(['/', '.', '~'])
            || model.contains('\\')
            || (!model.contains(':')
                && Path::new(model).extension().is_some_and(|e| e == "gguf" || e == "safetensors"));
        if !looks_like_path && model.parse::<ModelId>().is_ok() {
            return self.id(model);
        }
        let message = format!(
            "no such model: `{model}` is neither a folder nor a .gguf file here, nor a Hub id (org/name), nor `demo`"
        );
        Err(Error::new(ErrorKind::Model, message))
    }
}

/// The model that `demo` stands for.
pub(crate) const DEMO: &str = "demo";

/// Finds MODEL: an existing path; `demo`; a Hub id in the local cache, else downloaded.
///
/// `own_cache` is the folder for what does not come from the Hub.
///
/// # Errors
/// [`ErrorKind::Model`] with what was looked for where.
pub fn resolve(
    model: impl AsRef<OsStr>,
    own_cache: &Path,
    progress: &dyn Download,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    resolve_from(&HubChoice::default(), model, own_cache, progress, cancel)
}

/// The same, with a token, a revision and a cache of the caller's.
///
/// # Errors
/// [`ErrorKind::Model`] with what was looked for where; [`ErrorKind::Usage`] if two revisions are named.
pub fn resolve_from(
    from: &HubChoice,
    model: impl AsRef<OsStr>,
    own_cache: &Path,
    progress: &dyn Download,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    let path = Path::new(&model);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let model = name(path)?;
    let hub = from.hub()?;
    if model == DEMO {
        return Ok(demo::resolve(&hub, own_cache, progress, cancel)?);
    }
    if let Some(path) = in_store(model)? {
        return Ok(path);
    }
    let id = from.named(model)?;
    let path = match hub.cached(&id)? {
        Some(path) => path,
        None => hub.pull(&id, progress, cancel)?,
    };
    Ok(weights(&id, path))
}

/// What names a model that is no path: text, as all names of models are.
fn name(path: &Path) -> Result<&str, Error> {
    let missing =
        || Error::new(ErrorKind::Model, format!("{}: there is no such file or folder", path.display()));
    path.to_str().ok_or_else(missing)
}

/// A model in the store of another program, where the name says so.
fn in_store(model: &str) -> Result<Option<PathBuf>, Error> {
    Ok(Stores::from_environment(None)?.find(model)?)
}

/// Where the headers of a model are.
#[derive(Debug)]
pub enum Headers {
    /// The model is here, whole.
    Here(PathBuf),
    /// Its headers are, in a folder that holds nothing else of it.
    Outline(Outline),
}

/// Finds a model for its headers alone, as [`resolve`] does: what is not here is not downloaded, but for its headers, which go to
/// the empty folder `into`. So do those of a folder whose files of weights are cut off behind them.
///
/// # Errors
/// As [`resolve`].
pub fn headers(
    model: impl AsRef<OsStr>,
    own_cache: &Path,
    into: &Path,
    progress: &dyn Download,
    cancel: &AtomicBool,
) -> Result<Headers, Error> {
    let path = Path::new(&model);
    if path.exists() {
        let outline = if path.is_dir() { outline_of_folder(path, into)? } else { None };
        return Ok(outline.map_or_else(|| Headers::Here(path.to_owned()), Headers::Outline));
    }
    let model = name(path)?;
    if model == DEMO {
        return resolve(model, own_cache, progress, cancel).map(Headers::Here);
    }
    if let Some(path) = in_store(model)? {
        return Ok(Headers::Here(path));
    }
    let from = HubChoice::default();
    let (hub, id) = (from.hub()?, from.named(model)?);
    Ok(match hub.cached(&id)? {
        Some(path) => Headers::Here(weights(&id, path)),
        None => Headers::Outline(hub.outline(&id, into, cancel)?),
    })
}

/// Downloads a Hub id, or what is missing of it, and gives its folder. `verify`: the digests of what is here are checked too.
///
/// # Errors
/// [`ErrorKind::Model`], [`ErrorKind::Interrupted`].
pub fn pull(
    model: &str,
    own_cache: &Path,
    verify: bool,
    progress: &dyn Download,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    let hub = Hub { verify, ..Hub::from_environment()? };
    if model == DEMO {
        return Ok(demo::resolve(&hub, own_cache, progress, cancel)?);
    }
    let id = model.parse::<ModelId>()?;
    let path = hub.pull(&id, progress, cancel)?;
    Ok(weights(&id, path))
}

/// The file that an id names inside its snapshot, else the snapshot.
fn weights(id: &ModelId, snapshot: PathBuf) -> PathBuf {
    match id.file() {
        Some(file) if snapshot.is_dir() => snapshot.join(file),
        _ => snapshot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_named_in_one_place() {
        let from = |revision: &str| HubChoice { revision: Some(revision.to_owned()), ..HubChoice::default() };
        let id = from("refs/pr/1").id("org/name:a.gguf").unwrap();
        assert_eq!((id.repository(), id.revision(), id.file()), ("org/name", "refs/pr/1", Some("a.gguf")));
        assert_eq!(from("v1").id("org/name@v1").unwrap().revision(), "v1");
        assert_eq!(from("v1").id("org/name@v2").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(HubChoice::default().id("org/name").unwrap().revision(), "main");
        assert!(from("../x").id("org/name").is_err());
    }

    /// A model in a cache that the caller names; the Hub is not asked.
    #[test]
    fn a_cache_of_the_callers_is_looked_into() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--org--name");
        let snapshot = folder.join("snapshots/0123456789012345678901234567890123456789");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/v1"), "0123456789012345678901234567890123456789").unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        std::fs::write(snapshot.join("model.safetensors"), "").unwrap();
        let find = |revision: &str| {
            let from = HubChoice {
                cache_dir: Some(cache.path().to_owned()),
                revision: Some(revision.to_owned()),
                offline: Some(true),
                token: Some("secret".to_owned()),
            };
            assert!(!format!("{from:?}").contains("secret"));
            resolve_from(&from, "org/name", cache.path(), &(), &AtomicBool::new(false))
        };
        assert_eq!(find("v1").unwrap(), snapshot);
        assert_eq!(find("v2").unwrap_err().kind(), ErrorKind::Model);
    }
}
