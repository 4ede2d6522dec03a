//! Answers: against transformers, and against each other.

use serde_json::{Value, json};

use crate::support::{expected, fixture, json, list, run, run_with};

/// Models and the results that belong to them.
const GOLDEN: &[(&str, &str)] = &[
    ("llama", "llama/expected.json"),
    ("llama_sharded_f16", "llama_sharded_f16/expected.json"),
    ("llama_head_dim/twin-00001-of-00002.gguf", "llama_head_dim/expected.json"),
    ("mistral_window", "mistral_window/expected.json"),
    ("qwen3_tied", "qwen3_tied/expected.json"),
    ("gemma2", "gemma2/expected.json"),
    ("gemma3", "gemma3/expected.json"),
    ("gguf_q4_1", "gguf_q4_1/twin.expected.json"),
];

fn greedy(model: &str, prompts: &[String], more: &[&str]) -> Value {
    let model = fixture(model);
    let mut args = vec!["run", model.to_str().unwrap(), "--kv", "f32", "--ignore-eos", "--temperature", "0"];
    args.extend(prompts.iter().flat_map(|p| ["--token-ids", p.as_str()]));
    args.extend(more);
    json(&args)
}

#[test]
fn greedy_answers_are_those_of_transformers() {
    for (model, file) in GOLDEN {
        let expected = expected(file);
        let prompts = expected["prompts"].as_array().unwrap();
        let ids: Vec<String> = prompts.iter().map(|p| list(&p["ids"])).collect();
        let found = greedy(model, &ids, &["--max-new-tokens", "10"]);
        for (i, want) in prompts.iter().enumerate() {
            let result = &found["results"][i];
            assert_eq!(result["token_ids"], want["greedy"], "{model}, prompt {i}");
            assert_eq!(result["prompt_token_ids"], want["ids"], "{model}, prompt {i}");
            assert_eq!((&result["finish_reason"], &result["index"]), (&json!("length"), &json!(i)));
        }
    }
}

#[test]
fn log_probabilities_are_those_of_transformers() {
    let model = fixture("qwen3_tied");
    let expected = expected("qwen3_tied/expected.json");
    for want in expected["prompts"].as_array().unwrap() {
        let args =
            ["score", model.to_str().unwrap(), "--kv", "f32", "--logits", "--token-ids", &list(&want["ids"])];
        let found = &json(&args)["results"][0];
        for key in ["logprobs", "logits_last"] {
            let (found, want) = (found[key].as_array().unwrap(), want[key].as_array().unwrap());
            assert_eq!(found.len(), want.len());
            for (found, want) in found.iter().zip(want) {
                let close = match (found.as_f64(), want.as_f64()) {
                    (Some(f), Some(w)) => (f - w).abs() < 1e-3,
                    (f, w) => f.is_none() && w.is_none(),
                };
                assert!(close, "{key}: {found} is not {want}");
            }
        }
    }
}

#[test]
fn the_chat_template_gives_the_tokens_that_transformers_gives() {
    let model = fixture("chat");
    let expected = expected("chat/expected.json");
    let common = ["run", model.to_str().unwrap(), "--kv", "f32", "--temperature", "0", "--ignore-eos"];
    let mut seen = 0;
    for conversation in expected["conversations"].as_array().unwrap() {
        let messages = conversation["messages"].as_array().unwrap();
        let text = |i: usize| messages[i]["content"].as_str().unwrap();
        let given = match messages.len() {
            1 => vec!["--prompt", text(0)],
            2 => vec!["--system", text(0), "--prompt", text(1)],
            _ => continue,
        };
        let found = json(&[&common[..], &["--max-new-tokens", "16"], &given].concat());
        let result = &found["results"][0];
        assert_eq!(result["prompt_token_ids"], conversation["ids"]);
        assert_eq!(result["token_ids"], conversation["greedy"]);
        assert_eq!(result["text"], conversation["greedy_text"]);
        seen += 1;
    }
    assert_eq!(seen, 2);
    let raw = json(&[&common[..], &["--raw", "--max-new-tokens", "1", "the hills"]].concat());
    assert_eq!(raw["results"][0]["prompt_token_ids"], json!([86, 260, 317]));
}

#[test]
fn the_answer_does_not_depend_on_how_it_is_computed() {
    let expected = expected("llama/expected.json");
    let ids: Vec<String> = expected["prompts"].as_array().unwrap().iter().map(|p| list(&p["ids"])).collect();
    let common = ["--max-new-tokens", "12", "--logprobs"];
    let want = greedy("llama", &ids, &common)["results"].clone();
    let variants: &[&[&str]] = &[
        &["--threads", "1"],
        &["--isa", "portable"],
        &["--device", "reference"],
        &["--io", "buffered"],
        &["--rows-max", "3", "--prefill-chunk", "2"],
        &["--tile-bytes", "1KiB"],
    ];
    for variant in variants {
        let found = greedy("llama", &ids, &[&common[..], variant].concat());
        assert_eq!(found["results"], want, "{variant:?}");
    }
    for (i, alone) in ids.iter().enumerate() {
        let mut found = greedy("llama", std::slice::from_ref(alone), &common)["results"][0].clone();
        found["index"] = json!(i);
        assert_eq!(found, want[i], "prompt {i} alone");
    }
}

