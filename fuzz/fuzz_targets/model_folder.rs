//! Any bytes as one of the small files beside a model, or as a whole GGUF model: the first byte says which.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use aerostat::{ModelFiles, Tokenizer};

const FILES: [&str; 6] = [
    "generation_config.json",
    "adapter/adapter_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "tokenizer_config.json",
    "model.gguf",
];

/// A folder of this process with copies of a tiny model and of an adapter, whose configurations are for others to write.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("aerostat-fuzz-model-{}", std::process::id()));
    if !folder.exists() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        fs::create_dir_all(folder.join("adapter")).expect("a folder for the adapter");
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(fixtures.join("chat").join(file), folder.join(file)).expect("the fixture is there");
        }
        let weights = "adapter/adapter_model.safetensors";
        fs::copy(fixtures.join("adapters/llama/adapter_model.safetensors"), folder.join(weights))
            .expect("the adapter is there");
    }
    folder
}

fn look(files: &ModelFiles) {
    let tokenizer = files.tokenizer().ok().flatten();
    let _ = files.chat_template(tokenizer.as_ref());
    let _ = (files.end_tokens(tokenizer.as_ref()), files.sampling(), files.answer_tokens());
    assert!(files.sampling_notes().iter().all(|note| note.len() < 4000));
    if let Some(tokenizer) = &tokenizer {
        told(tokenizer);
    }
}

fn told(tokenizer: &Tokenizer) {
    for text in ["", "ab a\u{e9}\u{2581}<s>\n\n 123"] {
        if let Ok(ids) = tokenizer.encode(text, true) {
            let _ = tokenizer.decode(&ids, true);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let folder = folder();
    let name = FILES[usize::from(*which) % FILES.len()];
    let file = folder.join(name);
    fs::write(&file, bytes).expect("room for the file");
    let opened = match name {
        "model.gguf" => ModelFiles::open(&file),
        "adapter/adapter_config.json" => ModelFiles::open_with_adapter(&folder, &folder.join("adapter")),
        _ => ModelFiles::open(&folder),
    };
    match opened {
        Ok(files) => look(&files),
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    }
    let _ = fs::remove_file(&file);
});
