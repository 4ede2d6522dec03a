//! Tokenizers in the files that models were released with.

use std::path::Path;

use aerostat_text::{ErrorKind, Tokenizer};
use serde_json::Value;

use crate::{data, json};

/// A folder with some of the files of a byte-level fixture as GPT-2 was released: `vocab.json` and `merges.txt`.
fn gpt2_files(folder: &Path) {
    let file: Value = json("tokenizers/gpt2/tokenizer.json");
    std::fs::write(folder.join("vocab.json"), file["model"]["vocab"].to_string()).unwrap();
    let merges = file["model"]["merges"].as_array().unwrap();
    let line = |merge: &Value| match merge.as_str() {
        Some(merge) => merge.to_owned(),
        None => format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()),
    };
    let lines: Vec<String> = merges.iter().map(line).collect();
    std::fs::write(folder.join("merges.txt"), format!("#version: 0.2\n{}\n", lines.join("\n"))).unwrap();
}

#[test]
fn vocab_json_and_merges_txt_give_the_ids_of_tokenizer_json() {
    let folder = tempfile::tempdir().unwrap();
    gpt2_files(folder.path());
    let config = data("tokenizers/gpt2/tokenizer_config.json");
    let mut listed: Value = serde_json::from_str(&std::fs::read_to_string(config).unwrap()).unwrap();
    listed["tokenizer_class"] = "GPT2Tokenizer".into();
    listed["added_tokens_decoder"] = json("tokenizers/gpt2/tokenizer.json")["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (token["id"].to_string(), token.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let config = folder.path().join("tokenizer_config.json");
    std::fs::write(&config, listed.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&folder.path().join("vocab.json"), Some(&config)).unwrap();
    for case in json("tokenizers/gpt2/expected.json")["cases"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
    }
    std::fs::write(folder.path().join("added_tokens.json"), r#"{"<late>": 9001, "<early>": 9000}"#).unwrap();
    let listed = Tokenizer::from_file(&folder.path().join("vocab.json"), None).unwrap();
    assert_eq!(listed.token_id("<early>").map(|id| id + 1), listed.token_id("<late>"));
    assert_eq!(listed.encode("<early><late>", false).unwrap().len(), 2);
    std::fs::write(&config, r#"{"tokenizer_class": "CLIPTokenizer"}"#).unwrap();
    let error = Tokenizer::from_file(&folder.path().join("vocab.json"), Some(&config)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("vocab.json"), "{error}");
}

/// `<|endoftext|>` was read as letters where no file names it, though all these classes do; texts were not ended where that
/// was asked for; and GPT-NeoX's were not composed. Ids are those of transformers 5.23.0.
#[test]
fn classes_have_ends_of_their_own_and_some_compose_texts() {
    let folder = tempfile::tempdir().unwrap();
    let mut tokens: Vec<String> =
        ["<|endoftext|>", "<s>", "h", "i", "e", "\u{cc}", "\u{123}", "\u{c3}", "\u{a9}", "hi"]
            .map(str::to_owned)
            .to_vec();
    tokens.push("1".to_owned());
    tokens.push("11".to_owned());
    let ids: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    std::fs::write(folder.path().join("vocab.json"), Value::Object(ids).to_string()).unwrap();
    std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\nh i\n1 1\n").unwrap();
    let encode = |config: Value, model: &str, text: &str| {
        let path = folder.path().join("tokenizer_config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let model = serde_json::json!({"model_type": model});
        std::fs::write(folder.path().join("config.json"), model.to_string()).unwrap();
        let tokenizer = Tokenizer::from_file(&folder.path().join("vocab.json"), Some(&path)).unwrap();
        (tokenizer.encode(text, true).unwrap(), tokenizer.eos())
    };
    let decomposed = "e\u{301}";
    for (config, model, text, ids) in [
        (serde_json::json!({}), "gpt2", "hi<|endoftext|>hi", &[9, 0, 9][..]),
        (serde_json::json!({"add_bos_token": true}), "gpt2", "hi", &[0, 9]),
        (serde_json::json!({"add_bos_token": true, "add_eos_token": true}), "gpt2", "hi", &[0, 9, 0]),
        (serde_json::json!({"add_bos_token": true, "bos_token": "<s>"}), "opt", "hi<s>", &[1, 9, 1]),
        (serde_json::json!({"add_bos_token": true}), "qwen3", "hi", &[9]),
        (serde_json::json!({"add_bos_token": true, "bos_token": "<s>"}), "qwen3", "hi", &[1, 9]),
        (serde_json::json!({}), "gpt2", "11", &[11]),
        (serde_json::json!({}), "qwen2", "11", &[10, 10]),
        (serde_json::json!({}), "gpt2", decomposed, &[4, 5, 6]),
        (serde_json::json!({}), "gpt_neox", decomposed, &[7, 8]),
        (serde_json::json!({"tokenizer_class": "GPTNeoXTokenizerFast"}), "gpt2", decomposed, &[7, 8]),
    ] {
        let (found, end) = encode(config.clone(), model, text);
        assert_eq!((found, end), (ids.to_vec(), Some(0)), "{config} {model} {text:?}");
    }
}

/// The files of OpenAI GPT were refused, and read as GPT-2's where no class is named. Ids are those of transformers 5.23.0.
#[test]
fn openai_gpt_marks_the_ends_of_words_in_lower_case() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = [
        "<unk>", "t", "h", "e", "t</w>", "h</w>", "e</w>", "th", "the</w>", "!</w>", "o", "n</w>", "on</w>",
        "n", "i", "in", "ing</w>", "g</w>", "'</w>", "s</w>", "c", "a", "f", "cafe</w>", "ca", "fe</w>",
    ];
    let ids: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    std::fs::write(folder.path().join("vocab.json"), Value::Object(ids).to_string()).unwrap();
    let merges = "#version: 0.2\nt h\nth e</w>\no n</w>\ni n\nin g</w>\nc a\nf e</w>\nca fe</w>\n";
    std::fs::write(folder.path().join("merges.txt"), merges).unwrap();
    let config = folder.path().join("tokenizer_config.json");
    std::fs::write(&config, r#"{"tokenizer_class": "OpenAIGPTTokenizer"}"#).unwrap();
    for config in [None, Some(config.as_path())] {
        let tokenizer = Tokenizer::from_file(&folder.path().join("vocab.json"), config).unwrap();
        for (text, want) in [
            ("The thing's ON the", &[8, 7, 16, 18, 19, 12, 8][..]),
            ("Caf\u{e9}!  the\nth\u{e9}", &[23, 9, 8, 8]),
            ("q the", &[0, 8]),
            (" ", &[]),
        ] {
            assert_eq!(tokenizer.encode(text, true).unwrap(), want, "{text:?}");
        }
        assert_eq!(tokenizer.decode(&[8, 7, 16, 18, 19, 12, 8], false), "the thing ' s on the");
    }
}

#[test]
fn files_of_ranks_merge_the_lowest_rank_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qwen.tiktoken");
    // The bytes a, b, c, then ab, bc, abc, in base64.
    std::fs::write(&path, "YQ== 0\nYg== 1\nYw== 2\nYmM= 3\nYWI= 4\nYWJj 5\n").unwrap();
    let tokenizer = Tokenizer::from_file(&path, None).unwrap();
    let ids = |text: &str| tokenizer.encode(text, false).unwrap();
    assert_eq!((ids("abc"), ids("ab"), ids("bca")), (vec![5], vec![4], vec![3, 0]));
    assert_eq!(ids("abcbc"), [5, 3]);
    assert_eq!(ids("<|im_end|>"), [8]);
    assert_eq!(tokenizer.token_text(9).as_deref(), Some("<|extra_0|>"));
    let other = folder.path().join("tokenizer.model");
    std::fs::copy(&path, &other).unwrap();
    assert_eq!(Tokenizer::from_file(&other, None).err().unwrap().kind(), ErrorKind::Unsupported);
    // One rank that was too large was called no rank, and one that could not be reached was "there twice".
    for (broken, told) in [
        ("", "no ranks"),
        ("YQ==\n", "line 1"),
        ("YQ== x\n", "line 1"),
        ("*** 0\n", "line 1"),
        ("YQ== 0\nYg== 0\n", "two tokens have the rank 0"),
        ("YQ== 0\nYQ== 99999999\n", "line 2: a rank above"),
        ("YQ== 18446744073709551615\n", "line 1: a rank above"),
    ] {
        std::fs::write(&path, broken).unwrap();
        let error = Tokenizer::from_file(&path, None).err().unwrap();
        assert!(
            error.kind() == ErrorKind::Malformed && error.to_string().contains(told),
            "{broken:?}: {error}"
        );
    }
}

#[test]
fn tekken_puts_special_tokens_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tekken.json");
    let file = r#"{"config": {"pattern": "\\p{L}+|.", "num_vocab_tokens": 5, "default_vocab_size": 7,
        "default_num_special_tokens": 4, "version": "v3"},
        "vocab": [{"rank": 0, "token_bytes": "YQ=="}, {"rank": 1, "token_bytes": "Yg=="}, {"rank": 2, "token_bytes": "YWI="},
        {"rank": 3, "token_bytes": "YWJh"}]}"#;
    std::fs::write(&path, file).unwrap();
    let tokenizer = Tokenizer::from_file(&path, None).unwrap();
    assert_eq!(tokenizer.encode("aba", true).unwrap(), [1, 6, 4]);
    assert_eq!(tokenizer.encode("</s>b", false).unwrap(), [2, 5]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()), (7, Some(1), Some(2)));
    std::fs::write(&path, file.replace("\"default_vocab_size\": 7", "\"default_vocab_size\": 3")).unwrap();
    assert_eq!(Tokenizer::from_file(&path, None).err().unwrap().kind(), ErrorKind::Malformed);
}

