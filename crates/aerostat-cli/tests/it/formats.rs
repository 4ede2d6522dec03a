//! The shapes of what is printed, numbers and paths masked.

use serde_json::{Map, Value, json};

use crate::support::{fixture, json, run, succeed};

/// The value with all numbers as 0, strings as "" and lists cut to their first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Number(_) => json!(0),
        Value::String(_) => json!(""),
        Value::Array(list) => list.iter().take(1).map(shape).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), shape(v))).collect::<Map<_, _>>().into(),
        other => other.clone(),
    }
}

fn stats() -> Value {
    let numbers = [
        "sweeps",
        "rows",
        "read_bytes",
        "read_seconds",
        "wall_seconds",
        "read_bytes_per_second",
        "compute_seconds",
        "stall_seconds",
        "pinned_bytes",
        "streamed_bytes_per_sweep",
        "ring_bytes",
        "kv_bytes",
        "memory_budget_bytes",
        "memory_peak_bytes",
        "tokens_per_second",
    ];
    let mut shape: Map<String, Value> = numbers.map(|name| (name.to_owned(), json!(0))).into_iter().collect();
    shape.extend(["device", "io"].map(|name| (name.to_owned(), json!(""))));
    shape.into()
}

/// Everything in `want` is in `found`; fields may have been added.
fn assert_has(found: &Value, want: &Value, place: &str) {
    match (found, want) {
        (Value::Object(found), Value::Object(want)) => {
            for (key, value) in want {
                let place = format!("{place}.{key}");
                assert_has(found.get(key).unwrap_or_else(|| panic!("no {place}")), value, &place);
            }
        }
        (Value::Array(found), Value::Array(want)) => {
            assert_eq!(found.len(), want.len(), "{place}");
            found.iter().zip(want).for_each(|(f, w)| assert_has(f, w, place));
        }
        _ => assert_eq!(found, want, "{place}"),
    }
}

#[test]
fn json_has_the_documented_shape() {
    let (llama, chat) = (fixture("llama"), fixture("chat"));
    let (llama, chat) = (llama.to_str().unwrap(), chat.to_str().unwrap());
    let result = |text: Value, logprobs: Value| {
        json!({"index": 0, "prompt_token_ids": [0], "token_ids": [0], "text": text, "finish_reason": "",
            "logprobs": logprobs})
    };
    let plan_numbers = [
        "parameters",
        "weight_bytes",
        "budget_bytes",
        "minimum_bytes",
        "pinned_bytes",
        "streamed_bytes_per_sweep",
        "ring_bytes",
        "kv_bytes_per_token",
        "activation_bytes",
        "overhead_bytes",
        "rows_max",
        "rows_at_knee",
        "sweep_seconds",
    ];
    let mut plan: Map<String, Value> =
        plan_numbers.map(|name| (name.to_owned(), json!(0))).into_iter().collect();
    plan.extend(["model", "family"].map(|name| (name.to_owned(), json!(""))));
    plan.insert("tokens_per_second".to_owned(), json!({"1": 0, "8": 0, "50": 0}));
    let cases: &[(&[&str], Value)] = &[
        (
            &["run", llama, "--token-ids", "5,6", "--max-new-tokens", "2"],
            json!({"model": "", "results": [result(json!(null), json!(null))], "stats": stats()}),
        ),
        (
            &["run", chat, "hello", "--max-new-tokens", "2", "--logprobs", "--ignore-eos"],
            json!({"model": "", "results": [result(json!(""), json!([0]))], "stats": stats()}),
        ),
        (
            &["score", llama, "--token-ids", "5,6"],
            json!({"results": [{"token_ids": [0], "logprobs": [null]}], "stats": stats()}),
        ),
        (
            &["score", llama, "--token-ids", "5,6", "--logits"],
            json!({"results": [{"token_ids": [0], "logprobs": [null], "logits_last": [0]}], "stats": stats()}),
        ),
        (&["plan", llama], plan.into()),
        (
            &["inspect", chat],
            json!({"model": "", "family": "", "unsupported": null, "parameters": 0, "weight_bytes": 0,
                "formats": {"BF16": {"tensors": 0, "bytes": 0}},
                "tensors": [{"name": "", "dtype": "", "shape": [0], "bytes": 0, "file": ""}],
                "tokenizer": true, "chat_template": true}),
        ),
    ];
    for (args, want) in cases {
        assert_has(&shape(&json(args)), want, &args.join(" "));
    }
}

