//! Folders of sentence-transformers: what that library makes of texts, and scores of pairs.

use std::path::PathBuf;

use aerostat::{Embedding, Engine, ModelFiles, Options, Silent, embed, rerank};
use serde::Deserialize;

#[derive(Deserialize)]
struct Text {
    prompt_name: Option<String>,
    text: String,
    vector: Vec<f32>,
    /// What the tokenizer of transformers makes of it, where that is not plain.
    ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct Scored {
    #[serde(default)]
    instruction: Option<String>,
    query: String,
    document: String,
    score: f32,
}

#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    texts: Vec<Text>,
    #[serde(default)]
    pairs: Vec<Scored>,
}

fn folder(name: &str) -> (PathBuf, Expected) {
    let folder = aerostat_testkit::fixtures_dir().join("sentences").join(name);
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    (folder, serde_json::from_str(&expected).unwrap())
}

/// The vectors of all texts, as the folder states them.
fn vectors(files: &ModelFiles, embedding: &Embedding, texts: &[Text]) -> Vec<Vec<f32>> {
    let tokenizer = files.tokenizer().unwrap().unwrap();
    let encode = |text: &Text| {
        let prompt = embedding.prompt(text.prompt_name.as_deref()).unwrap();
        embedding.encode(&tokenizer, prompt, &text.text).unwrap().token_ids
    };
    let sequences: Vec<Vec<u32>> = texts.iter().map(encode).collect();
    assert!(sequences.iter().all(|tokens| tokens.len() <= embedding.tokens_max));
    let mut engine = Engine::open(files, &Options::default(), &embed::need(&sequences), &mut Silent).unwrap();
    crate::all(engine.embed(&sequences, embedding.hidden(), &mut Silent).unwrap())
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    for (name, width, tokens) in
        [("dense", 16, 16), ("cls", 32, 40), ("largest", 32, 12), ("multilingual", 32, 40)]
    {
        let (folder, expected) = folder(name);
        let files = ModelFiles::open(&folder).unwrap();
        let embedding = files.embedding().unwrap();
        assert_eq!((embedding.width, embedding.tokens_max, embedding.cuts), (width, tokens, true), "{name}");
        let found = vectors(&files, &embedding, &expected.texts);
        for (text, found) in expected.texts.iter().zip(&found) {
            assert_eq!(found.len(), width);
            let error = found.iter().zip(&text.vector).fold(0.0f32, |most, (f, w)| most.max((f - w).abs()));
            assert!(error < 1e-4, "{name}: {:?} {:?}: {error}", text.prompt_name, text.text);
        }
    }
}

/// GGUF files of encoders were refused, which is how many people have them.
#[test]
fn a_gguf_file_of_an_encoder_says_of_texts_what_its_folder_says() {
    for name in ["cls", "multilingual"] {
        let (folder, expected) = folder(name);
        let (files, twin) =
            (ModelFiles::open(&folder).unwrap(), ModelFiles::open(&folder.join("twin.gguf")).unwrap());
        let (embedding, own) = (files.embedding().unwrap(), twin.embedding().unwrap());
        assert_eq!((embedding.pooling, own.normalize), (own.pooling, true), "{name}");
        let encode = |files: &ModelFiles, embedding: &Embedding, text: &Text| {
            embedding.encode(&files.tokenizer().unwrap().unwrap(), "", &text.text).unwrap()
        };
        // The folder alone says that texts are cut sooner.
        let whole = |text: &Text| text.prompt_name.is_none() && encode(&files, &embedding, text).cut == 0;
        let texts: Vec<Text> = expected.texts.into_iter().filter(whole).collect();
        for text in &texts {
            let ids = encode(&twin, &own, text).token_ids;
            assert_eq!(ids, encode(&files, &embedding, text).token_ids, "{name}: {:?}", text.text);
            assert!(text.ids.as_ref().is_none_or(|want| *want == ids), "{name}: {:?}", text.text);
        }
        for (text, found) in texts.iter().zip(vectors(&twin, &own, &texts)) {
            let length = text.vector.iter().map(|v| v * v).sum::<f32>().sqrt();
            let error =
                found.iter().zip(&text.vector).map(|(f, w)| (f - w / length).abs()).fold(0.0, f32::max);
            assert!(error < 1e-4, "{name}: {:?}: {error}", text.text);
        }
    }
}

#[test]
fn a_prompt_that_is_not_there_is_refused_with_those_that_are() {
    let (folder, _) = folder("dense");
    let embedding = ModelFiles::open(&folder).unwrap().embedding().unwrap();
    assert_eq!(embedding.prompt(None).unwrap(), "the passage: ");
    let error = embedding.prompt(Some("nothing")).unwrap_err().to_string();
    assert!(error.contains("document, query"), "{error}");
}

#[test]
fn scores_of_pairs_are_those_of_sentence_transformers() {
    for name in ["ranker", "ranker_roberta", "asked"] {
        let (folder, expected) = folder(name);
        let files = ModelFiles::open(&folder).unwrap();
        let tokenizer = files.tokenizer().unwrap().unwrap();
        let reranker = files.reranker(&tokenizer).unwrap();
        let pair = |scored: &Scored| {
            let instruction = scored.instruction.as_deref();
            reranker.pair(&tokenizer, &scored.query, &scored.document, instruction).unwrap()
        };
        let pairs: Vec<rerank::Pair> = expected.pairs.iter().map(pair).collect();
        let need = reranker.need(&pairs);
        // Of causal models a cache in f16 moves scores by a few ten thousandths.
        let options = Options { kv: aerostat::KvType::F32, ..Options::default() };
        let mut engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
        let found = crate::all(reranker.scores(&mut engine, &pairs, &mut Silent).unwrap());
        for (scored, found) in expected.pairs.iter().zip(found) {
            assert!(
                (found - scored.score).abs() < 1e-4,
                "{name}: {:?}: {found} {}",
                scored.query,
                scored.score
            );
        }
    }
}

/// A folder that asks for what is not there, or leads out of itself, is told by the file that says so.
#[test]
fn a_folder_that_cannot_be_followed_is_told() {
    let (source, _) = folder("cls");
    let broken = |file: &str, text: &str| {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&source).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        std::fs::create_dir(copy.path().join("1_Pooling")).unwrap();
        std::fs::copy(source.join("1_Pooling/config.json"), copy.path().join("1_Pooling/config.json"))
            .unwrap();
        std::fs::write(copy.path().join(file), text).unwrap();
        ModelFiles::open(copy.path()).unwrap().embedding().unwrap_err().to_string()
    };
    let module = |kind: &str, path: &str| format!(r#"[{{"type": "x.{kind}", "path": "{path}"}}]"#);
    for (file, text, told) in [
        ("modules.json", "{".to_owned(), "modules.json"),
        ("modules.json", module("LSTM", "2_LSTM"), "`LSTM`"),
        ("modules.json", module("Dense", "../cls"), "out of the folder"),
        ("modules.json", module("Dense", "/etc"), "out of the folder"),
        ("modules.json", module("Dense", "2_Dense"), "2_Dense"),
        ("1_Pooling/config.json", r#"{"pooling_mode": "spectral"}"#.to_owned(), "`spectral`"),
        ("1_Pooling/config.json", r#"{"pooling_mode": ["cls", "max"]}"#.to_owned(), "several"),
        ("config_sentence_transformers.json", r#"{"default_prompt_name": "q"}"#.to_owned(), "`q`"),
    ] {
        let error = broken(file, &text);
        assert!(error.contains(told), "{file}: {error}");
    }
}
