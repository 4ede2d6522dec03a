//! Any bytes as each of the files that tokenizers are read from: the first byte says which.
#![no_main]

use aerostat_text::Tokenizer;

const NAMES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "qwen.tiktoken",
    "vocab.json",
    "tokenizer_config.json",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let name = NAMES[usize::from(*kind) % NAMES.len()];
    let folder = std::env::temp_dir().join(format!("aerostat-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the file");
    let file = folder.join(name);
    std::fs::write(&file, bytes).expect("room for the file");
    let config = (name == "tokenizer_config.json").then_some(file.as_path());
    let merges = folder.join("merges.txt");
    if name == "vocab.json" {
        std::fs::write(&merges, "#version: 0.2\na b\n").expect("room for the merges");
    }
    let tokenizer = folder.join("small/tokenizer.json");
    if config.is_some() && !tokenizer.exists() {
        std::fs::create_dir_all(folder.join("small")).expect("a folder for a tokenizer");
        let small = r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
        std::fs::write(&tokenizer, small).expect("room for a tokenizer");
    }
    match Tokenizer::from_file(if config.is_some() { &tokenizer } else { &file }, config) {
        Ok(tokenizer) => {
            for text in [
                "",
                "ab a\u{e9}\u{2581}<s>\n\n 123",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
            ] {
                if let Ok(ids) = tokenizer.encode(text, true) {
                    assert!(ids.len() <= 1 << 20);
                    let _ = tokenizer.decode(&ids, true);
                    let mut stream = tokenizer.stream(false);
                    ids.iter().for_each(|id| drop(stream.push(*id)));
                    ids.iter().for_each(|id| drop(tokenizer.token_bytes(*id)));
                }
            }
        }
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    }
});