#[test]
fn nothing_but_the_answer_is_on_stdout_and_quiet_means_quiet() {
    let chat = fixture("chat");
    let args = ["run", chat.to_str().unwrap(), "hello", "--max-new-tokens", "8", "--temperature", "0"];
    let text = json(&args)["results"][0]["text"].as_str().unwrap().to_owned();
    let verbose = run(&[&args[..], &["-v"]].concat());
    assert!(verbose.stderr.contains("KV cache") && verbose.stderr.contains("tokens/s"), "{}", verbose.stderr);
    let quiet = run(&[&args[..], &["--quiet", "--vram", "1GiB"]].concat());
    assert_eq!(quiet.stderr, "");
    for stdout in [verbose.stdout, quiet.stdout] {
        assert_eq!(stdout.strip_suffix('\n'), Some(text.as_str()));
    }
}

#[test]
fn tables_for_people_show_what_the_json_has() {
    let chat = fixture("chat");
    let chat = chat.to_str().unwrap();
    let score = succeed(&["score", chat, "the hills"]);
    assert!(score.contains("\" hills\""), "{score}");
    assert!(score.contains("sum") && score.contains("perplexity"), "{score}");
    let plan = succeed(&["plan", chat]);
    assert!(plan.contains("budget") && plan.contains("KV cache") && plan.contains("a token, f16)"), "{plan}");
    assert!(succeed(&["plan", chat, "--kv", "q8"]).contains("a token, q8)"));
    let inspect = succeed(&["inspect", chat, "-v"]);
    assert!(inspect.contains("BF16") && inspect.contains("model.norm.weight"), "{inspect}");
    let ids =
        succeed(&["run", chat, "--token-ids", "5", "--token-ids", "6", "--max-new-tokens", "3", "--raw"]);
    assert!(ids.starts_with("[0] ") && ids.contains("\n[1] "), "{ids:?}");
    let bare =
        succeed(&["run", fixture("llama").to_str().unwrap(), "--token-ids", "5", "--max-new-tokens", "3"]);
    assert!(bare.trim_end().split(',').all(|id| id.parse::<u32>().is_ok()), "{bare:?}");
}

/// What a sweep computes reads like the model's paper: its parts are there, in their order, with their shapes.
#[test]
fn programs_name_what_families_compute() {
    for (model, parts) in [
        (
            "llama",
            &["blocks 0-1", "q [rows, ", "rope(q, angles)", "kv_write(k, v)", "glu(gate, up)", "logits"][..],
        ),
        (
            "gemma3",
            &["angles_2", "blocks 0-4, 6", "q_norm", "window Last(6)", "attention_post_norm", "block 5"],
        ),
        (
            "deepseek_v3",
            &[
                "matmul(h, KvDown)",
                "head by head",
                "first 20 elements of keys",
                "route(router)",
                "for each expert",
            ],
        ),
        (
            "qwen3_next",
            &["short_conv(qkv, convolution, history)", "delta_rule(qkv, strengths, decays, state)", "shared"],
        ),
        ("gpt_oss", &["attention(q, sinks)", "SoftmaxOfChosen", "for each expert", "ClippedSilu"]),
    ] {
        let path = fixture(model);
        let text = succeed(&["inspect", path.to_str().unwrap(), "--program"]);
        let mut rest = text.as_str();
        for part in parts {
            let Some(at) = rest.find(part) else { panic!("{model}: no {part:?} there in\n{text}") };
            rest = &rest[at..];
        }
    }
}
