//! What `transformers` says (see `oracle.py`), and what hostile files do.

mod it {
    pub(crate) mod chat;
    pub(crate) mod ends;
    pub(crate) mod hostile;
    pub(crate) mod hostile_tokenizers;
    pub(crate) mod pre_tokenizers;
    pub(crate) mod released;
    pub(crate) mod templates;
    pub(crate) mod tokenizers;
}

use std::path::PathBuf;

/// Requests share one tokenizer and one template.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<aerostat_text::Tokenizer>();
    is_shared::<aerostat_text::ChatTemplate>();
};

/// A file or folder of the fixtures.
fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// A fixture as JSON.
fn json(path: &str) -> serde_json::Value {
    let path = data(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}
