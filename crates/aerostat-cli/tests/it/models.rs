//! Models that are here: those of other programs run where they lie, and are not removed.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{command, fixture, run};

/// The command with a home that has a model in every store.
fn at_home(home: &Path, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("HOME", home).env("HF_HOME", home.join("hf")).env("AEROSTAT_CACHE", home.join("own"));
    command.env_remove("XDG_CACHE_HOME").env_remove("OLLAMA_MODELS").env_remove("LLAMA_CACHE");
    command
}

fn furnished() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let twin = fs::read(fixture("chat").join("twin.gguf")).unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let hex = "a".repeat(64);
    let manifest = json!({"schemaVersion": 2, "layers": [
        {"mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{hex}"), "size": twin.len()},
        {"mediaType": "application/vnd.ollama.image.license", "digest": format!("sha256:{}", "b".repeat(64)), "size": 3}]});
    put(&format!(".ollama/models/blobs/sha256-{hex}"), &twin);
    put(".ollama/models/manifests/registry.ollama.ai/library/tiny/latest", manifest.to_string().as_bytes());
    put(".lmstudio/models/someone/tiny-GGUF/tiny-BF16.gguf", &twin);
    put(".cache/llama.cpp/someone_tiny-BF16.gguf", &twin);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let hub = "hf/hub/models--someone--tiny";
    put(&format!("{hub}/refs/main"), commit.as_bytes());
    for entry in fs::read_dir(fixture("chat")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        put(&format!("{hub}/snapshots/{commit}/{name}"), &fs::read(path).unwrap());
    }
    home
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const NAMES: [&str; 4] = [
    "someone/tiny",
    "ollama:tiny",
    "lmstudio:someone/tiny-GGUF/tiny-BF16.gguf",
    "llama.cpp:someone_tiny-BF16.gguf",
];

#[test]
fn models_of_every_store_are_listed_and_run_where_they_lie() {
    let home = furnished();
    let (code, text, _) = output(&mut at_home(home.path(), &["models", "--json"]));
    assert_eq!(code, Some(0));
    let report: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> =
        report["models"].as_array().unwrap().iter().map(|m| m["model"].as_str().unwrap()).collect();
    assert_eq!(names, NAMES);
    assert!(
        report["models"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["bytes"].as_u64() > Some(1000) && m["complete"] == true)
    );
    let (_, table, _) = output(&mut at_home(home.path(), &["models"]));
    assert!(table.contains("Ollama\n  ollama:tiny ") && table.contains("used within the hour"), "{table}");
    for name in NAMES.into_iter().chain(["lmstudio:someone/tiny-GGUF", "lmstudio:tiny-BF16.gguf"]) {
        let args = ["run", name, "--token-ids", "5,6,7", "--max-new-tokens", "3", "--json"];
        let (code, text, stderr) = output(&mut at_home(home.path(), &args));
        assert_eq!(code, Some(0), "{name}: {stderr}");
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["results"][0]["token_ids"].as_array().unwrap().len(), 3, "{name}");
    }
    let (code, _, stderr) = output(&mut at_home(home.path(), &["run", "ollama:other", "x"]));
    assert!(code == Some(1) && stderr.contains("ollama:tiny"), "{stderr}");
}

#[test]
fn only_what_is_ours_is_removed_and_only_on_a_word() {
    let home = furnished();
    for name in &NAMES[1..] {
        let (code, _, stderr) = output(&mut at_home(home.path(), &["rm", name, "--yes"]));
        assert!(code == Some(1) && stderr.contains("removes it"), "{name}: {stderr}");
    }
    let (code, _, stderr) = output(&mut at_home(home.path(), &["rm", "someone/tiny"]));
    assert!(code == Some(2) && stderr.contains("someone/tiny") && stderr.contains("--yes"), "{stderr}");
    for name in ["someone/other", home.path().to_str().unwrap(), "../..", "someone/tin"] {
        assert_eq!(output(&mut at_home(home.path(), &["rm", name, "--yes"])).0, Some(2), "{name}");
    }
    assert!(home.path().join("hf/hub/models--someone--tiny").exists());
    let (code, text, _) =
        output(&mut at_home(home.path(), &["rm", "https://huggingface.co/someone/tiny", "--yes", "--json"]));
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["removed"], json!(["someone/tiny"]));
    assert!(!home.path().join("hf/hub/models--someone--tiny").exists());
    let (_, text, _) = output(&mut at_home(home.path(), &["models"]));
    assert!(!text.contains("someone/tiny ") && text.contains("ollama:tiny"), "{text}");
}

