//! Finding out what lies at a path, and opening it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aerostat_input::{json_of_python, name_shown};
use serde_json::Value;

use crate::gguf::{self, SplitName};
use crate::limits::{CONFIG_BYTES_MAX, CONFIG_COMMAS_MAX, HEADER_BYTES_MAX};
use crate::safetensors::{self, Index};
use crate::{
    ADAPTER_CONFIG, AdapterBeside, Catalog, Checkpoint, Config, Error, ErrorKind, HfConfig, TextFiles, disk,
    packed, pytorch,
};

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
/// What names of an adapter's weights start with.
const ADAPTER_WEIGHTS: &str = "adapter_";
/// What names of files end with that may be read of a model.
const OF_MODELS: [&str; 8] =
    [".json", ".safetensors", ".bin", ".gguf", ".jinja", ".txt", ".model", ".tiktoken"];
/// The most GGUF files that a message names.
const GGUF_SHOWN_MAX: usize = 8;
const WANTED: &str =
    "a model is a folder with config.json and *.safetensors, as on the Hugging Face Hub, or a .gguf file";

/// How the weights of a Hugging Face folder are named and opened.
struct Layout {
    /// The only file of a model that has one.
    single: &'static str,
    /// The index of a model that has several.
    index: &'static str,
    suffix: &'static str,
    /// What names of numbered shards start with.
    numbered: &'static str,
    open: fn(&Path) -> Result<Catalog, Error>,
}

const SAFETENSORS: Layout = Layout {
    single: "model.safetensors",
    index: "model.safetensors.index.json",
    suffix: ".safetensors",
    numbered: "model-",
    open: safetensors::open,
};

const PYTORCH: Layout = Layout {
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    suffix: ".bin",
    numbered: "pytorch_model-",
    open: pytorch::open,
};

impl Checkpoint {
    /// Opens a folder with `config.json` and safetensors files (PyTorch files where there are none), or a `.gguf` file.
    ///
    /// A folder without either that holds exactly one GGUF model (one file or one split set) opens as that model.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no model at `path`, [`ErrorKind::Unsupported`] for formats that are not read,
    /// [`ErrorKind::Config`] for malformed JSON, and the kinds that concern headers. Each names the file and, where there
    /// is one, the tensor.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    path,
                    format!("there is no such file or folder; {WANTED}"),
                ));
            }
            metadata => metadata.map_err(|error| Error::io(path, "open it", error))?,
        };
        if metadata.is_dir() { open_folder(path) } else { open_file(path) }
    }
}

fn open_file(path: &Path) -> Result<Checkpoint, Error> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if matches!(extension, "safetensors" | "bin" | "json") {
        let message = "this is one file of a model; give the folder that holds it and config.json";
        return Err(Error::new(ErrorKind::Unsupported, path, message));
    }
    if extension != "gguf" && !is_gguf(path)? {
        return Err(Error::new(ErrorKind::Unsupported, path, format!("this is not a GGUF file; {WANTED}")));
    }
    open_gguf(path)
}

fn open_gguf(path: &Path) -> Result<Checkpoint, Error> {
    let (path, metadata, catalog) = gguf::open(path)?;
    Ok(Checkpoint { path, catalog, config: Config::Gguf(metadata), text: TextFiles::Gguf, adapter: None })
}

fn is_gguf(path: &Path) -> Result<bool, Error> {
    let (source, file) = disk::open(path)?;
    Ok(file.bytes >= 4 && disk::read_bytes(source, 4, path)? == b"GGUF")
}

fn open_folder(folder: &Path) -> Result<Checkpoint, Error> {
    let names = file_names(folder)?;
    if !names.contains(packed::SIDECAR) && folder.join(packed::NOTES).is_dir() {
        let message = "packing this folder was not finished; the same `aerostat pack` again goes on with it";
        return Err(Error::new(ErrorKind::MissingShard, folder, message));
    }
    let has = |name: &str| names.contains(name);
    let any = |suffixes: &[&str]| {
        let mut weights = names.iter().filter(|name| !name.starts_with(ADAPTER_WEIGHTS));
        weights.any(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)))
    };
    let not_found = |message: String| Err(Error::new(ErrorKind::NotFound, folder, message));
    let safetensors = any(&[SAFETENSORS.suffix]) || has(SAFETENSORS.index);
    // Other pickles lie around that are no weights: those of optimizers, and of whoever wrote the name.
    let pytorch =
        has(PYTORCH.single) || has(PYTORCH.index) || names.iter().any(|name| PYTORCH.is_numbered(name));
    if has(CONFIG) && (safetensors || pytorch) {
        return open_hugging_face(folder, &names, if safetensors { &SAFETENSORS } else { &PYTORCH });
    }
    let models = gguf_models(&names);
    match models.as_slice() {
        [one] => return open_gguf(&folder.join(one)),
        [] => {}
        several => {
            let shown: Vec<_> = several.iter().take(GGUF_SHOWN_MAX).map(|name| name_shown(name)).collect();
            let more = if several.len() > GGUF_SHOWN_MAX { ", …" } else { "" };
            return not_found(format!(
                "the folder holds {} GGUF models; name one: {}{more}",
                several.len(),
                shown.join(", ")
            ));
        }
    }
    if let Some(adapter) = adapter(folder, &names)? {
        return Err(not_a_model(&adapter));
    }
    if safetensors || pytorch {
        let suffix = if safetensors { SAFETENSORS.suffix } else { PYTORCH.suffix };
        return not_found(format!(
            "the folder has *{suffix} but no {CONFIG}; copy it from where they are from"
        ));
    }
    if any(&[".bin", ".pt", ".pth"]) {
        let message = "the folder has pickles (*.bin, *.pt), but none is named as the weights of a model are: \
                       pytorch_model.bin, or pytorch_model-00001-of-00002.bin and so on";
        return Err(Error::new(ErrorKind::Unsupported, folder, message));
    }
    if has(CONFIG) {
        return not_found(format!(
            "the folder has {CONFIG} but no *.safetensors; was the download finished?"
        ));
    }
    not_found(format!("the folder holds no model; {WANTED}"))
}

