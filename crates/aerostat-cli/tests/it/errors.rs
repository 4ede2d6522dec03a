//! Models and requests that cannot work: what is said, and with which exit code.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{copy, edit_json, edit_safetensors, fixture, json, run, run_with, succeed};

const UP: &str = "model.layers.1.mlp.up_proj.weight";
const GATE: &str = "model.layers.1.mlp.gate_proj.weight";
const SHARD: &str = "model-00002-of-00005.safetensors";

/// A way to break a copy of a fixture, and what the message must contain.
type Case = (&'static str, &'static str, fn(&Path), &'static [&'static str]);

const BROKEN: &[Case] = &[
    ("truncated shard", "llama_sharded_f16", truncate_shard, &[SHARD, "not finished"]),
    ("missing shard", "llama_sharded_f16", |f| fs::remove_file(f.join(SHARD)).unwrap(), &[SHARD]),
    ("header longer than the file", "llama", lengthen_header, &["model.safetensors", "header"]),
    ("overlapping offsets", "llama", |f| offsets(f, |_, gate| gate), &["model.safetensors", UP, "overlap"]),
    ("offsets outside the file", "llama", |f| offsets(f, |[a, b], _| [a + (1 << 40), b + (1 << 40)]), &[UP]),
    (
        "a shape that does not fit its bytes",
        "llama",
        |f| field(f, UP, "shape", json!([56, 41])),
        &[UP, "[56, 41]"],
    ),
    ("unknown dtype", "llama", |f| field(f, UP, "dtype", json!("F7")), &["model.safetensors", UP, "F7"]),
    ("missing tensor", "llama", rename_tensor, &[UP]),
    ("unknown family", "llama", |f| family(f, "RwkvForCausalLM"), &["RwkvForCausalLM"]),
    ("malformed config", "llama", |f| fs::write(f.join("config.json"), "{").unwrap(), &["config.json"]),
    (
        "a config that is a list",
        "llama",
        |f| fs::write(f.join("config.json"), "[]").unwrap(),
        &["config.json"],
    ),
    ("no hidden size", "llama", |f| config(f, "hidden_size", json!(null)), &["hidden_size"]),
    ("an absurd hidden size", "llama", |f| config(f, "hidden_size", json!(1u64 << 60)), &[]),
    ("not a number in a weight", "llama", |f| poison(f, UP), &[UP, "not finite"]),
    ("not a number in a norm", "llama", |f| poison(f, "model.norm.weight"), &["model.norm.weight"]),
];

fn truncate_shard(folder: &Path) {
    let path = folder.join(SHARD);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
}

fn lengthen_header(folder: &Path) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..8].copy_from_slice(&50_000_000u64.to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

fn offsets(folder: &Path, change: fn([u64; 2], [u64; 2]) -> [u64; 2]) {
    edit_safetensors(&folder.join("model.safetensors"), |header, _| {
        let pair = |name: &str| [0, 1].map(|i| header[name]["data_offsets"][i].as_u64().unwrap());
        header[UP]["data_offsets"] = json!(change(pair(UP), pair(GATE)));
    });
}

fn field(folder: &Path, tensor: &str, key: &str, value: serde_json::Value) {
    edit_safetensors(&folder.join("model.safetensors"), |header, _| header[tensor][key] = value);
}

fn rename_tensor(folder: &Path) {
    edit_safetensors(&folder.join("model.safetensors"), |header, _| {
        let tensor = header.as_object_mut().unwrap().remove(UP).unwrap();
        header["someone.else"] = tensor;
    });
}

fn config(folder: &Path, key: &str, value: serde_json::Value) {
    edit_json(&folder.join("config.json"), |config| config[key] = value);
}

fn family(folder: &Path, architecture: &str) {
    config(folder, "architectures", json!([architecture]));
}

/// Writes a NaN over the third element of an F32 tensor.
fn poison(folder: &Path, tensor: &str) {
    edit_safetensors(&folder.join("model.safetensors"), |header, data| {
        let start = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize + 8;
        data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
}

#[test]
fn broken_models_fail_with_what_is_wrong_and_where() {
    for (name, base, break_it, parts) in BROKEN {
        let folder = copy(base);
        break_it(folder.path());
        let model = folder.path().to_str().unwrap();
        for command in ["run", "score"] {
            let outcome = run(&[command, model, "--token-ids", "3,4", "--json"]);
            assert_eq!(outcome.code, Some(1), "{name}: {outcome:?}");
            assert!(outcome.stderr.starts_with("error: "), "{name}: {}", outcome.stderr);
            // An error once left nothing on stdout, which is no JSON.
            let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
            assert_eq!(told["error"]["kind"], "failed", "{name}");
            let message = told["error"]["message"].as_str().unwrap();
            for part in *parts {
                assert!(message.contains(part), "{name}: `{part}` is not in: {message}");
                assert!(outcome.stderr.contains(part), "{name}: `{part}` is not in: {}", outcome.stderr);
            }
        }
    }
}

#[test]
fn requests_that_cannot_work_fail_with_the_reason() {
    let (llama, chat) = (fixture("llama"), fixture("chat"));
    let (llama, chat) = (llama.to_str().unwrap(), chat.to_str().unwrap());
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["run", llama, "some text"], 1, &["no tokenizer", "hint: ", "--token-ids"]),
        (&["run", llama, "--token-ids", "3", "--stop", "x"], 1, &["no tokenizer"]),
        (&["chat", llama], 1, &["no tokenizer"]),
        (&["run", llama, "--token-ids", "3,128"], 2, &["prompt 0", "128", "vocabulary"]),
        (&["score", llama, "--token-ids", "4294967295"], 2, &["prompt 0", "4294967295"]),
        (&["run", llama], 2, &["empty"]),
        (&["run", chat, ""], 2, &["empty"]),
        (&["run", chat, "--raw", ""], 2, &["empty"]),
        (
            &["run", llama, "--token-ids", "1,2,3,4", "--context", "3"],
            2,
            &["4 tokens", "context of 3", "--context"],
        ),
        (&["run", llama, "--token-ids", "1", "--device", "gpu:99"], 1, &["--device cpu"]),
        (
            &["run", llama, "--token-ids", "1", "--memory", "1MiB"],
            1,
            &["memory budget", "at least", "--memory"],
        ),
        (&["plan", llama, "--memory", "1MiB"], 1, &["memory budget", "at least", "--memory"]),
        (&["run", "/nonexistent/model", "x"], 1, &["/nonexistent/model"]),
        (&["inspect", "no such model"], 1, &["no such model"]),
        (&["plan", "./missing.gguf"], 1, &["./missing.gguf"]),
        (&["pull", "some/model"], 1, &["some/model"]),
    ];
    for (args, code, parts) in cases {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(*code), "{args:?}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{args:?}");
        for part in *parts {
            assert!(outcome.stderr.contains(part), "{args:?}: `{part}` is not in: {}", outcome.stderr);
        }
    }
}

