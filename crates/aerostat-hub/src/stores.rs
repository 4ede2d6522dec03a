//! Models that are on this machine: in the Hub's cache, in Aerostat's own, and in the stores of other programs, where they are
//! read as they lie.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use crate::cache::{Folder, read_small};
use crate::files::{self, Weights, gguf_sets, is_of};
use crate::id::is_path;
use crate::{Error, ErrorKind, Hub, ModelId, demo};

/// Who keeps a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// The Hub's cache, which other programs share.
    Hub,
    /// Aerostat's own cache: the demo model.
    Own,
    /// Ollama.
    Ollama,
    /// LM Studio.
    LmStudio,
    /// llama.cpp's cache of downloads.
    LlamaCpp,
}

impl Store {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hub => "Hugging Face",
            Self::Own => "Aerostat",
            Self::Ollama => "Ollama",
            Self::LmStudio => "LM Studio",
            Self::LlamaCpp => "llama.cpp",
        }
    }

    /// What the name of a model in it begins with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Hub | Self::Own => "",
            Self::Ollama => "ollama:",
            Self::LmStudio => "lmstudio:",
            Self::LlamaCpp => "llama.cpp:",
        }
    }
}

/// A model that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What a user gives as MODEL.
    pub name: String,
    /// Who keeps it.
    pub store: Store,
    /// Its folder or GGUF file.
    pub path: PathBuf,
    /// Bytes on disk; what several share counts for each.
    pub bytes: u64,
    /// When it was read or written last, as far as the system tells.
    pub used: Option<SystemTime>,
    /// Whether all of it is here.
    pub complete: bool,
}

/// Where models are looked for.
#[derive(Clone, Debug)]
pub struct Stores {
    hub: Hub,
    own: Option<PathBuf>,
    ollama: Vec<PathBuf>,
    lm_studio: Vec<PathBuf>,
    llama_cpp: Vec<PathBuf>,
}

/// Files below a store's folder at most; what is more is not looked at.
const FILES_MAX: usize = 20_000;

