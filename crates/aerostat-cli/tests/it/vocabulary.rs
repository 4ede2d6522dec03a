//! `tokenize` and `prompt`, files of vocabulary alone, and tokenizers that mean harm.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{copy, expected, fixture, json as run_json, processor_seconds, run, run_with, succeed};

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn tokenize_gives_the_ids_of_transformers_with_a_model_or_a_vocabulary_alone() {
    let folder = fixture("chat");
    let models = [folder.clone(), folder.join("tokenizer.json"), folder.join("twin.gguf")];
    for case in expected("chat/expected.json")["encodings"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        for model in &models {
            let outcome = run_with(&["tokenize", path(model), "-", "--no-special", "--json"], text);
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
            let got: Value = serde_json::from_str(&outcome.stdout).unwrap();
            assert_eq!(got, json!({"token_ids": case["ids"]}), "{text:?}");
        }
    }
    let got = run_json(&["tokenize", path(&folder), "the hills", "--pieces"]);
    let pieces: Vec<&str> =
        got["pieces"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect();
    assert_eq!(pieces.concat(), "the\u{120}hills");
    assert_eq!(got["token_ids"].as_array().unwrap().len(), pieces.len());
    assert!(succeed(&["tokenize", path(&folder), "the hills", "--pieces"]).contains("\t\u{120}hill"));
}

/// A device has no size, and was read until the memory was full; a name that is no text was refused.
#[cfg(unix)]
#[test]
fn messages_are_read_from_any_path_and_within_bounds() {
    use std::os::unix::ffi::OsStrExt;
    let model = fixture("chat");
    let outcome = run(&["prompt", path(&model), "--messages", "/dev/zero"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("more than"), "{}", outcome.stderr);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.json"));
    fs::write(&file, r#"[{"role": "user", "content": "hi"}]"#).unwrap();
    let given = crate::support::command(&["prompt", path(&model), "--messages"]).arg(&file).output().unwrap();
    assert!(given.status.success(), "{given:?}");
}

#[test]
fn prompt_gives_the_text_and_ids_of_transformers() {
    let folder = fixture("chat");
    for case in expected("chat/expected.json")["conversations"].as_array().unwrap() {
        let messages = case["messages"].to_string();
        for model in [folder.clone(), folder.join("twin.gguf"), folder.join("tokenizer.json")] {
            let outcome = run_with(&["prompt", path(&model), "--messages", "-", "--json"], &messages);
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
            let got: Value = serde_json::from_str(&outcome.stdout).unwrap();
            assert_eq!(got, json!({"text": case["text"], "token_ids": case["ids"]}));
        }
        let request = json!({"messages": case["messages"]}).to_string();
        let outcome =
            run_with(&["prompt", path(&folder), "--messages", "-", "--no-generation-prompt"], &request);
        assert_eq!(case["text"].as_str().unwrap(), format!("{}<|im_start|>assistant\n", outcome.stdout));
    }
}

#[test]
fn variables_and_named_templates_reach_the_prompt() {
    let folder = copy("chat");
    let config = folder.path().join("tokenizer_config.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    text["chat_template"] =
        json!([{"name": "tool_use", "template": "t{{ x }}"}, {"name": "rag", "template": "r{{ x }}"}]);
    fs::write(&config, text.to_string()).unwrap();
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let prompt = |more: &[&str]| {
        let args = [&["prompt", path(folder.path()), "--messages", "-"], more].concat();
        run_with(&args, r#"[{"role": "user", "content": "hi"}]"#)
    };
    assert_eq!(prompt(&["--template-name", "rag", "--kwargs", r#"{"x": 5}"#]).stdout, "r5");
    let outcome = prompt(&[]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("tool_use, rag") && outcome.stderr.contains("--template-name"),
        "{}",
        outcome.stderr
    );
    assert_eq!(prompt(&["--kwargs", "5"]).code, Some(2));
    let outcome = run_with(&["prompt", path(folder.path()), "--messages", "-"], "nonsense");
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn a_folder_of_vocab_json_and_merges_txt_runs_as_released() {
    let folder = copy("chat");
    let file: Value =
        serde_json::from_slice(&fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    fs::write(folder.path().join("vocab.json"), file["model"]["vocab"].to_string()).unwrap();
    let merges = file["model"]["merges"].as_array().unwrap().iter().map(|merge| match merge.as_array() {
        Some(sides) => format!("{} {}\n", sides[0].as_str().unwrap(), sides[1].as_str().unwrap()),
        None => format!("{}\n", merge.as_str().unwrap()),
    });
    fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\n{}", merges.collect::<String>()))
        .unwrap();
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::write(
        folder.path().join("tokenizer_config.json"),
        r#"{"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}"#,
    )
    .unwrap();
    for case in expected("chat/expected.json")["encodings"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let outcome = run_with(&["tokenize", path(folder.path()), "-", "--no-special", "--json"], text);
        let got: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(got["token_ids"], case["ids"], "{text:?}");
    }
    let args =
        ["run", path(folder.path()), "What is the weather like today?", "--max-new-tokens", "3", "--json"];
    assert_eq!(
        run_json(&args[..5])["results"][0]["prompt_token_ids"],
        expected("chat/expected.json")["conversations"][0]["ids"]
    );
}

#[cfg(unix)]
#[test]
fn tokenizers_that_mean_harm_end_in_an_answer_or_one_error() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile_tokenizers");
    let folder = copy("chat");
    let letters = format!("{}!", "a".repeat(20_000));
    for entry in fs::read_dir(data).unwrap() {
        let file = entry.unwrap().path();
        fs::copy(&file, folder.path().join("tokenizer.json")).unwrap();
        let model = path(folder.path());
        let answer = vec!["run", model, "--raw", "--max-new-tokens", "1", "--memory", "256MiB"];
        let tokens = vec!["tokenize", model, "-"];
        for (args, text) in [(answer.clone(), "hi"), (answer, &*letters), (tokens, &*letters)] {
            let begin = processor_seconds();
            let outcome = run_with(&args, text);
            let took = processor_seconds() - begin;
            assert!(took < 10.0, "{}: {took} s", file.display());
            assert!(outcome.stderr.len() < 4000, "{}: {} bytes", file.display(), outcome.stderr.len());
            match outcome.code {
                Some(0) => {}
                Some(1 | 2) => assert_eq!(outcome.stderr.matches("error").count(), 1, "{}", outcome.stderr),
                code => panic!("{}: {code:?} {}", file.display(), outcome.stderr),
            }
        }
    }
}

#[test]
fn what_has_no_tokenizer_is_told() {
    let outcome = run(&["tokenize", path(&fixture("llama")), "hi"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("there is no tokenizer"), "{}", outcome.stderr);
    let outcome =
        run(&["prompt", path(&fixture("chat").join("tokenizer.json")), "--messages", "/nowhere.json"]);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("/nowhere.json"), "{}", outcome.stderr);
}
