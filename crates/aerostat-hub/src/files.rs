//! Which files of a repository make a model. Pure but for reading an index; the same rule serves the Hub's listing
//! and a snapshot on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use aerostat_checkpoint::name_shown;
use serde::Deserialize;

use crate::id::is_path;
use crate::modules;
use crate::{Error, ErrorKind};

/// Files beside the weights that running a model may need.
const METADATA: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tekken.json",
    "tiktoken.model",
    "qwen.tiktoken",
];

/// Largest index read, in bytes.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// How deep below a snapshot files are looked for.
const FOLDER_DEPTH_MAX: usize = 4;

/// How many candidates an error lists.
const LISTED_MAX: usize = 24;

/// What to take of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) metadata: Vec<String>,
    pub(crate) weights: Weights,
}

/// Where the weights are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// In these files.
    Files(Vec<String>),
    /// In the files this index names.
    Indexed(String),
    /// In one GGUF file or split set, first part first.
    Gguf(Vec<String>),
}

impl Choice {
    /// The files that are not weights.
    pub(crate) fn small(&self) -> impl Iterator<Item = &String> {
        let index = match &self.weights {
            Weights::Indexed(index) => Some(index),
            _ => None,
        };
        self.metadata.iter().chain(index)
    }

    /// The files of weights; where an index names them, it is read in the snapshot `folder`.
    pub(crate) fn large(&self, folder: &Path) -> Result<Vec<String>, Error> {
        match &self.weights {
            Weights::Files(files) | Weights::Gguf(files) => Ok(files.clone()),
            Weights::Indexed(index) => shards_of(&folder.join(index)),
        }
    }
}

/// Chooses among the `names` of a repository; `file` is the GGUF file asked for by name, if any.
pub(crate) fn choose(names: &[String], file: Option<&str>) -> Result<Choice, Error> {
    if let Some(file) = file {
        return Ok(Choice { metadata: Vec::new(), weights: Weights::Gguf(named_gguf(names, file)?) });
    }
    let is_wanted = |name: &&String| METADATA.contains(&name.as_str()) || modules::is_part(name, names);
    let metadata = names.iter().filter(is_wanted).cloned().collect();
    let has = |name: &str| names.iter().any(|n| n == name);
    let at_top = |suffix: &str| -> Vec<&String> {
        names.iter().filter(|n| !n.contains('/') && n.ends_with(suffix)).collect()
    };
    let safetensors = at_top(".safetensors");
    let named = |prefix: &str| -> Vec<String> {
        safetensors.iter().filter(|n| n.starts_with(prefix)).map(|n| n.to_string()).collect()
    };
    let others =
        safetensors.iter().filter(|n| !n.starts_with("consolidated")).map(|n| n.to_string()).collect();
    let indexed =
        |index: &str, shards: bool| (shards && has(index)).then(|| Weights::Indexed(index.to_owned()));
    let listed = |files: Vec<String>| (!files.is_empty()).then_some(Weights::Files(files));
    let single = |name: &str| has(name).then(|| Weights::Files(vec![name.to_owned()]));

    let weights = single("model.safetensors")
        .or_else(|| indexed("model.safetensors.index.json", !safetensors.is_empty()))
        .or_else(|| listed(named("model")))
        .or_else(|| listed(others))
        .or_else(|| indexed("consolidated.safetensors.index.json", !safetensors.is_empty()))
        .or_else(|| listed(named("consolidated")))
        .or_else(|| single("pytorch_model.bin"))
        .or_else(|| indexed("pytorch_model.bin.index.json", !at_top(".bin").is_empty()));
    let weights = match weights {
        Some(weights) => weights,
        None => Weights::Gguf(only_gguf(names)?),
    };
    Ok(Choice { metadata, weights })
}

/// The files an index on disk names, each once.
pub(crate) fn shards_of(index: &Path) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let broken = |what: String| {
        let file = index.file_name().unwrap_or_default().to_string_lossy();
        Error::new(ErrorKind::Unsupported, what).in_file(&file)
    };
    let mut text = Vec::new();
    File::open(index)
        .and_then(|file| file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|e| Error::io("read", index, e))?;
    if text.len() as u64 > INDEX_BYTES_MAX {
        return Err(broken(format!("the index is larger than {INDEX_BYTES_MAX} bytes")));
    }
    let parsed: Index = serde_json::from_slice(&text)
        .map_err(|e| broken("the index has no readable `weight_map`".to_owned()).caused_by(e))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match shards.iter().find(|name| !is_path(name)) {
        Some(name) => Err(broken(format!(
            "the index names `{}`, which is not a file name",
            name_shown(name).escape_debug()
        ))),
        None => Ok(shards.into_iter().collect()),
    }
}

