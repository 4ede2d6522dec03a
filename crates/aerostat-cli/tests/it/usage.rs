//! What cannot be typed.

use crate::support::{command, fixture, json, run, succeed};

#[test]
fn wrong_arguments_are_usage_errors_that_name_them() {
    let model = fixture("llama");
    let model = model.to_str().unwrap();
    let flags: &[(&[&str], &str)] = &[
        (&["--memory", "0"], "greater than zero"),
        (&["--memory", "4 parsecs"], "4 parsecs"),
        (&["--memory", "-1"], "-1"),
        (&["--tile-bytes", "x"], "not a size"),
        (&["--device", "abacus"], "abacus"),
        (&["--threads", "0"], "0"),
        (&["--isa", "avx1024"], "avx1024"),
        (&["--io", "telegraph"], "telegraph"),
        (&["--kv", "q4"], "q8 or q8-all"),
        (&["--kv", "f8"], "f8"),
        (&["--rows-max", "0"], "0"),
        (&["--context", "0"], "0"),
        (&["--prefill-chunk", "0"], "0"),
        (&["--max-new-tokens", "-3"], "-3"),
        (&["--temperature", "-1"], "-1"),
        (&["--temperature=nan"], "nan"),
        (&["--top-p", "1.5"], "1.5"),
        (&["--min-p", "2"], "2"),
        (&["--repetition-penalty", "0"], "0"),
        (&["--seed", "x"], "x"),
        (&["--n", "0"], "0"),
        (&["--token-ids", ""], "token id"),
        (&["--token-ids", "1,,2"], "token id"),
        (&["--token-ids", "-1"], "-1"),
        (&["--token-ids", "4294967296"], "4294967296"),
        (&["-v", "--quiet"], "--quiet"),
        (&["--frobnicate"], "--frobnicate"),
    ];
    for (flags, part) in flags {
        let outcome = run(&[&["run", model, "--token-ids", "1"], *flags].concat());
        assert_eq!(outcome.code, Some(2), "{flags:?}: {outcome:?}");
        assert!(outcome.stderr.contains(part), "{flags:?}: `{part}` is not in: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{flags:?}");
    }
    for args in [&["frobnicate", model][..], &["embed", model], &["classify", model, "x"], &["run"], &[]] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
}