impl Stores {
    /// Where the environment says: the Hub's variables, `OLLAMA_MODELS`, `LLAMA_CACHE`, and the usual places. `own` is Aerostat's
    /// own cache.
    ///
    /// # Errors
    /// As [`Hub::from_environment`].
    pub fn from_environment(own: Option<PathBuf>) -> Result<Self, Error> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = env::home_dir();
        let below = |path: &str| home.as_ref().map(|home| home.join(path));
        let cache = || match cfg!(target_os = "macos") {
            true => below("Library/Caches"),
            false => variable("XDG_CACHE_HOME").or_else(|| below(".cache")),
        };
        let ollama = match variable("OLLAMA_MODELS") {
            Some(path) => vec![path],
            // The second is where its service keeps them.
            None => [below(".ollama/models"), Some("/usr/share/ollama/.ollama/models".into())]
                .into_iter()
                .flatten()
                .collect(),
        };
        let pointer = below(".lmstudio-home-pointer").and_then(|path| read_small(&path));
        let lm_studio = match pointer {
            Some(path) => vec![PathBuf::from(path.trim()).join("models")],
            None => {
                [below(".lmstudio/models"), below(".cache/lm-studio/models")].into_iter().flatten().collect()
            }
        };
        let llama_cpp = variable("LLAMA_CACHE").or_else(|| Some(cache()?.join("llama.cpp")));
        let llama_cpp = llama_cpp.into_iter().collect();
        Ok(Self { hub: Hub::from_environment()?, own, ollama, lm_studio, llama_cpp })
    }

    /// All models that are here, by store and name.
    pub fn list(&self) -> Vec<Found> {
        let mut found = self.hub_models();
        found.extend(self.own.iter().filter_map(|own| demo_model(own)));
        found.extend(self.ollama.iter().flat_map(|root| ollama_models(root)));
        found.extend(self.lm_studio.iter().flat_map(|root| gguf_files(root, Store::LmStudio)));
        found.extend(self.llama_cpp.iter().flat_map(|root| gguf_files(root, Store::LlamaCpp)));
        found.sort_by(|a, b| (a.store, &a.name).cmp(&(b.store, &b.name)));
        found
    }

    /// The model of a name that begins with a store of another program: `ollama:llama3.2`, `lmstudio:publisher/model`,
    /// `llama.cpp:FILE.gguf`. `None` if it begins with none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], with what is there; [`ErrorKind::Unsupported`] for what Ollama made of several files.
    pub fn find(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        if let Some(name) = name.strip_prefix(Store::Ollama.prefix()) {
            return self.find_ollama(name).map(Some);
        }
        for (store, roots) in [(Store::LmStudio, &self.lm_studio), (Store::LlamaCpp, &self.llama_cpp)] {
            if let Some(wanted) = name.strip_prefix(store.prefix()) {
                let all: Vec<Found> = roots.iter().flat_map(|root| gguf_files(root, store)).collect();
                return one_of(store, &all, wanted).map(Some);
            }
        }
        Ok(None)
    }

    fn find_ollama(&self, name: &str) -> Result<PathBuf, Error> {
        let manifest = ollama_manifest(name);
        for root in &self.ollama {
            if let Some(text) =
                manifest.as_ref().and_then(|path| read_small(&root.join("manifests").join(path)))
            {
                let (path, is_there) = ollama_blob(root, &text).map_err(|e| e.in_repository(name))?;
                let gone = || {
                    let why = format!(
                        "Ollama has no file of its weights, {}; `ollama pull {name}` brings it",
                        path.display()
                    );
                    Error::new(ErrorKind::NotFound, why).in_repository(name)
                };
                return is_there.then(|| path.clone()).ok_or_else(gone);
            }
        }
        let all: Vec<Found> = self.ollama.iter().flat_map(|root| ollama_models(root)).collect();
        Err(not_there(Store::Ollama, name, &all))
    }

    /// The snapshots of the Hub's cache.
    fn hub_models(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.hub.cache_dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(repository) = name.strip_prefix("models--").map(|name| name.replacen("--", "/", 1))
            else {
                continue;
            };
            let Ok(id) = repository.parse::<ModelId>() else { continue };
            let folder = Folder::new(&self.hub.cache_dir, &id);
            for revision in folder.revisions() {
                let Ok(id) = format!("{repository}@{revision}").parse::<ModelId>() else { continue };
                found.extend(self.snapshot(&folder, &id));
            }
        }
        found
    }

    /// What a snapshot holds: a model, or a model for each GGUF file.
    fn snapshot(&self, folder: &Folder, id: &ModelId) -> Vec<Found> {
        let Some(commit) = folder.commit_of(id.revision()) else { return Vec::new() };
        let snapshot = folder.snapshot(&commit);
        let names = files::names_below(&snapshot);
        let all = |names: &[String]| names.iter().map(|name| snapshot.join(name)).collect::<Vec<_>>();
        let found = |name: String, path: PathBuf, files: &[PathBuf], complete: bool| {
            let (bytes, used) = measured(files);
            Found { name, store: Store::Hub, path, bytes, used, complete }
        };
        if let Ok(choice) = files::choose(&names, None)
            && !matches!(choice.weights, Weights::Gguf(_))
        {
            let complete = files::is_complete(&snapshot, &names, &choice).unwrap_or(false);
            return vec![found(id.to_string(), snapshot.clone(), &all(&names), complete)];
        }
        let sets = gguf_sets(&names);
        if sets.is_empty() {
            // Nothing but small files, as an interrupted download leaves it.
            return vec![found(id.to_string(), snapshot.clone(), &all(&names), false)];
        }
        let several = sets.len() > 1;
        let set = |files: Vec<String>| {
            let first = files.first().cloned().unwrap_or_default();
            let name = if several { format!("{id}:{first}") } else { id.to_string() };
            let complete = files::is_whole(&files) && all(&files).iter().all(|path| path.is_file());
            found(name, snapshot.join(&first), &all(&files), complete)
        };
        sets.into_values().map(set).collect()
    }

    /// Removes a model of the Hub's cache or the demo model of Aerostat's own. What other snapshots of the repository hold, too,
    /// stays. Gives the bytes that were freed.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for the stores of other programs; [`ErrorKind::Io`], also while another process downloads it.
    pub fn remove(&self, found: &Found) -> Result<u64, Error> {
        match found.store {
            Store::Hub => {
                let id = found.name.parse::<ModelId>()?;
                Folder::new(&self.hub.cache_dir, &id).remove(id.revision(), id.file())
            }
            Store::Own => {
                fs::remove_file(&found.path).map_err(|e| Error::io("remove", &found.path, e))?;
                Ok(found.bytes)
            }
            store => {
                let program = store.name();
                let message = match store {
                    Store::Ollama => format!("it is {program}'s: `ollama rm` removes it"),
                    _ => format!("it is {program}'s, which removes it; it lies at {}", found.path.display()),
                };
                Err(Error::new(ErrorKind::Unsupported, message).in_repository(&found.name))
            }
        }
    }
}

