//! Where prompts come from, how long they may be, and what is said about answers that were cut.

use std::io::Write;
use std::process::Stdio;

use crate::support::{command, fixture, json, run, run_with, succeed};

fn chat() -> String {
    fixture("chat").to_str().unwrap().to_owned()
}

/// A prompt that is longer than the model was once computed, after a note.
#[test]
fn a_prompt_that_is_longer_than_the_model_is_refused_unless_a_context_is_named() {
    let model = chat();
    let long = vec!["5"; 600].join(",");
    for command in ["run", "score", "embed"] {
        let refused = run(&[command, &model, "--token-ids", &long]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("600 tokens") && refused.stderr.contains("512"), "{refused:?}");
        assert!(refused.stderr.contains("--context"), "{refused:?}");
        let named = [command, &model, "--token-ids", &long, "--context", "900"];
        let named =
            if command == "run" { [&named[..], &["--max-new-tokens", "2"]].concat() } else { named.to_vec() };
        assert_eq!(run(&named).code, Some(0), "{command}");
    }
    let words = "words ".repeat(40_000);
    let refused = run_with(&["run", &model], &words);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let refused = run_with(&["chat", &model], &"words ".repeat(600));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("512"), "{refused:?}");
}

/// Answers once ended after 256 tokens without a word.
#[test]
fn an_answer_that_was_cut_says_so_and_which_flag_makes_it_longer() {
    let model = chat();
    let base = ["run", &model, "hello", "--ignore-eos"];
    let cut = run(&[&base[..], &["--max-new-tokens", "7"]].concat());
    assert!(cut.stderr.contains("stopped at 7 tokens: --max-new-tokens"), "{cut:?}");
    let cut = run(&base);
    assert!(cut.stderr.contains("stopped at a context of 512 tokens: --context"), "{cut:?}");
    let several = run(&[&base[..], &["--prompt", "more", "--max-new-tokens", "3"]].concat());
    assert!(several.stderr.contains("answer 1: stopped at 3 tokens"), "{several:?}");
    assert_eq!(run(&[&base[..], &["--max-new-tokens", "3", "--quiet"]].concat()).stderr, "");
    let turn = run_with(&["chat", &model, "--ignore-eos", "--max-new-tokens", "5"], "hello\n");
    assert!(turn.stderr.contains("stopped at 5 tokens: --max-new-tokens"), "{turn:?}");
}

#[test]
fn what_is_piped_in_follows_the_prompt_and_a_dash_stands_for_it() {
    let model = chat();
    let ids = |args: &[&str], stdin: &str| {
        let more = ["--max-new-tokens", "1", "--json"];
        let outcome = run_with(&[&["run", &model], args, &more[..]].concat(), stdin);
        let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect(&outcome.stderr);
        report["results"][0]["prompt_token_ids"].clone()
    };
    let joined = ids(&["Summarise:\n\nthe hills\nand more"], "");
    assert_eq!(ids(&["Summarise:"], "the hills\nand more\n"), joined);
    assert_eq!(ids(&["-"], "the hills"), ids(&["the hills"], ""));
    assert_eq!(ids(&[], "the hills\r\n"), ids(&["the hills"], "\n"));
    // Of several prompts none is the one that is meant.
    assert_eq!(ids(&["a", "--prompt", "b"], "the hills"), ids(&["a"], ""));
    let several = run_with(&["run", &model, "a", "--prompt", "b", "--max-new-tokens", "1"], "the hills");
    assert!(several.stderr.contains("is not read beside several prompts"), "{several:?}");
    let twice = run_with(&["run", &model, "-", "--prompt", "-"], "x");
    assert_eq!(twice.code, Some(2), "{twice:?}");
    assert_eq!(run_with(&["score", &model, "-"], "").code, Some(2));
    let scored = run_with(&["score", &model, "-", "--json"], "the hills").stdout;
    let want = json(&["score", &model, "the hills"])["results"].clone();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&scored).unwrap()["results"], want);
}

/// Whoever starts the command may hold a pipe open that nothing comes through.
#[test]
fn a_pipe_that_nothing_comes_through_is_not_waited_for() {
    let model = chat();
    let mut waiting = command(&["run", &model, "hello", "--max-new-tokens", "2"]);
    let mut child =
        waiting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("nothing came through stdin"));
    assert!(stdin.write_all(b"late").is_err());
}

#[test]
fn answers_that_are_all_the_same_and_models_without_a_template_are_noted() {
    let model = chat();
    let same = run(&["run", &model, "hello", "--n", "3", "--max-new-tokens", "2", "--temperature", "0"]);
    assert!(same.stderr.contains("all answers to a prompt are the same"), "{same:?}");
    let raw = succeed(&["run", &model, "hello", "--raw", "--max-new-tokens", "2"]);
    assert!(!raw.is_empty());
    let copy = crate::support::copy("chat");
    for file in ["chat_template.jinja", "chat_template.json"] {
        let _ = std::fs::remove_file(copy.path().join(file));
    }
    crate::support::edit_json(&copy.path().join("tokenizer_config.json"), |config| {
        config.as_object_mut().unwrap().remove("chat_template");
    });
    let base = run(&["run", copy.path().to_str().unwrap(), "hello", "--max-new-tokens", "2"]);
    assert!(base.stderr.contains("no chat template"), "{base:?}");
}