#[test]
fn defaults_come_from_a_file_and_from_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let model = fixture("chat");
    let file = home.path().join("config.toml");
    let run = |text: &str, variables: &[(&str, &str)], args: &[&str]| {
        fs::File::create(&file).unwrap().write_all(text.as_bytes()).unwrap();
        let args = [&["run", model.to_str().unwrap(), "--token-ids", "5,6", "--ignore-eos", "--json"], args]
            .concat();
        let mut command = command(&args);
        command.env("AEROSTAT_CONFIG", &file).envs(variables.iter().copied());
        let (code, text, stderr) = output(&mut command);
        let value: Value = serde_json::from_str(&text).unwrap();
        (code, value["results"][0]["token_ids"].as_array().map_or(0, Vec::len), value, stderr)
    };
    assert_eq!(run("max-new-tokens = 3", &[], &[]).1, 3);
    assert_eq!(run("max-new-tokens = 3\n[run]\nmax-new-tokens = 4", &[], &[]).1, 4);
    let variable = [("AEROSTAT_MAX_NEW_TOKENS", "5")];
    assert_eq!(run("max-new-tokens = 3", &variable, &[]).1, 5);
    assert_eq!(run("max-new-tokens = 3", &variable, &["--max-new-tokens", "6"]).1, 6);
    let (code, _, value, stderr) = run("max-new-token = 3", &[], &[]);
    assert_eq!((code, &value["error"]["kind"]), (Some(2), &json!("usage")));
    assert!(stderr.contains("config.toml: `max-new-token`"), "{stderr}");
    let (code, .., stderr) = run("max-new-tokens = \n", &[], &[]);
    assert!(code == Some(2) && stderr.contains("config.toml") && stderr.contains("line 1"), "{stderr}");
}

#[test]
fn shells_and_manuals_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = output(&mut command(&["completions", shell]));
        assert!(code == Some(0) && text.contains("classify") && text.contains("max-new-tokens"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, ..) = output(&mut command(&["man", folder.path().to_str().unwrap()]));
    assert_eq!(code, Some(0));
    for page in ["aerostat.1", "aerostat-run.1", "aerostat-bench-disk.1"] {
        let text = fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let (_, version, _) = output(&mut command(&["--version"]));
    for name in ["commit: ", "features: ", "instructions: "] {
        assert!(version.contains(name), "{version}");
    }
    let (_, short, _) = output(&mut command(&["-V"]));
    assert_eq!(short.lines().count(), 1, "{short}");
}

/// A folder whose name is not text was refused before it was looked for.
#[cfg(unix)]
#[test]
fn the_path_of_a_model_need_not_be_text() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;

    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join(OsStr::from_bytes(b"m\xffdel"));
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(fixture("chat")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let run = |command: &[&str], model: &OsString, more: &[&str]| {
        let output = crate::support::command(command).arg(model).args(more).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let model = OsString::from(model);
    for (command, more) in [
        (&["run"][..], &["hi", "--max-new-tokens", "1", "--json"][..]),
        (&["inspect", "--json"], &[]),
        (&["plan", "--json"], &["--memory", "64MiB"]),
        (&["tokenize", "--json"], &["hi"]),
        (&["score"], &["--token-ids", "5,6", "--json"]),
        (&["bench", "sweep"], &["--rows", "1", "--sweeps", "1"]),
    ] {
        let (code, told) = run(command, &model, more);
        assert_eq!(code, Some(0), "{command:?}: {told}");
    }
    let (input, output) =
        (folder.path().join(OsStr::from_bytes(b"i\xff.jsonl")), OsStr::from_bytes(b"o\xff.jsonl"));
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a", "max_tokens": 1}});
    std::fs::write(&input, line.to_string()).unwrap();
    let mut batch = command(&["batch", "--json", "-m"]);
    batch.arg(&model).arg("-i").arg(&input).arg("-o").arg(folder.path().join(output));
    let done = batch.output().unwrap();
    assert!(done.status.success() && folder.path().join(output).exists(), "{done:?}");
    let listed = command(&["jobs", "--json"]).arg(folder.path()).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let (code, told) = run(&["run"], &folder.path().join(OsStr::from_bytes(b"\xfe")).into(), &["hi"]);
    assert!(code == Some(1) && told.contains("no such file or folder"), "{told}");
}

/// Keys and values in f16 took them a thousandth away from it.
#[test]
fn vectors_of_causal_models_are_those_of_transformers() {
    for name in ["encoders/mistral_bare", "encoders/qwen3_bare", "encoders/gemma2_scores"] {
        let model = fixture(name);
        let text = std::fs::read_to_string(model.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        for text in expected["texts"].as_array().unwrap().iter().filter(|text| text["second"].is_null()) {
            let ids: Vec<String> = text["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
            let (model, ids) = (model.to_str().unwrap(), ids.join(","));
            let asked = ["--pooling", "last", "--no-normalize", "--json"];
            let outcome = run(&[&["embed", model, "--token-ids", &ids], &asked[..]].concat());
            let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
            let vector = told["results"][0]["embedding"].as_array().unwrap();
            for (ours, theirs) in vector.iter().zip(text["last"].as_array().unwrap()) {
                let difference = (ours.as_f64().unwrap() - theirs.as_f64().unwrap()).abs();
                assert!(difference < 1e-4, "{name}: {ours} is not {theirs}");
            }
        }
    }
}