/// Each of these was once repeated whole, up to 200 kB.
#[test]
fn what_was_typed_is_not_repeated_at_length() {
    let model = fixture("llama");
    let (model, long) = (model.to_str().unwrap(), "é".repeat(30_000));
    for args in [
        &["run", &long][..],
        &["run", model, "--memory", &long],
        &["run", model, "--adapter", &long, "--token-ids", "1"],
        &[&long],
        &["prompt", model, "--messages", &long],
        &["run", model, "--token-ids", "1", "--json", "--kv", &long],
    ] {
        let outcome = run(args);
        assert!(matches!(outcome.code, Some(1 | 2)), "{:?}", args[0]);
        let told = outcome.stderr.chars().count().max(outcome.stdout.chars().count());
        assert!((20..2500).contains(&told), "{told}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for command in ["run", "chat", "score", "embed", "classify", "distil", "plan", "inspect", "pull"] {
        assert!(succeed(&[command, "--help"]).contains("Usage: aerostat"), "{command}");
    }
    let version = succeed(&["--version"]);
    assert!(version.starts_with("aerostat ") && version.contains("commit: "), "{version}");
    // GPUs were left out once.
    assert!(
        version.contains(if cfg!(feature = "gpu") { "features: gpu" } else { "features: " }),
        "{version}"
    );
    assert!(version.contains("instructions: "), "{version}");
}

/// Scripts that were written when the flag was named `--read-rate` go on working.
#[test]
fn a_plan_is_for_the_disk_that_is_named() {
    let model = fixture("llama");
    let model = model.to_str().unwrap();
    for rate in [["--disk", "2.5GB/s"], ["--disk", "2500MB"], ["--read-rate", "2500000000"]] {
        let plan = json(&[&["plan", model][..], &rate].concat());
        assert_eq!(plan["read_bytes_per_second"], 2.5e9, "{rate:?}");
    }
    assert_eq!(run(&["plan", model, "--disk", "fast"]).code, Some(2));
    let job = ["batch", "-m", model, "-i", "in.jsonl", "-o", "out.jsonl", "--disk", "2GB/s"];
    assert!(run(&job).stderr.contains("--dry-run"), "a real run is on a real disk");
}

/// It was once taken without a word.
#[cfg(target_os = "linux")]
#[test]
fn a_budget_beyond_the_machine_is_noted() {
    let model = fixture("llama");
    let args = ["run", model.to_str().unwrap(), "--token-ids", "1", "--max-new-tokens", "1", "--memory"];
    let outcome = run(&[&args[..], &["100TiB"]].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("this machine has"), "{outcome:?}");
    assert!(!run(&[&args[..], &["256MiB"]].concat()).stderr.contains("this machine has"));
}

#[test]
fn help_begins_with_what_the_command_does() {
    assert!(succeed(&["--help"]).starts_with("Run language models far larger than memory"));
}

/// What guesses tokens has nothing to guess where none are generated.
#[test]
fn what_has_no_effect_on_scores_is_noted() {
    let llama = fixture("llama").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache").display().to_string();
    let noted = run(&["score", &llama, "--token-ids", "1,2,3", "--draft", &llama, "--cache", &cache]);
    assert_eq!(noted.code, Some(0), "{noted:?}");
    assert!(noted.stderr.contains("--draft has no effect"), "{noted:?}");
    assert!(noted.stderr.contains("--cache has no effect"), "{noted:?}");
    assert!(!folder.path().join("cache").exists());
    let told = json(&["run", &llama, "--token-ids", "1,2,3", "--draft", &llama]);
    assert!(told["stats"]["drafted"].is_u64() && told["stats"]["tokens_per_sweep"].is_f64(), "{told}");
}

/// A full disk costs a prompt its place in the cache, and nothing else.
#[test]
#[cfg(target_os = "linux")]
fn a_prompt_that_cannot_be_kept_is_answered() {
    let llama = fixture("llama").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache").display().to_string();
    let ids: Vec<String> = (0..100).map(|i| (i * 7 % 100 + 1).to_string()).collect();
    let ids = ids.join(",");
    let args = ["run", &llama, "--token-ids", &ids, "--max-new-tokens", "4", "--ignore-eos"];
    let want = json(&args)["results"].clone();
    let whole = command(&[&args[..], &["--cache", &cache, "--json"]].concat());
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(whole.get_program())
        .args(whole.get_args());
    for (name, value) in whole.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let outcome = limited.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    assert!(outcome.status.success() && stderr.contains("could not be used"), "{outcome:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["results"], want);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
    // With room it is kept, and read: only what was no whole page is computed again.
    let with = |cache: &str| json(&[&args[..], &["--cache", cache]].concat());
    assert_eq!(with(&cache)["results"], want);
    let again = with(&cache);
    assert!(again["results"] == want && again["stats"]["shared_rows"].as_u64() > Some(90), "{again}");
}

/// A bad variable or file once kept even `--help` from saying how to write a good one.
#[test]
fn a_bad_default_is_told_to_those_whom_it_concerns() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "memry = 1").unwrap();
    let output = |args: &[&str], variable: &str, value: &str| {
        let output = crate::support::command(args).env(variable, value).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let bad = [("AEROSTAT_TEMPERATURE", "hot"), ("AEROSTAT_CONFIG", file.to_str().unwrap())];
    for (variable, value) in bad {
        for args in [&["--help"][..], &["run", "--help"], &["help", "chat"], &["--version"]] {
            assert_eq!(output(args, variable, value), (Some(0), String::new()), "{args:?} {variable}");
        }
        let (code, stderr) = output(&["run", "m", "hi"], variable, value);
        assert!(code == Some(2) && stderr.contains(value), "{stderr}");
    }
    // This command has no such flag.
    assert!(!output(&["jobs", "nowhere"], "AEROSTAT_TEMPERATURE", "hot").1.contains("hot"));
}

/// `plan --vram` once planned for a machine without a card, with a note that said so.
#[test]
fn a_plan_is_for_the_card_that_is_named() {
    let model = fixture("llama");
    let plan =
        |flags: &[&str]| json(&[&["plan", model.to_str().unwrap(), "--disk", "1GB/s"], flags].concat());
    let (without, with) = (plan(&[]), plan(&["--vram", "8GiB"]));
    assert_eq!(without["device_pinned_bytes"].as_u64().unwrap_or(0), 0);
    assert!(with["device_pinned_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{with}");
    let small = run(&["plan", model.to_str().unwrap(), "--vram", "1MiB"]);
    assert_eq!(small.code, Some(1), "{small:?}");
    assert!(small.stderr.contains("GPU memory of 1.0 MiB is too small"), "{small:?}");
}
