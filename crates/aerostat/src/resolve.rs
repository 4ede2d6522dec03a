//! From what the user types to a folder or file.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aerostat_hub::{Hub, ModelId, demo};

pub use aerostat_hub::Progress as Download;

use crate::{Error, ErrorKind};

/// The model that `demo` stands for.
pub(crate) const DEMO: &str = "demo";

/// Finds MODEL: an existing path; `demo`; a Hub id in the local cache, else downloaded.
///
/// `own_cache` is the folder for what does not come from the Hub.
///
/// # Errors
/// [`ErrorKind::Model`] with what was looked for where.
pub fn resolve(
    model: &str,
    own_cache: &Path,
    progress: &dyn Download,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let hub = Hub::from_environment()?;
    if model == DEMO {
        return Ok(demo::resolve(&hub, own_cache, progress, cancel)?);
    }
    let looks_like_path = model.starts_with(['/', '.', '~'])
        || model.contains('\\')
        || path.extension().is_some_and(|e| e == "gguf" || e == "safetensors");
    let id = match model.parse::<ModelId>() {
        Ok(id) if !looks_like_path => id,
        _ => {
            let message = format!(
                "no such model: `{model}` is neither a folder nor a .gguf file here, nor a Hub id (org/name), nor `demo`"
            );
            return Err(Error::new(ErrorKind::Model, message));
        }
    };
    let path = match hub.cached(&id)? {
        Some(path) => path,
        None => hub.pull(&id, progress, cancel)?,
    };
    Ok(weights(&id, path))
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
