//! What cannot be typed.

use crate::support::{fixture, run, succeed};

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
        (&["--kv", "q4"], "f32 or q8"),
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

#[test]
fn help_and_version_go_to_stdout() {
    for command in ["run", "chat", "score", "embed", "classify", "distil", "plan", "inspect", "pull"] {
        assert!(succeed(&[command, "--help"]).contains("Usage: aerostat"), "{command}");
    }
    assert!(succeed(&["--version"]).starts_with("aerostat "));
}
