//! Downloads from the Hugging Face Hub into its standard local cache.
//!
//! The cache is shared with Python's `huggingface_hub`: what either fetched, the other finds. Downloads run in
//! parallel parts, resume after any interruption without fetching again what is here, and are checked by content hash
//! where the Hub gives one. Two processes that want the same file wait for each other instead of fetching it twice.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! let hub = aerostat_hub::Hub::from_environment()?;
//! let model = hub.pull(&"HuggingFaceTB/SmolLM2-135M-Instruct".parse()?, &(), &AtomicBool::new(false))?;
//! println!("{}", model.display());
//! # Ok::<(), aerostat_hub::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Deserialize;

mod cache;
pub mod demo;
mod error;
mod files;
mod http;
mod id;
mod modules;
mod outline;
mod ranges;
mod shapes;
mod stores;
mod transfer;

pub use error::{Error, ErrorKind};
pub use id::ModelId;
pub use outline::{Outline, outline_of_folder};
pub use stores::{Found, Store, Stores};

use cache::Folder;
use files::{Choice, Weights};
use http::Http;
use transfer::Session;

/// Where models come from and where they are kept.
#[derive(Clone)]
pub struct Hub {
    /// Base URL, without a slash at the end.
    pub endpoint: String,
    /// The cache, which holds the `models--…` folders.
    pub cache_dir: PathBuf,
    /// Sent to `endpoint` and nowhere else.
    pub token: Option<String>,
    /// Stay within the cache.
    pub offline: bool,
    /// Check the digests of what is in the cache, and fetch anew what does not have them.
    pub verify: bool,
    /// Requests at a time.
    pub connections: usize,
    /// Larger files are fetched in parts of at most this many bytes.
    pub part_bytes_max: u64,
    /// Further tries of a request that failed in a way that may pass: status 429 or 5xx, a broken connection.
    pub retries: u32,
    /// Pause before the first further try; it doubles each time. A server's `Retry-After` takes its place.
    pub retry_pause: Duration,
    /// The way out, where there is no direct one.
    pub proxy: Option<ureq::Proxy>,
}

/// Told how a pull goes; called from several threads.
pub trait Progress: Sync {
    /// A pull of `files` files begins: their size together, and how much of it is here already. Called once per pull
    /// that reaches the Hub.
    fn started(&self, files: usize, bytes_total: u64, bytes_present: u64);
    /// So many further bytes have come.
    fn advanced(&self, bytes: u64);
    /// Something a user may want to know, as one sentence.
    fn note(&self, _text: &str) {}
}

/// No progress wanted.
impl Progress for () {
    fn started(&self, _files: usize, _bytes_total: u64, _bytes_present: u64) {}
    fn advanced(&self, _bytes: u64) {}
}

/// What the Hub says about a revision of a repository.
#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "sha")]
    commit: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    /// Bytes, where the endpoint tells them.
    size: Option<u64>,
}

