//! The user's folders: for what can be made again, what is worth keeping, and what the user writes.

use std::env;
use std::path::PathBuf;

use aerostat::Stores;

use crate::failure::Failure;

/// Aerostat's own cache folder: for downloads that do not come from the Hub, and for what is learned about experts.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    if let Some(path) = variable("AEROSTAT_CACHE") {
        return Ok(path);
    }
    let base =
        if cfg!(target_os = "macos") { home("Library/Caches") } else { user("XDG_CACHE_HOME", ".cache") };
    let none = || Failure::failed("there is no folder for downloads: set AEROSTAT_CACHE to one");
    Ok(base.ok_or_else(none)?.join("aerostat"))
}

/// The folder of what the user would miss: the history of `chat`. `None` if the user has no home.
pub(crate) fn state() -> Option<PathBuf> {
    Some(user("XDG_STATE_HOME", ".local/state")?.join("aerostat"))
}

/// The folder of what the user writes: the file of defaults. `None` if the user has no home.
pub(crate) fn config() -> Option<PathBuf> {
    Some(user("XDG_CONFIG_HOME", ".config")?.join("aerostat"))
}

fn user(name: &str, below_home: &str) -> Option<PathBuf> {
    match variable(name) {
        // As the specification has it: paths that are not absolute are ignored.
        Some(path) if path.is_absolute() => Some(path),
        _ if cfg!(windows) => variable("LOCALAPPDATA"),
        _ => home(below_home),
    }
}

fn home(below: &str) -> Option<PathBuf> {
    Some(variable("HOME")?.join(below))
}

/// The value of an environment variable that is not empty.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where models lie on this machine.
pub(crate) fn stores() -> Result<Stores, Failure> {
    Ok(Stores::from_environment(cache().ok()).map_err(aerostat::Error::from)?)
}
