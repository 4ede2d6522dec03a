//! GGUF twins have tokenizers of the kind that published files of their families have, and what llama.cpp's own tokenizer makes
//! of texts with them (`oracle/twin_tokens.py`).

use std::collections::BTreeSet;

use aerostat::ModelFiles;
use aerostat_testkit::{fixtures, fixtures_dir};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    expected: Vec<Alike>,
}

/// What holds of some twins, whose tokenizers are the same.
#[derive(Deserialize)]
struct Alike {
    twins: Vec<String>,
    ids: Vec<Vec<u32>>,
}

/// No twin had a tokenizer, so that families were listed as read from GGUF whose way to split was refused by name.
#[test]
fn twins_split_and_merge_texts_as_llama_cpp_does() {
    let expected: Expected = serde_json::from_str(include_str!("twins.json")).unwrap();
    let mut checked = BTreeSet::new();
    for alike in expected.expected {
        assert_eq!(alike.ids.len(), expected.texts.len());
        for twin in alike.twins {
            let files = ModelFiles::open(&fixtures_dir().join(&twin)).unwrap();
            let tokenizer = files.tokenizer().unwrap().unwrap_or_else(|| panic!("{twin}: no tokenizer"));
            for (text, want) in expected.texts.iter().zip(&alike.ids) {
                assert_eq!(tokenizer.encode(text, true).unwrap(), *want, "{twin}: {text:?}");
            }
            checked.insert(twin);
        }
    }
    for twin in fixtures().into_iter().filter(|fixture| fixture.path.is_file()) {
        assert!(checked.contains(&twin.name), "{}: python oracle/twin_tokens.py", twin.name);
    }
}