/// A field of a protocol buffer that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2, bytes.len() as u8];
    all.extend(bytes);
    all
}

/// A SentencePiece model with these pieces, of a type (1: unigram, 2: BPE).
fn sentence_piece(pieces: &[(&str, f32, u8)], model_type: u8) -> Vec<u8> {
    let mut file = Vec::new();
    for (text, score, kind) in pieces {
        let score = [&[0x15][..], &score.to_le_bytes()].concat();
        file.extend(field(1, &[field(1, text.as_bytes()), score, vec![0x18, *kind]].concat()));
    }
    file.extend(field(2, &[0x18, model_type]));
    // Runs of spaces stay.
    file.extend(field(3, &[0x20, 0]));
    file
}

#[test]
fn sentence_piece_models_of_both_types_are_read() {
    let pieces = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("\u{2581}", -5.0, 1),
        ("a", -3.0, 1),
        ("b", -3.0, 1),
        ("ab", -1.0, 1),
        ("\u{2581}a", -0.5, 1),
        ("<tool>", 0.0, 4),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.model");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Tokenizer::from_file(&path, None)
    };
    let merged = read(&sentence_piece(&pieces, 2)).unwrap();
    assert_eq!(merged.encode("ab ab", true).unwrap(), [1, 7, 5, 7, 5]);
    assert_eq!(
        merged.encode("a?!<tool>a", false).unwrap(),
        [7, 0, 8, 4],
        "no space after what users defined"
    );
    assert_eq!(merged.decode(&[7, 5, 7], true), "ab a");
    let likeliest = read(&sentence_piece(&pieces, 1)).unwrap();
    assert_eq!(likeliest.encode("ab", false).unwrap(), [7, 5]);
    assert_eq!(likeliest.encode("bab?", false).unwrap(), [3, 5, 6, 0]);
    assert_eq!(read(&sentence_piece(&pieces, 3)).err().unwrap().kind(), ErrorKind::Unsupported);
    let whole = sentence_piece(&pieces, 2);
    for end in 0..whole.len() {
        // A cut at the border of a piece leaves a model with fewer pieces.
        let _ = read(&whole[..end]);
    }
    assert_eq!(
        read(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").err().unwrap().kind(),
        ErrorKind::Malformed
    );
}
