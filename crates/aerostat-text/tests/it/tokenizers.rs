use aerostat_text::{GgufVocab, Strings, Tokenizer};
use serde_json::Value;

use crate::{data, json};

const ALL: [&str; 9] =
    ["gpt2", "smollm", "llama3", "qwen2", "prepend", "plain", "metaspace", "affixes", "unigram"];
const GGUF_TWINS: [&str; 5] = ["gpt2", "smollm", "llama3", "prepend", "plain"];

fn hugging_face(name: &str) -> Tokenizer {
    let folder = data("tokenizers").join(name);
    Tokenizer::from_hugging_face(&folder.join("tokenizer.json"), Some(&folder.join("tokenizer_config.json")))
        .unwrap()
}

pub(crate) fn gguf_vocab(name: &str) -> GgufVocab {
    let twin = json(&format!("tokenizers/{name}/gguf.json"));
    let strings = |field: &str| -> Option<Strings> {
        Some(twin[field].as_array()?.iter().map(|text| text.as_str().unwrap()).collect())
    };
    let id = |field: &str| twin[field].as_u64().map(|id| id as u32);
    GgufVocab {
        model: twin["model"].as_str().unwrap().to_owned(),
        pre: twin["pre"].as_str().map(str::to_owned),
        tokens: strings("tokens").unwrap(),
        scores: serde_json::from_value(twin["scores"].clone()).unwrap(),
        types: serde_json::from_value(twin["types"].clone()).unwrap(),
        merges: strings("merges"),
        bos: id("bos"),
        eos: id("eos"),
        unknown: id("unknown"),
        add_space_prefix: twin["add_space_prefix"].as_bool(),
        ..GgufVocab::default()
    }
}