/// The adapter of a folder, if `adapter_config.json` is there.
fn adapter(folder: &Path, names: &BTreeSet<String>) -> Result<Option<AdapterBeside>, Error> {
    if !names.contains(ADAPTER_CONFIG) {
        return Ok(None);
    }
    let path = folder.join(ADAPTER_CONFIG);
    let config = read_json_object(&path)?;
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(|text| name_shown(text).into_owned());
    Ok(Some(AdapterBeside { kind: text("peft_type"), base: text("base_model_name_or_path"), path }))
}

/// What is said where an adapter stands in the place of a model.
fn not_a_model(adapter: &AdapterBeside) -> Error {
    let kind = adapter.kind.as_deref().map(|kind| format!(" ({kind})")).unwrap_or_default();
    let base = match &adapter.base {
        Some(base) => format!("the model `{base}`"),
        None => "another model".to_owned(),
    };
    let message = format!(
        "this is an adapter{kind} of {base}, not a model: give that model, and this folder as \
         --adapter"
    );
    Error::new(ErrorKind::Unsupported, &adapter.path, message)
}

fn open_hugging_face(folder: &Path, names: &BTreeSet<String>, layout: &Layout) -> Result<Checkpoint, Error> {
    let file = |name: &str| names.contains(name).then(|| folder.join(name));
    let path = folder.join(CONFIG);
    let config = read_json_object(&path)?;
    let generation = file(GENERATION_CONFIG).map(|path| read_json_object(&path)).transpose()?;
    let text = text_files(folder, names);
    Ok(Checkpoint {
        path: folder.to_owned(),
        catalog: open_guarded(folder, names, layout)?,
        config: Config::HuggingFace(HfConfig { path, config, generation }),
        text,
        adapter: adapter(folder, names)?,
    })
}

/// The files of a tokenizer among those of a folder.
fn text_files(folder: &Path, names: &BTreeSet<String>) -> TextFiles {
    let file = |name: &str| names.contains(name).then(|| folder.join(name));
    let ranks = || names.iter().find(|name| name.ends_with(".tiktoken")).map(|name| folder.join(name));
    let released = ["tekken.json", "tokenizer.model", "tiktoken.model"].into_iter().find_map(file);
    let merged = || file("merges.txt").and_then(|_| file("vocab.json"));
    TextFiles::HuggingFace {
        tokenizer_json: file("tokenizer.json"),
        tokenizer_model: released.or_else(ranks).or_else(merged),
        tokenizer_config: file("tokenizer_config.json"),
        chat_template: file("chat_template.jinja").or_else(|| file("chat_template.json")),
        special_tokens_map: file("special_tokens_map.json"),
    }
}

impl TextFiles {
    /// The files of a tokenizer in a folder that need not hold a model.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the folder cannot be listed.
    pub fn in_folder(folder: &Path) -> Result<TextFiles, Error> {
        Ok(text_files(folder, &file_names(folder)?))
    }
}

/// The weights, and what a sidecar says of them.
fn open_guarded(folder: &Path, names: &BTreeSet<String>, layout: &Layout) -> Result<Catalog, Error> {
    let catalog = open_weights(folder, names, layout)?;
    if names.contains(packed::SIDECAR) { packed::open(folder, catalog) } else { Ok(catalog) }
}

