//! The ways of splitting that GGUF files name, against llama.cpp's own tokenizer (`oracle/pre_tokenizers.py`).

use aerostat_text::{GgufVocab, Strings, Tokenizer};
use serde_json::Value;

use crate::json;

fn strings(value: &Value) -> Strings {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn every_name_of_a_pre_tokenizer_splits_as_llama_cpp_does() {
    let record = json("pre_tokenizers.json");
    let mut wrong = Vec::new();
    for (name, expected) in record["expected"].as_object().unwrap() {
        let vocab = GgufVocab {
            model: "gpt2".into(),
            pre: Some(name.clone()),
            tokens: strings(&record["tokens"]),
            merges: Some(strings(&record["merges"])),
            add_bos: Some(false),
            ..GgufVocab::default()
        };
        let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
        for (text, want) in record["texts"].as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
            let text = text.as_str().unwrap();
            // In these two llama.cpp does not tell letters by case, as the published tokenizers do.
            if ["youtu", "kimi-k2"].contains(&name.as_str()) && text.contains("camelCase") {
                continue;
            }
            let want: Vec<u32> = serde_json::from_value(want.clone()).unwrap();
            let got = tokenizer.encode(text, false).unwrap();
            if got != want {
                let show = |ids: &[u32]| {
                    let texts: Vec<String> = ids.iter().filter_map(|id| tokenizer.token_text(*id)).collect();
                    texts.join("|")
                };
                wrong.push(format!("{name} {text:?}\n got {}\nwant {}", show(&got), show(&want)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_vocabulary_of_ranks_needs_no_merges() {
    let record = json("pre_tokenizers.json");
    let vocab = |pre: &str| GgufVocab {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens: strings(&record["tokens"]),
        ..GgufVocab::default()
    };
    assert!(Tokenizer::from_gguf(vocab("qwen2")).is_err());
    let tokenizer = Tokenizer::from_gguf(vocab("kimi-k2")).unwrap();
    let ids = tokenizer.encode("the hills", false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false), "the hills");
    assert!(ids.len() < "the hills".len());
}