fn cases(name: &str) -> Vec<Value> {
    json(&format!("tokenizers/{name}/expected.json"))["cases"].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn tokenizer_json_gives_the_ids_and_texts_of_transformers() {
    for name in ALL {
        let tokenizer = hugging_face(name);
        for case in cases(name) {
            let text = case["text"].as_str().unwrap();
            let plain = tokenizer.encode(text, false).unwrap();
            assert_eq!(plain, ids(&case["ids"]), "{name}: {text:?}");
            let full = case.get("with_special").unwrap_or(&case["ids"]);
            assert_eq!(
                tokenizer.encode(text, true).unwrap(),
                ids(full),
                "{name}, with special tokens: {text:?}"
            );
            assert_eq!(
                tokenizer.decode(&plain, false),
                case["decoded"].as_str().unwrap(),
                "{name}: {text:?}"
            );
            let skipped = case.get("skipped").unwrap_or(&case["decoded"]).as_str().unwrap();
            assert_eq!(tokenizer.decode(&plain, true), skipped, "{name}, without special tokens: {text:?}");
        }
    }
}

#[test]
fn a_gguf_vocabulary_gives_the_ids_and_texts_of_its_tokenizer_json() {
    for name in GGUF_TWINS {
        let tokenizer = Tokenizer::from_gguf(gguf_vocab(name)).unwrap();
        for case in cases(name) {
            let text = case["text"].as_str().unwrap();
            let plain = tokenizer.encode(text, false).unwrap();
            assert_eq!(plain, ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(
                tokenizer.decode(&plain, false),
                case["decoded"].as_str().unwrap(),
                "{name}: {text:?}"
            );
        }
    }
}

#[test]
fn gguf_adds_bos_and_eos_by_flag_and_else_by_the_habit_of_the_kind() {
    for (name, add_bos, add_eos, want) in [
        ("gpt2", None, None, [false, false]),
        ("gpt2", Some(true), Some(true), [true, true]),
        ("llama3", None, None, [true, false]),
        ("llama3", Some(false), None, [false, false]),
        ("prepend", None, None, [true, false]),
        ("prepend", Some(false), Some(true), [false, true]),
    ] {
        let vocab = GgufVocab { add_bos, add_eos, ..gguf_vocab(name) };
        let ids = Tokenizer::from_gguf(vocab).unwrap().encode("a", true).unwrap();
        assert_eq!([ids.first() == Some(&1), ids.last() == Some(&2)], want, "{name} {add_bos:?} {add_eos:?}");
    }
}

#[test]
fn a_stream_gives_the_text_of_all_ids_in_whole_characters() {
    for name in ALL {
        let tokenizer = hugging_face(name);
        for case in cases(name) {
            let (text, ids) = (case["text"].as_str().unwrap(), ids(&case["ids"]));
            for skip_special in [false, true] {
                let mut stream = tokenizer.stream(skip_special);
                let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
                pieces.push(stream.finish());
                assert_eq!(pieces.concat(), tokenizer.decode(&ids, skip_special), "{name}: {text:?}");
                let half =
                    pieces.iter().any(|piece| piece.contains('\u{fffd}')) && !text.contains('\u{fffd}');
                assert!(!half, "{name}: half a character of {text:?} in {pieces:?}");
            }
        }
    }
}

#[test]
fn half_a_character_comes_out_as_a_replacement_at_the_end() {
    let tokenizer = hugging_face("prepend");
    let byte = |byte: u8| tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap();
    let mut stream = tokenizer.stream(true);
    assert_eq!([0xF0, 0x9F, 0x98, 0x80, 0xE4].map(|b| stream.push(byte(b))), ["", "", "", "\u{1F600}", ""]);
    assert_eq!(stream.push(tokenizer.token_id("a").unwrap()), "\u{fffd}a");
    assert_eq!([0xFF, b'b', 0xC3].map(|b| stream.push(byte(b))), ["\u{fffd}", "b", ""]);
    assert_eq!(stream.finish(), "\u{fffd}");
    assert_eq!(stream.finish(), "");
}

#[test]
fn tokens_have_names_and_special_ones_are_known() {
    let tokenizer = hugging_face("llama3");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert_eq!(tokenizer.token_text(1).as_deref(), Some("<s>"));
    assert!(tokenizer.is_special(1));
    let tool = tokenizer.token_id("<tool>").unwrap();
    assert!(!tokenizer.is_special(tool));
    assert_eq!(tokenizer.vocab_size(), tokenizer.token_id("</tool>").unwrap() as usize + 1);
    assert_eq!(tokenizer.token_text(tokenizer.vocab_size() as u32), None);
}

/// A token of spaces was found once more in the spaces that the token before it had taken: `<a> b` had three tokens.
#[test]
fn spaces_belong_to_one_added_token() {
    let ids = |lstrip: bool, text: &str| {
        let token = |id: u32, content: &str, lstrip: bool, rstrip: bool| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": lstrip,
                "rstrip": rstrip, "normalized": false, "special": false})
        };
        let file = serde_json::json!({
            "added_tokens": [token(1, "<a>", false, true), token(2, " ", lstrip, false)],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": {"b": 0, "<a>": 1, " ": 2, "<unk>": 3}, "unk_token": "<unk>"},
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, file.to_string()).unwrap();
        Tokenizer::from_hugging_face(&path, None).unwrap().encode(text, false).unwrap()
    };
    // What the package tokenizers 0.23.3 gives.
    for (text, with, without) in [
        ("<a> b", &[1, 0][..], &[1, 2, 0][..]),
        ("b <a> b", &[0, 2, 1, 0], &[0, 2, 1, 2, 0]),
        ("<a>b b", &[1, 0, 2, 0], &[1, 0, 2, 0]),
        ("b  b", &[0, 2, 2, 0], &[0, 2, 2, 0]),
        ("<a> <a> b", &[1, 1, 0], &[1, 2, 1, 2, 0]),
        (" <a> ", &[2, 1], &[2, 1, 2]),
    ] {
        assert_eq!((ids(true, text), ids(false, text)), (with.to_vec(), without.to_vec()), "{text:?}");
    }
}

#[test]
fn added_tokens_need_not_name_all_their_flags() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tokenizer_config.json");
    let listed = r#"{"added_tokens_decoder": {"600": {"content": "<think>", "special": true}, "601": {"content": "<x>"}},
        "model_max_length": Infinity}"#;
    std::fs::write(&config, listed).unwrap();
    let file = data("tokenizers/gpt2/tokenizer.json");
    let tokenizer = Tokenizer::from_hugging_face(&file, Some(&config)).unwrap();
    let ids = tokenizer.encode("<think><x>", false).unwrap();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids.iter().map(|id| tokenizer.is_special(*id)).collect::<Vec<_>>(), [true, false]);
}