impl Hub {
    /// The Hub at `endpoint` with its cache in `cache_dir`; no token, everything else at its default.
    pub fn new(endpoint: impl Into<String>, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into().trim_end_matches('/').to_owned(),
            cache_dir: cache_dir.into(),
            token: None,
            offline: false,
            verify: false,
            connections: 8,
            part_bytes_max: 64 << 20,
            retries: 4,
            retry_pause: Duration::from_millis(500),
            proxy: None,
        }
    }

    /// As the variables and the token file of `huggingface_hub` say: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`,
    /// `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`; and the usual ones for proxies.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when there is no home folder and no variable names a cache.
    pub fn from_environment() -> Result<Self, Error> {
        let proxy = ureq::Proxy::try_from_env();
        Ok(Self { proxy, ..Self::from_variables(|name| env::var_os(name), env::home_dir())? })
    }

    /// The model as it lies in the cache, complete enough to run; never asks the network.
    ///
    /// The path is the snapshot folder, or the GGUF file (the first of a split set) where that is the model.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::Unsupported`] when the index of a sharded model cannot be read.
    pub fn cached(&self, id: &ModelId) -> Result<Option<PathBuf>, Error> {
        let folder = Folder::new(&self.cache_dir, id);
        let Some(snapshot) = folder.commit_of(id.revision()).map(|commit| folder.snapshot(&commit)) else {
            return Ok(None);
        };
        let names = files::names_below(&snapshot);
        let Ok(choice) = files::choose(&names, id.file()) else { return Ok(None) };
        match files::is_complete(&snapshot, &names, &choice) {
            Ok(complete) => Ok(complete.then(|| entry(&snapshot, &choice))),
            Err(error) => Err(error.in_repository(id.repository())),
        }
    }

    /// Brings the model into the cache, as far as it is not there, and returns its path as [`Self::cached`] does.
    ///
    /// A file of another size than the Hub gives is fetched anew; where [`Self::verify`] is set, so is one with another digest.
    /// When the Hub is out of reach, or `offline` is set, a complete copy in the cache serves. `cancel` ends the pull
    /// within moments, or, where a server has fallen silent, when its connection times out (20 s).
    ///
    /// # Errors
    /// All kinds of [`ErrorKind`] but [`ErrorKind::InvalidId`] and [`ErrorKind::Program`]. Whatever the kind, bytes that
    /// were fetched stay and are not fetched again, but for those of a file that is [`ErrorKind::Corrupt`].
    pub fn pull(&self, id: &ModelId, progress: &dyn Progress, cancel: &AtomicBool) -> Result<PathBuf, Error> {
        self.pull_here(id, progress, cancel).map_err(|e| e.in_repository(id.repository()))
    }

    fn pull_here(
        &self,
        id: &ModelId,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<PathBuf, Error> {
        if self.offline && self.verify {
            let message = "digests come from the Hub, which HF_HUB_OFFLINE forbids to ask";
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        if self.offline {
            let message = "not in the cache, and HF_HUB_OFFLINE forbids asking the Hub";
            return self.cached(id)?.ok_or_else(|| Error::new(ErrorKind::NotFound, message));
        }
        let http = Http::new(self, cancel);
        let listing = match listing(&http, id) {
            Err(error) if error.kind() == ErrorKind::Network && !self.verify => {
                let path = self.cached(id)?.ok_or(error)?;
                progress.note("the Hub is out of reach; the copy in the cache serves");
                return Ok(path);
            }
            listing => listing?,
        };
        let siblings = || listing.siblings.iter().filter(|sibling| id::is_path(&sibling.rfilename));
        let names: Vec<String> = siblings().map(|sibling| sibling.rfilename.clone()).collect();
        let sizes =
            siblings().filter_map(|sibling| Some((sibling.rfilename.clone(), sibling.size?))).collect();
        let choice = files::choose(&names, id.file())?;
        let folder = Folder::new(&self.cache_dir, id);
        let commit = &listing.commit;
        let snapshot = folder.snapshot(commit);
        let session =
            Session { hub: self, http: &http, id, folder: &folder, commit, sizes: &sizes, progress, cancel };

        let mut wanted = choice.metadata.clone();
        match &choice.weights {
            Weights::Files(files) | Weights::Gguf(files) => wanted.extend_from_slice(files),
            Weights::Indexed(index) => {
                transfer::fetch(&Session { progress: &(), ..session }, std::slice::from_ref(index))?;
                let shards = files::shards_of(&snapshot.join(index))?;
                if let Some(gone) = shards.iter().find(|shard| !names.contains(shard)) {
                    let message = "the index names this file, but the repository does not have it";
                    return Err(Error::new(ErrorKind::NotFound, message).in_file(gone));
                }
                wanted.push(index.clone());
                wanted.extend(shards);
            }
        }
        transfer::fetch(&session, &wanted)?;
        folder.set_commit_of(id.revision(), commit)?;
        Ok(entry(&snapshot, &choice))
    }

    /// [`Self::from_environment`] with the environment given.
    fn from_variables(get: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Self, Error> {
        let path = |name: &str| {
            let path = PathBuf::from(get(name).filter(|value| !value.is_empty())?);
            match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(path),
            }
        };
        let text = |name: &str| {
            let value = get(name)?.into_string().ok()?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let general = || path("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| Some(general()?.join("huggingface")));
        let below_home = |name: &str| hf_home.as_ref().map(|folder| folder.join(name));
        let cache_dir = path("HF_HUB_CACHE").or_else(|| below_home("hub")).ok_or_else(|| {
            Error::new(ErrorKind::Io, "no home folder, so no place for the Hub's cache; set HF_HUB_CACHE")
        })?;
        let token_file = || {
            let text = cache::read_small(&path("HF_TOKEN_PATH").or_else(|| below_home("token"))?)?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        };
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(token_file);
        let yes = |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
        let offline = text("HF_HUB_OFFLINE").is_some_and(yes);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Ok(Self { token, offline, ..Self::new(endpoint, cache_dir) })
    }
}

/// Hides the token.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// Asks which commit the revision is and which files it has.
fn listing(http: &Http<'_>, id: &ModelId) -> Result<Listing, Error> {
    let (repository, revision) = (id.repository(), http::escape(id.revision()));
    // With sizes.
    let text = http.text(&format!("/api/models/{repository}/revision/{revision}?blobs=true"))?;
    let odd = || Error::new(ErrorKind::Server, "the server's listing is not one of a Hub; check HF_ENDPOINT");
    let listing: Listing = serde_json::from_slice(&text).map_err(|e| odd().caused_by(e))?;
    if id::is_commit(&listing.commit) { Ok(listing) } else { Err(odd()) }
}

/// What a user opens: the folder, or the first GGUF file.
fn entry(snapshot: &Path, choice: &Choice) -> PathBuf {
    match &choice.weights {
        Weights::Gguf(files) => snapshot.join(files.first().map_or("", String::as_str)),
        _ => snapshot.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Variables, and the cache folder and token that follow from them.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<&'a str>);

    #[test]
    fn the_environment_is_read_as_python_does() {
        let cases: [Case<'_>; 6] = [
            (&[], "/home/u/.cache/huggingface/hub", None),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_TOKEN", "")], "/x/huggingface/hub", None),
            (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")], "/home/u/hf/hub", None),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c", None),
            (
                &[("HF_TOKEN", " a\n"), ("HUGGING_FACE_HUB_TOKEN", "b")],
                "/home/u/.cache/huggingface/hub",
                Some("a"),
            ),
            (&[("HUGGING_FACE_HUB_TOKEN", "b")], "/home/u/.cache/huggingface/hub", Some("b")),
        ];
        for (variables, cache_dir, token) in cases {
            let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
            let hub = Hub::from_variables(get, Some("/home/u".into())).unwrap();
            assert_eq!(
                (hub.cache_dir.to_str(), hub.token.as_deref()),
                (Some(cache_dir), token),
                "{variables:?}"
            );
            assert!(!format!("{hub:?}").contains("\"a\""));
        }
        assert!(Hub::from_variables(|_| None, None).is_err());
    }

    #[test]
    fn endpoint_offline_and_token_file_come_from_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "from-file\n").unwrap();
        let get = |name: &str| match name {
            "HF_HOME" => Some(folder.path().into()),
            "HF_ENDPOINT" => Some("https://mirror/".into()),
            "HF_HUB_OFFLINE" => Some("true".into()),
            _ => None,
        };
        let hub = Hub::from_variables(get, None).unwrap();
        assert_eq!(hub.token.as_deref(), Some("from-file"));
        assert_eq!((hub.endpoint.as_str(), hub.offline), ("https://mirror", true));
    }
}