#[test]
fn sampled_answers_follow_the_seed_and_differ_from_each_other() {
    let model = fixture("chat");
    let sample = |more: &[&str]| {
        let common = ["run", model.to_str().unwrap(), "hello", "--max-new-tokens", "12", "--ignore-eos"];
        json(&[&common[..], more].concat())["results"].clone()
    };
    let three = sample(&["--seed", "5", "--n", "3"]);
    assert_eq!(three.as_array().unwrap().len(), 3);
    assert_eq!(sample(&["--seed", "5", "--n", "3"]), three);
    assert_eq!(sample(&["--seed", "5"])[0], three[0], "the first of three is the one of one");
    assert_ne!(three[0]["token_ids"], three[1]["token_ids"]);
    assert_ne!(sample(&["--seed", "6"])[0]["token_ids"], three[0]["token_ids"]);
    let greedy = sample(&["--temperature", "0", "--n", "2"]);
    assert_eq!(greedy[0]["token_ids"], greedy[1]["token_ids"]);
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let model = fixture("chat");
    let args = [
        "run",
        model.to_str().unwrap(),
        "hello",
        "--max-new-tokens",
        "12",
        "--ignore-eos",
        "--kv",
        "f32",
        "--temperature",
        "0",
    ];
    let whole = json(&args)["results"][0].clone();
    let text = whole["text"].as_str().unwrap();
    let stop: String = text.chars().skip(4).take(2).collect();
    let before = text.split(stop.as_str()).next().unwrap();
    let cut = json(&[&args[..], &["--stop", "never", "--stop", &stop]].concat())["results"][0].clone();
    assert_eq!((&cut["text"], &cut["finish_reason"]), (&json!(before), &json!("stop")));
    let count = |v: &Value| v["token_ids"].as_array().unwrap().len();
    assert!(count(&cut) < count(&whole));
}

#[test]
fn a_context_bounds_prompt_and_answer() {
    let model = fixture("llama");
    let args = ["run", model.to_str().unwrap(), "--token-ids", "3,4,5", "--ignore-eos", "--context"];
    for (context, tokens) in [("3", 0), ("5", 2)] {
        let result = json(&[&args[..], &[context]].concat())["results"][0].clone();
        assert_eq!(result["token_ids"].as_array().unwrap().len(), tokens, "{result}");
        assert_eq!(result["finish_reason"], "length");
    }
}

#[test]
fn stdin_is_the_prompt_where_there_is_no_other() {
    let model = fixture("chat");
    let args = ["run", model.to_str().unwrap(), "--max-new-tokens", "4", "--json"];
    let typed = json(&[&args[..4], &["the hills\nand more"]].concat());
    for stdin in ["the hills\nand more", "the hills\nand more\n", "the hills\nand more\r\n"] {
        let piped = run_with(&args, stdin);
        let piped: Value = serde_json::from_str(&piped.stdout).unwrap();
        assert_eq!(piped["results"], typed["results"], "{stdin:?}");
    }
}

#[test]
fn chat_remembers_its_turns() {
    let model = fixture("chat");
    let expected = &expected("chat/expected.json")["conversations"][0];
    let question = expected["messages"][0]["content"].as_str().unwrap();
    let args = [
        "chat",
        model.to_str().unwrap(),
        "--kv",
        "f32",
        "--temperature",
        "0",
        "--ignore-eos",
        "--max-new-tokens",
        "16",
    ];
    let stdin = format!("{question}\nand then?\n/reset\n{question}\n/exit\nnot read\n");
    let outcome = run_with(&[&args[..], &["--json"]].concat(), &stdin);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    for i in [0, 2] {
        assert_eq!(results[i]["prompt_token_ids"], expected["ids"]);
        assert_eq!(results[i]["text"], expected["greedy_text"]);
    }
    let ids = |v: &Value| v.as_array().unwrap().clone();
    assert!(ids(&results[1]["prompt_token_ids"]).starts_with(&ids(&expected["ids"])));
    assert_eq!(report["messages"].as_array().unwrap().len(), 2, "/reset forgets");

    let text = run_with(&args, &format!("{question}\n"));
    assert_eq!(text.stdout.strip_suffix('\n'), expected["greedy_text"].as_str());
    let full = run_with(&[&args[..], &["--context", "60"]].concat(), &format!("{question}\n{question}\n"));
    assert_eq!(full.code, Some(0), "{}", full.stderr);
    assert!(full.stderr.contains("the oldest 2 messages are dropped"), "{}", full.stderr);
    let long = "word ".repeat(60);
    let full = run_with(&[&args[..], &["--context", "60"]].concat(), &format!("{question}\n{long}\n"));
    assert_eq!(full.code, Some(2), "{}", full.stderr);
    assert!(full.stderr.contains("context of 60"), "{}", full.stderr);
}

#[test]
fn nothing_is_generated_for_zero_tokens() {
    let model = fixture("chat");
    let outcome =
        run(&["run", model.to_str().unwrap(), "--token-ids", "5", "--max-new-tokens", "0", "--json"]);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["results"][0]["token_ids"], json!([]));
    assert_eq!(outcome.code, Some(0));
}

#[test]
fn an_adapter_is_applied_and_nothing_beside_it() {
    let adapter = fixture("adapters/llama");
    let expected = expected("adapters/llama/expected.json");
    let ids: Vec<String> = expected["prompts"].as_array().unwrap().iter().map(|p| list(&p["ids"])).collect();
    let with = greedy("llama", &ids, &["--max-new-tokens", "8", "--adapter", adapter.to_str().unwrap()]);
    let without = greedy("llama", &ids, &["--max-new-tokens", "8"]);
    for (i, want) in expected["prompts"].as_array().unwrap().iter().enumerate() {
        assert_eq!(with["results"][i]["token_ids"], want["greedy"], "prompt {i}");
        assert_ne!(without["results"][i]["token_ids"], want["greedy"], "prompt {i}");
    }
}
