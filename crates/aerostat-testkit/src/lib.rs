//! Test helpers: the fixtures and what transformers computed for them. Never shipped.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A model with expected results.
#[derive(Debug)]
pub struct Fixture {
    /// Folder and, for GGUF, file name: `llama_gqa_bf16/twin.gguf`.
    pub name: String,
    /// What to open.
    pub path: PathBuf,
    /// What transformers computed.
    pub prompts: Vec<Prompt>,
}

/// A prompt and what follows from it.
#[derive(Clone, Debug, Deserialize)]
pub struct Prompt {
    /// The prompt's tokens.
    pub ids: Vec<u32>,
    /// Log-probability of each given those before it.
    pub logprobs: Vec<Option<f32>>,
    /// All logits after the last token.
    pub logits_last: Vec<f32>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct Expected {
    /// Of adapters, the fixture that they are for.
    base: Option<String>,
    prompts: Vec<Prompt>,
}

/// The folder of all fixtures.
pub fn fixtures_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Every model of every fixture: Hugging Face folders and GGUF twins.
///
/// # Panics
/// If fixtures are missing or broken.
pub fn fixtures() -> Vec<Fixture> {
    let mut folders: Vec<PathBuf> = entries(&fixtures_dir()).into_iter().filter(|p| p.is_dir()).collect();
    folders.sort();
    folders.iter().filter(|f| !f.ends_with("chat")).flat_map(|f| in_folder(f)).collect()
}

/// A text as a model that computes vectors sees it, and what transformers computed for it.
#[derive(Clone, Debug, Deserialize)]
pub struct Encoded {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Where its second part begins.
    pub second: Option<usize>,
    /// The last hidden state of the first token.
    pub cls: Vec<f32>,
    /// The mean of all.
    pub mean: Vec<f32>,
    /// That of the last token.
    pub last: Vec<f32>,
    /// What the head gives, if there is one.
    pub scores: Option<Vec<f32>>,
}

/// Every model that computes vectors: its folder, and what transformers computed with it.
///
/// # Panics
/// If they are missing or broken.
pub fn encoders() -> Vec<(PathBuf, Vec<Encoded>)> {
    #[derive(Deserialize)]
    struct Expected {
        texts: Vec<Encoded>,
    }
    let mut folders = entries(&fixtures_dir().join("encoders"));
    folders.sort();
    folders.into_iter().map(|folder| (folder.clone(), read::<Expected>(&folder.join("expected.json")).texts)).collect()
}

/// Every adapter: its folder, the fixture that it is for, and what PEFT computes with both.
///
/// # Panics
/// If adapters are missing or broken.
pub fn adapters() -> Vec<(PathBuf, Fixture)> {
    let mut folders = entries(&fixtures_dir().join("adapters"));
    folders.sort();
    let of = |folder: PathBuf| {
        let at = folder.join("expected.json");
        let expected: Expected = read(&at);
        let name = expected.base.unwrap_or_else(|| panic!("{}: no base", at.display()));
        let path = fixtures_dir().join(&name);
        (folder, Fixture { name, path, prompts: expected.prompts })
    };
    folders.into_iter().map(of).collect()
}

/// One of them by name.
///
/// # Panics
/// If there is none of that name.
pub fn fixture(name: &str) -> Fixture {
    fixtures().into_iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no fixture {name}"))
}

fn in_folder(folder: &Path) -> Vec<Fixture> {
    let folder_name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own = folder.join("expected.json");
    let twin = Some(folder.join("twin.expected.json")).filter(|p| p.exists()).unwrap_or_else(|| own.clone());
    let mut found = Vec::new();
    if folder.join("config.json").exists() {
        found.push(Fixture { name: folder_name.clone(), path: folder.to_owned(), prompts: prompts(&own) });
    }
    let mut twins: Vec<PathBuf> =
        entries(folder).into_iter().filter(|p| p.extension().is_some_and(|e| e == "gguf")).collect();
    twins.sort();
    twins.retain(|p| !p.to_string_lossy().contains("-00002-of-"));
    for path in twins {
        let name = format!("{folder_name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        found.push(Fixture { name, path, prompts: prompts(&twin) });
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    read.filter_map(|e| Some(e.ok()?.path())).collect()
}

fn prompts(path: &Path) -> Vec<Prompt> {
    read::<Expected>(path).prompts
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