fn open_weights(folder: &Path, names: &BTreeSet<String>, layout: &Layout) -> Result<Catalog, Error> {
    if names.contains(layout.single) {
        return (layout.open)(&folder.join(layout.single));
    }
    if names.contains(layout.index) {
        return open_indexed(folder, layout);
    }
    let mut shards: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| layout.may_be_shard(name)).collect();
    // Beside numbered shards, other files are copies of the same weights or adapters.
    if shards.iter().any(|name| layout.is_numbered(name)) {
        shards.retain(|name| layout.is_numbered(name));
    }
    check_numbered(folder, &shards, layout)?;
    let catalogs = shards.iter().map(|name| (layout.open)(&folder.join(name)));
    Catalog::merge(catalogs.collect::<Result<_, _>>()?, |_, _| true)
}

/// A sharded model with an index. The index decides which of two tensors of one name counts.
fn open_indexed(folder: &Path, layout: &Layout) -> Result<Catalog, Error> {
    let name = layout.index;
    let path = folder.join(name);
    let json = disk::read(&path, HEADER_BYTES_MAX)?;
    let index = Index::parse(&json, &path)?;
    let mut catalogs = Vec::with_capacity(index.shards.len());
    for shard in &index.shards {
        let shard = folder.join(shard.as_ref());
        if !shard.exists() {
            let message = format!("{name} names this file, but it is not there; was the download finished?");
            return Err(Error::new(ErrorKind::MissingShard, &shard, message));
        }
        catalogs.push((layout.open)(&shard)?);
    }
    let catalog =
        Catalog::merge(catalogs, |shard, name| index.shard_of(name).is_none_or(|wanted| wanted == shard))?;
    for (tensor, shard) in &index.tensors {
        if catalog.get(tensor).is_none() {
            let shard = index.shards.get(*shard).map_or("", |shard| shard.as_ref());
            let message = format!("{name} says that it is in this file, but it is not");
            return Err(
                Error::new(ErrorKind::MissingTensor, &folder.join(shard), message).with_tensor(tensor)
            );
        }
    }
    Ok(catalog)
}

/// Of shards named `…-00001-of-00003.safetensors`, all must be there.
fn check_numbered(folder: &Path, shards: &[&str], layout: &Layout) -> Result<(), Error> {
    for name in shards {
        let Some((prefix, count)) = layout.shard_count(name) else { continue };
        for number in 1..=count {
            let shard = format!("{prefix}-{number:05}-of-{count:05}{}", layout.suffix);
            if !shards.contains(&shard.as_str()) {
                let message = format!("the file is not there, but {name} is of the same set");
                return Err(Error::new(ErrorKind::MissingShard, &folder.join(shard), message));
            }
        }
    }
    Ok(())
}

impl Layout {
    fn may_be_shard(&self, name: &str) -> bool {
        name.ends_with(self.suffix) && !name.starts_with(ADAPTER_WEIGHTS)
    }

    fn is_numbered(&self, name: &str) -> bool {
        name.starts_with(self.numbered) && self.shard_count(name).is_some()
    }

    /// The prefix and the number of files of the set of `prefix-00001-of-00003.safetensors`.
    fn shard_count<'a>(&self, name: &'a str) -> Option<(&'a str, u32)> {
        let (rest, count) = name.strip_suffix(self.suffix)?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        (number.len() == 5 && count.len() == 5).then_some((prefix, count.parse().ok()?))
    }
}

/// The GGUF models among `names`; a split set is its first part that is there. Vision projectors are no models.
fn gguf_models(names: &BTreeSet<String>) -> Vec<&str> {
    let mut models: Vec<&str> = Vec::new();
    let mut sets = BTreeSet::new();
    for name in names.iter().filter(|name| name.ends_with(".gguf") && !name.starts_with("mmproj")) {
        match SplitName::of(Path::new(name)) {
            Some(split) if !sets.insert((split.prefix, split.count)) => {}
            _ => models.push(name),
        }
    }
    models
}

/// The names of the files in a folder, sorted.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where a folder, a pipe or a device has a name that files of models have.
fn file_names(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let fail = |error| Error::io(folder, "list the folder", error);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path: PathBuf = entry.map_err(fail)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // What a link leads to counts; one that leads nowhere is no file.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_file() {
            names.insert(name.to_owned());
        } else if OF_MODELS.iter().any(|suffix| name.ends_with(suffix)) {
            return Err(Error::new(ErrorKind::Unsupported, &path, disk::NOT_REGULAR));
        }
    }
    Ok(names)
}

fn read_json_object(path: &Path) -> Result<Value, Error> {
    let json = disk::read(path, CONFIG_BYTES_MAX)?;
    let fail = |message: String| Error::new(ErrorKind::Config, path, message);
    if json.iter().filter(|byte| **byte == b',').count() > CONFIG_COMMAS_MAX {
        return Err(fail(format!("the JSON has more than {CONFIG_COMMAS_MAX} values")));
    }
    let value = json_of_python(&json).map_err(|error| fail(format!("the JSON is malformed: {error}")))?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(fail("the JSON is not an object".to_owned())),
    }
}