/// Whether no part of a split set is missing.
pub(crate) fn is_whole(files: &[String]) -> bool {
    files.first().and_then(|name| split_of(name)).is_none_or(|(_, count)| files.len() as u64 == count)
}

/// Whether everything the choice needs is in the snapshot `folder`, which has `names`.
pub(crate) fn is_complete(folder: &Path, names: &[String], choice: &Choice) -> Result<bool, Error> {
    let is_here = |name: &String| folder.join(name).is_file();
    let config = || names.iter().any(|name| name == "config.json");
    let parts = match &choice.weights {
        Weights::Gguf(files) => is_whole(files),
        Weights::Files(files) => config() && is_whole(files),
        Weights::Indexed(_) => config(),
    };
    Ok(parts && choice.small().all(is_here) && choice.large(folder)?.iter().all(is_here))
}

/// The files below `folder`, as paths with `/`, links followed, dangling ones left out.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut names = names_below(folder);
    names.retain(|name| folder.join(name).is_file());
    names
}

/// The same with links that lead nowhere: in a snapshot, files whose content is gone.
pub(crate) fn names_below(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            if path.is_file() || path.is_symlink() && !path.exists() {
                names.push(format!("{prefix}{name}"));
            } else if depth < FOLDER_DEPTH_MAX && path.is_dir() {
                walk(&path, &format!("{prefix}{name}/"), depth + 1, names);
            }
        }
    }
    let mut names = Vec::new();
    walk(folder, "", 0, &mut names);
    names.sort();
    names
}

/// The one GGUF set of a repository; an error that lists them when there are several.
fn only_gguf(names: &[String]) -> Result<Vec<String>, Error> {
    let mut sets = gguf_sets(names);
    match (sets.len(), sets.pop_first()) {
        (1, Some((_, files))) => Ok(files),
        (0, _) | (_, None) => Err(Error::new(
            ErrorKind::Unsupported,
            "the repository has no safetensors, PyTorch or GGUF weights to run",
        )),
        _ => {
            let message =
                "the repository has several GGUF files; name one after a colon, as in org/name:FILE.gguf";
            Err(Error::new(ErrorKind::Unsupported, format!("{message}:{}", list(names))))
        }
    }
}

/// The set that `file` belongs to; `file` is a path in the repository or the end of just one, or names a quantisation.
fn named_gguf(names: &[String], file: &str) -> Result<Vec<String>, Error> {
    let tail = format!("/{file}");
    let is_file = |files: &[String]| files.iter().any(|name| name == file || name.ends_with(&tail));
    let mut sets = gguf_sets(names);
    match file.ends_with(".gguf") {
        true => sets.retain(|_, files| is_file(files)),
        false => sets.retain(|name, _| is_of(name, file)),
    }
    if sets.len() > 1 && !file.ends_with(".gguf") {
        // `x-UD-Q4_K_M` is of another kind than `x-Q4_K_M`.
        sets.retain(|name, _| !is_of(name, &format!("UD-{file}")) && !is_of(name, &format!("i1-{file}")));
    }
    match (sets.len(), sets.pop_first()) {
        (1, Some((_, files))) => Ok(files),
        _ => {
            let what =
                if file.ends_with(".gguf") { "no file of that name" } else { "no file of that quantisation" };
            let message = format!("{what}, or more than one. The repository's GGUF files:{}", list(names));
            Err(Error::new(ErrorKind::NotFound, message).in_file(file))
        }
    }
}

/// Whether a set of files is of that quantisation, as its name or folder says: `x-Q4_K_M.gguf`, `Q4_K_M/x.gguf`.
pub(crate) fn is_of(name: &str, quantisation: &str) -> bool {
    let (name, wanted) = (name.to_ascii_uppercase(), quantisation.to_ascii_uppercase());
    let mut parts = name.trim_end_matches(".GGUF").split('/');
    parts.any(|part| {
        part.strip_suffix(&wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '.', '_']))
    })
}

/// GGUF files by what they have in common: a file alone by its name, the parts of a split set together. Projectors
/// for images are not models.
pub(crate) fn gguf_sets(names: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in names.iter().filter(|name| name.ends_with(".gguf")) {
        let base = name.rsplit('/').next().unwrap_or(name);
        if !base.starts_with("mmproj") {
            let key = split_of(name).map_or(name.as_str(), |(stem, _)| stem);
            sets.entry(key.to_owned()).or_default().push(name.clone());
        }
    }
    sets.values_mut().for_each(|files| files.sort());
    sets
}