#[test]
fn the_minimum_that_a_refused_budget_names_works() {
    let model = fixture("llama");
    let args = ["run", model.to_str().unwrap(), "--token-ids", "3,4,5", "--max-new-tokens", "4"];
    let refused = run(&[&args[..], &["--memory", "2MiB"]].concat()).stderr;
    let (_, after) = refused.split_once("at least ").unwrap();
    let minimum: String = after.split_inclusive("iB").next().unwrap().replace(' ', "");
    let roomy = json(&args);
    let tight = json(&[&args[..], &["--memory", &minimum]].concat());
    assert_eq!(tight["results"], roomy["results"]);
    let number = |key: &str| tight["stats"][key].as_u64().unwrap();
    assert!(number("memory_peak_bytes") <= number("memory_budget_bytes"), "{}", tight["stats"]);
}

#[test]
fn a_broken_tokenizer_does_not_keep_token_ids_from_running() {
    let folder = copy("chat");
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let model = folder.path().to_str().unwrap();
    let outcome = run(&["run", model, "--token-ids", "5,6", "--max-new-tokens", "2", "--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("note: going on without the tokenizer"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("\"text\":null"), "{}", outcome.stdout);
    let refused = run_with(&["run", model], "hello\n");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("tokenizer.json") && refused.stderr.contains("--token-ids"),
        "{}",
        refused.stderr
    );
}

#[test]
fn inspect_describes_what_cannot_run_and_says_why() {
    let folder = copy("llama");
    family(folder.path(), "RwkvForCausalLM");
    let model = folder.path().to_str().unwrap();
    let report = json(&["inspect", model]);
    assert_eq!(report["family"], json!(null));
    assert!(report["unsupported"].as_str().unwrap().contains("RwkvForCausalLM"), "{report}");
    assert!(succeed(&["inspect", model]).contains("RwkvForCausalLM"));
    lengthen_header(folder.path());
    assert_eq!(run(&["inspect", model]).code, Some(1));
}

/// What the parser of flags refused once left stdout empty.
#[test]
fn a_flag_that_is_wrong_is_an_object_with_json() {
    let wrong: [&[&str]; 3] = [
        &["run", "m", "x", "--json", "--temperature", "hot"],
        &["run", "m", "x", "--json", "--no-such-flag"],
        &["--json", "no-such-command"],
    ];
    for args in wrong {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(report["error"]["kind"], "usage");
        assert!(report["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{report}");
    }
    assert!(run(&["run", "--json", "--help"]).stdout.contains("Usage: aerostat run"));
}

/// `run` worked within 38 MiB once where `plan` asked for 47; and asked for 3 MiB more where it planned for shorter answers,
/// since what the first plan had taken counted.
#[test]
fn a_plan_names_the_minimum_of_a_run() {
    let model = fixture("chat");
    let model = model.to_str().unwrap();
    let least = |args: &[&str]| {
        let refused = run(&[args, &["--memory", "2MiB"]].concat()).stderr;
        let (_, after) = refused.split_once("at least ").unwrap();
        after.split(" MiB").next().unwrap().parse::<i64>().unwrap()
    };
    let (mut planned, mut needed) = (0, 0);
    for context in [&["--context", "288"][..], &[]] {
        planned = least(&[&["plan", model], context].concat());
        needed = least(&[&["run", model, "hi"], context].concat());
        assert!((planned - needed).abs() <= 2, "{planned} MiB planned, {needed} MiB needed, {context:?}");
    }
    let within = |args: &[&str], mib: i64| {
        let outcome = run(&[args, &["--memory", &format!("{mib}MiB"), "--context", "288"]].concat());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    };
    within(&["run", model, "hi", "--max-new-tokens", "4"], planned);
    within(&["plan", model], needed);
}