/// Bytes of files, each counted once, and when one of them was used last.
fn measured(paths: &[PathBuf]) -> (u64, Option<SystemTime>) {
    let real: BTreeSet<PathBuf> = paths.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let (mut bytes, mut used) = (0, None);
    for meta in real.iter().filter_map(|path| fs::metadata(path).ok()) {
        bytes += meta.len();
        used = used.max(meta.accessed().ok().max(meta.modified().ok()));
    }
    (bytes, used)
}

fn demo_model(own: &Path) -> Option<Found> {
    let path = demo::kept(own);
    let (bytes, used) = measured(std::slice::from_ref(&path));
    path.is_file().then(|| Found {
        name: "demo".to_owned(),
        store: Store::Own,
        path,
        bytes,
        used,
        complete: true,
    })
}

/// The GGUF models below a folder.
fn gguf_files(root: &Path, store: Store) -> Vec<Found> {
    let names = files::files_below(root);
    let sets = gguf_sets(names.get(..FILES_MAX).unwrap_or(&names));
    let found = |files: Vec<String>| {
        let first = files.first()?;
        let paths: Vec<PathBuf> = files.iter().map(|name| root.join(name)).collect();
        let (bytes, used) = measured(&paths);
        let name = format!("{}{first}", store.prefix());
        Some(Found { name, store, path: root.join(first), bytes, used, complete: files::is_whole(&files) })
    };
    sets.into_values().filter_map(found).collect()
}

/// The one of a store whose name is, begins or ends as wanted, or whose quantisation is named behind a colon.
fn one_of(store: Store, all: &[Found], wanted: &str) -> Result<PathBuf, Error> {
    let (folder, tag) = wanted.split_once(':').unwrap_or((wanted, ""));
    let fits = |found: &&Found| {
        let name = found.name.strip_prefix(store.prefix()).unwrap_or(&found.name);
        let below = name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let file = name.strip_suffix(folder).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
        (below || file) && (tag.is_empty() || is_of(name, tag))
    };
    let fitting: Vec<&Found> = all.iter().filter(fits).collect();
    match fitting.as_slice() {
        [one] => Ok(one.path.clone()),
        [] => Err(not_there(store, wanted, all)),
        several => {
            let names: Vec<&str> = several.iter().map(|found| found.name.as_str()).take(24).collect();
            let message = format!("there are several; name one:\n  {}", names.join("\n  "));
            Err(Error::new(ErrorKind::NotFound, message).in_repository(wanted))
        }
    }
}

fn not_there(store: Store, wanted: &str, all: &[Found]) -> Error {
    let names: Vec<&str> = all.iter().map(|found| found.name.as_str()).take(24).collect();
    let message = match names.is_empty() {
        true => format!("{} has no models on this machine", store.name()),
        false => format!("{} does not have it; it has:\n  {}", store.name(), names.join("\n  ")),
    };
    Error::new(ErrorKind::NotFound, message).in_repository(wanted)
}

/// What Ollama writes about a model.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

/// Where Ollama's manifest of a name is: `llama3.2`, `llama3.2:1b`, `user/model`, `hf.co/org/name:Q4_K_M`.
fn ollama_manifest(name: &str) -> Option<PathBuf> {
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    };
    let path = match name.split('/').count() {
        1 => format!("registry.ollama.ai/library/{name}/{tag}"),
        2 => format!("registry.ollama.ai/{name}/{tag}"),
        _ => format!("{name}/{tag}"),
    };
    is_path(&path).then(|| path.into())
}

/// The file of weights that a manifest names, and whether it is there.
fn ollama_blob(root: &Path, manifest: &str) -> Result<(PathBuf, bool), Error> {
    let wrong = |what: &str| Error::new(ErrorKind::Unsupported, format!("Ollama's manifest {what}"));
    let manifest: Manifest =
        serde_json::from_str(manifest).map_err(|e| wrong("cannot be read").caused_by(e))?;
    let of =
        |kind: &'static str| manifest.layers.iter().filter(move |layer| layer.media_type.ends_with(kind));
    if of("image.adapter").next().is_some() {
        return Err(wrong("adds an adapter to the model, which is not read from there"));
    }
    let (Some(layer), None) = (of("image.model").next(), of("image.model").nth(1)) else {
        return Err(wrong("names no single file of weights"));
    };
    let digest = layer.digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && crate::id::is_hex(hex));
    let digest = digest.ok_or_else(|| wrong("names a file in a way that is not known"))?;
    let path = root.join("blobs").join(format!("sha256-{digest}"));
    let is_there = path.is_file();
    Ok((path, is_there))
}