/// `(stem, count)` of a name that ends in `-NNNNN-of-NNNNN.EXT`.
fn split_of(name: &str) -> Option<(&str, u64)> {
    let (rest, _extension) = name.rsplit_once('.')?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    part.parse::<u64>().ok()?;
    Some((stem, count.parse().ok()?))
}

/// The first files of all GGUF sets, for a message.
fn list(names: &[String]) -> String {
    let sets = gguf_sets(names);
    let first = sets.values().filter_map(|files| files.first());
    let mut text: String =
        first.take(LISTED_MAX).map(|name| format!("\n  {}", name_shown(name).escape_debug())).collect();
    if sets.len() > LISTED_MAX {
        text.push_str(&format!("\n  and {} more", sets.len() - LISTED_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'a> = (&'a [&'a str], Option<&'a str>, Result<Weights, ErrorKind>);

    fn weights(names: &[&str], file: Option<&str>) -> Result<Weights, ErrorKind> {
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        choose(&names, file).map(|choice| choice.weights).map_err(|e| e.kind())
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn weights_are_chosen_by_preference() {
        let index = "model.safetensors.index.json";
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let parts = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"];
        let files = |names: &[&str]| Ok(Weights::Files(owned(names)));
        let gguf = |names: &[&str]| Ok(Weights::Gguf(owned(names)));
        let quantised = [
            "a-Q4_K_M.gguf",
            "a-UD-Q4_K_M.gguf",
            "a-Q4_K.gguf",
            "a-BF16.gguf",
            "IQ2_XS/a-00001-of-00001.gguf",
        ];
        let cases: [Case<'_>; 18] = [
            (&["model.safetensors", "pytorch_model.bin"], None, files(&["model.safetensors"])),
            (&[index, shards[0], shards[1]], None, Ok(Weights::Indexed(index.to_owned()))),
            (&[shards[0], shards[1], "consolidated.safetensors"], None, files(&shards)),
            (&["layers-0.safetensors", "consolidated.00.pth"], None, files(&["layers-0.safetensors"])),
            (&["consolidated.safetensors", "params.json"], None, files(&["consolidated.safetensors"])),
            (&["pytorch_model.bin", "training_args.bin", "tf_model.h5"], None, files(&["pytorch_model.bin"])),
            (&["onnx/model.safetensors", "original/model.safetensors"], None, Err(ErrorKind::Unsupported)),
            (&["a-Q4_0.gguf", "mmproj-a.gguf", "config.json"], None, gguf(&["a-Q4_0.gguf"])),
            (&[parts[1], parts[0]], None, gguf(&parts)),
            (&["a-Q4_0.gguf", "a-Q8_0.gguf"], None, Err(ErrorKind::Unsupported)),
            (&["a-Q4_0.gguf", "a-Q8_0.gguf"], Some("a-Q8_0.gguf"), gguf(&["a-Q8_0.gguf"])),
            (&[parts[1], parts[0], "a.gguf"], Some("m-00001-of-00002.gguf"), gguf(&parts)),
            (&["a.gguf", "model.safetensors"], Some("b.gguf"), Err(ErrorKind::NotFound)),
            (&quantised, Some("q4_k_m"), gguf(&["a-Q4_K_M.gguf"])),
            (&quantised, Some("UD-Q4_K_M"), gguf(&["a-UD-Q4_K_M.gguf"])),
            (&quantised, Some("IQ2_XS"), gguf(&["IQ2_XS/a-00001-of-00001.gguf"])),
            (&quantised, Some("F16"), Err(ErrorKind::NotFound)),
            (&["a-Q4_0.gguf", "b-Q4_0.gguf"], Some("Q4_0"), Err(ErrorKind::NotFound)),
        ];
        for (names, file, want) in cases {
            assert_eq!(weights(names, file), want, "{names:?} {file:?}");
        }
    }

    #[test]
    fn metadata_is_only_what_running_needs() {
        let names =
            owned(&["README.md", "config.json", "model.safetensors", "tokenizer.json", "sub/config.json"]);
        let metadata = choose(&names, None).map(|choice| choice.metadata).unwrap_or_default();
        assert_eq!(metadata, owned(&["config.json", "tokenizer.json"]));
    }
}