/// The models of Ollama's store.
fn ollama_models(root: &Path) -> Vec<Found> {
    let manifests = root.join("manifests");
    let names = files::files_below(&manifests);
    let found = |name: &String| {
        let (path, complete) = ollama_blob(root, &read_small(&manifests.join(name))?).ok()?;
        let (bytes, used) = measured(std::slice::from_ref(&path));
        let (model, tag) = name.rsplit_once('/')?;
        let model = model.strip_prefix("registry.ollama.ai/").unwrap_or(model);
        let model = model.strip_prefix("library/").unwrap_or(model);
        let tag = if tag == "latest" { String::new() } else { format!(":{tag}") };
        let name = format!("{}{model}{tag}", Store::Ollama.prefix());
        Some(Found { name, store: Store::Ollama, path, bytes, used, complete })
    };
    names.iter().take(FILES_MAX).filter_map(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stores(root: &Path) -> Stores {
        Stores {
            hub: Hub::new("http://nowhere", root.join("hub")),
            own: Some(root.join("own")),
            ollama: vec![root.join("ollama")],
            lm_studio: vec![root.join("lmstudio")],
            llama_cpp: vec![root.join("llama.cpp")],
        }
    }

    fn put(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn ollama(root: &Path, manifest: &str, hex: char, layers: &[&str]) {
        let digest = |i: usize| format!("{i}{}", hex.to_string().repeat(63));
        let layers: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(i, kind)| {
                put(root.join(format!("ollama/blobs/sha256-{}", digest(i))), "weights");
                format!(
                    "{{\"mediaType\": \"application/vnd.ollama.image.{kind}\", \"digest\": \"sha256:{}\"}}",
                    digest(i)
                )
            })
            .collect();
        put(root.join("ollama/manifests").join(manifest), &format!("{{\"layers\": [{}]}}", layers.join(",")));
    }

    #[test]
    fn models_of_other_programs_are_found_where_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        ollama(root, "registry.ollama.ai/library/llama3.2/latest", 'a', &["model", "template", "params"]);
        ollama(root, "registry.ollama.ai/library/llama3.2/1b", 'b', &["model"]);
        ollama(root, "hf.co/org/name/Q4_K_M", 'c', &["model", "projector"]);
        ollama(root, "registry.ollama.ai/me/mine/latest", 'd', &["model", "adapter"]);
        put(root.join("lmstudio/pub/model-GGUF/model-Q4_K_M.gguf"), "weights");
        put(root.join("lmstudio/pub/model-GGUF/model-Q8_0.gguf"), "weights");
        put(root.join("llama.cpp/org_name_x-Q4_0.gguf"), "weights");
        put(root.join("llama.cpp/manifest=org=name=latest.json"), "{}");
        let stores = stores(root);
        let found =
            |name: &str| stores.find(name).unwrap().map(|path| path.strip_prefix(root).unwrap().to_owned());
        let blob = |first: char, rest: char| {
            PathBuf::from(format!("ollama/blobs/sha256-{first}{}", rest.to_string().repeat(63)))
        };
        for (name, path) in [
            ("ollama:llama3.2", blob('0', 'a')),
            ("ollama:llama3.2:1b", blob('0', 'b')),
            ("ollama:hf.co/org/name:Q4_K_M", blob('0', 'c')),
            ("lmstudio:pub/model-GGUF:q8_0", "lmstudio/pub/model-GGUF/model-Q8_0.gguf".into()),
            ("lmstudio:model-Q4_K_M.gguf", "lmstudio/pub/model-GGUF/model-Q4_K_M.gguf".into()),
            ("llama.cpp:org_name_x-Q4_0.gguf", "llama.cpp/org_name_x-Q4_0.gguf".into()),
        ] {
            assert_eq!(found(name), Some(path), "{name}");
        }
        assert_eq!(found("org/name"), None);
        fs::remove_file(root.join(blob('0', 'b'))).unwrap();
        for (name, says) in [
            ("ollama:phi", "ollama:llama3.2"),
            ("ollama:llama3.2:1b", "`ollama pull llama3.2:1b`"),
            ("ollama:../../etc/passwd", "does not have it"),
            ("ollama:me/mine", "adapter"),
            ("lmstudio:pub/model-GGUF", "there are several"),
            ("llama.cpp:x", "org_name_x-Q4_0.gguf"),
        ] {
            let error = stores.find(name).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        let names: Vec<String> = stores.list().into_iter().map(|found| found.name).collect();
        let want = [
            "ollama:hf.co/org/name:Q4_K_M",
            "ollama:llama3.2",
            "ollama:llama3.2:1b",
            "lmstudio:pub/model-GGUF/model-Q4_K_M.gguf",
            "lmstudio:pub/model-GGUF/model-Q8_0.gguf",
            "llama.cpp:org_name_x-Q4_0.gguf",
        ];
        assert_eq!(names, want);
        for found in stores.list() {
            assert_eq!(stores.remove(&found).unwrap_err().kind(), ErrorKind::Unsupported);
            assert_eq!(found.path.exists(), found.complete);
        }
    }

    const COMMITS: [&str; 2] =
        ["1111111111111111111111111111111111111111", "2222222222222222222222222222222222222222"];

    /// A cache with two revisions of one model that share their weights, and one with two GGUF files.
    #[cfg(unix)]
    fn hub_cache(root: &Path) {
        let id: ModelId = "org/name".parse().unwrap();
        let folder = Folder::new(&root.join("hub"), &id);
        for (commit, revision, config) in [(COMMITS[0], "main", "c1"), (COMMITS[1], "v2", "c2")] {
            for (name, etag) in [("config.json", config), ("model.safetensors", "w")] {
                put(folder.blob(etag), &"x".repeat(100));
                folder.link(commit, name, etag).unwrap();
            }
            folder.set_commit_of(revision, commit).unwrap();
        }
        let id: ModelId = "org/gguf".parse().unwrap();
        let folder = Folder::new(&root.join("hub"), &id);
        for (name, etag) in [("a-Q4_0.gguf", "q4"), ("a-Q8_0.gguf", "q8")] {
            put(folder.blob(etag), &"x".repeat(100));
            folder.link(COMMITS[0], name, etag).unwrap();
        }
        folder.set_commit_of("main", COMMITS[0]).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn what_is_removed_from_the_cache_leaves_what_others_share() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        hub_cache(root);
        let stores = stores(root);
        let names =
            |stores: &Stores| stores.list().into_iter().map(|f| (f.name, f.bytes)).collect::<Vec<_>>();
        let want = [
            ("org/gguf:a-Q4_0.gguf", 100),
            ("org/gguf:a-Q8_0.gguf", 100),
            ("org/name", 200),
            ("org/name@v2", 200),
        ];
        assert_eq!(names(&stores), want.map(|(name, bytes)| (name.to_owned(), bytes)));
        let of = |name: &str| stores.list().into_iter().find(|found| found.name == name).unwrap();
        // The weights are those of the other revision, too.
        assert_eq!(stores.remove(&of("org/name")).unwrap(), 100);
        assert!(of("org/name@v2").complete);
        assert_eq!(stores.remove(&of("org/name@v2")).unwrap(), 200);
        assert!(!root.join("hub/models--org--name").exists());
        assert_eq!(stores.remove(&of("org/gguf:a-Q4_0.gguf")).unwrap(), 100);
        assert_eq!(names(&stores), [("org/gguf".to_owned(), 100)]);
    }

    #[cfg(unix)]
    #[test]
    fn what_has_lost_a_blob_is_listed_as_incomplete_and_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        hub_cache(folder.path());
        let stores = stores(folder.path());
        for (repository, blob) in [("org--name", "c2"), ("org--gguf", "q8")] {
            fs::remove_file(folder.path().join(format!("hub/models--{repository}/blobs/{blob}"))).unwrap();
        }
        let list = stores.list();
        let incomplete: Vec<&Found> = list.iter().filter(|found| !found.complete).collect();
        let names: Vec<&str> = incomplete.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["org/gguf:a-Q8_0.gguf", "org/name@v2"]);
        for found in incomplete {
            stores.remove(found).unwrap();
        }
        assert!(stores.list().len() == 2 && stores.list().iter().all(|found| found.complete));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_being_downloaded_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        hub_cache(folder.path());
        let stores = stores(folder.path());
        let cache = Folder::new(&folder.path().join("hub"), &"org/name".parse().unwrap());
        let lock = cache.lock("w", &false.into(), || {}).unwrap();
        let found = stores.list().into_iter().find(|found| found.name == "org/name").unwrap();
        assert!(stores.remove(&found).unwrap_err().to_string().contains("another process"));
        drop(lock);
        stores.remove(&found).unwrap();
    }
}
