//! Tokenizer files that mean harm: each ends in an answer or one short error, soon and in little memory.

use std::time::Duration;

use aerostat_text::{Error, ErrorKind, GgufVocab, Strings, Tokenizer};
use serde_json::{Value, json};

use crate::it::templates::peak_bytes;

/// How long a file may take to be read and to encode texts: processor time, since tests share the machine.
const TIME_MAX: Duration = Duration::from_secs(10);
const MEMORY_BYTES_MAX: u64 = 256 << 20;

fn read(file: &str) -> Result<Tokenizer, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, file).unwrap();
    Tokenizer::from_hugging_face(&path, None)
}

/// A small byte-level tokenizer with one thing replaced.
fn with(field: &str, value: Value) -> String {
    let mut file: Value = crate::json("tokenizers/prepend/tokenizer.json");
    file[field] = value;
    file.to_string()
}

/// Reads a file and encodes a short text and 20,000 letters; gives back the first error.
fn run(name: &str, file: &str) -> Option<Error> {
    let (start, before) = (thread_time(), peak_bytes());
    let letters = format!("{}!", "a".repeat(20_000));
    let result = read(file).and_then(|tokenizer| {
        for text in ["hi", letters.as_str()] {
            let ids = tokenizer.encode(text, true)?;
            let shown = tokenizer.decode(&ids, false);
            assert!(shown.len() < 64 << 20, "{name}");
        }
        Ok(())
    });
    let taken = thread_time().saturating_sub(start);
    assert!(taken < TIME_MAX, "{name}: {taken:?}");
    let grown = peak_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{name}: {grown} bytes");
    let error = result.err();
    if let Some(error) = &error {
        assert!(error.to_string().len() < 4000 && !error.to_string().contains('\n'), "{name}: {error}");
    }
    error
}

#[cfg(unix)]
fn thread_time() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap()
}

#[cfg(not(unix))]
fn thread_time() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

fn split(regex: &str) -> String {
    with(
        "pre_tokenizer",
        json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}),
    )
}

fn replace(pattern: Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

#[test]
fn patterns_that_backtrack_without_end_are_stopped() {
    for regex in [
        r"(a+)+$",
        r"(?:a|a)*b(?=c)",
        r"(a*)*(?!a)b",
        r"(?=(a+)+b)a",
        r"(.*)*\1b",
        r"(?:(?=.*b)|a)+$",
        r".*b|a",
        r"(a|aa)+(?<!a)$",
        r"(?<=a{1,9})(a+)+c",
        r"((a+)*)*(?=z)",
        r"(a{0,300}){0,300}b",
        r"(a{1,300}){300}",
        r"(a{1,100}){100}",
        r"(a|b)*a(a|b){9000}c",
    ] {
        run(regex, &split(regex));
        run(regex, &with("normalizer", replace(json!({"Regex": regex}), "b")));
    }
}

#[test]
fn patterns_that_cannot_be_compiled_are_errors() {
    for regex in [
        "(",
        r"\p{Nonsense}",
        r"(?:(?:\w{100}){100}){100}",
        r"(?=a){1000}{1000}{1000}",
        &"(".repeat(5000),
        &"a|".repeat(40_000),
    ] {
        assert!(run("pattern", &split(regex)).is_none_or(|error| error.kind() == ErrorKind::Malformed));
    }
    assert_eq!(
        run("empty", &with("normalizer", replace(json!({"String": ""}), "zz"))).unwrap().kind(),
        ErrorKind::Malformed
    );
    assert!(run("start", &with("normalizer", replace(json!({"Regex": "^"}), "b"))).is_none());
}

#[test]
fn steps_that_multiply_a_text_are_stopped() {
    let double = replace(json!({"Regex": "(?=.)|$"}), "aa");
    let sequence = |step: &Value, count: usize| json!({"type": "Sequence", "normalizers": vec![step; count]});
    let nested = (0..60).fold(double.clone(), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
    let long = "x".repeat(1 << 20);
    for (name, normalizer) in [
        ("doubled", sequence(&double, 30)),
        ("letters", sequence(&replace(json!({"String": "a"}), "aaaaaaaa"), 12)),
        ("long", replace(json!({"String": "a"}), &long)),
        ("prepended", sequence(&json!({"type": "Prepend", "prepend": long}), 40)),
        ("many", sequence(&json!({"type": "NFC"}), 10_000)),
    ] {
        assert!(run(name, &with("normalizer", normalizer)).is_some(), "{name}");
    }
    assert!(run("nested", &with("normalizer", nested)).is_some());
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let template =
        json!({"type": "TemplateProcessing", "single": vec![text; 100], "pair": [], "special_tokens": {}});
    let twice = json!({"type": "Sequence", "processors": vec![template.clone(); 50]});
    for processor in [template, twice] {
        assert_eq!(run("template", &with("post_processor", processor)).unwrap().kind(), ErrorKind::Malformed);
    }
    let missing = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "nosuch", "type_id": 0}}],
        "pair": [], "special_tokens": {}});
    let error = run("missing", &with("post_processor", missing)).unwrap().to_string();
    assert!(error.contains("nosuch"), "{error}");
    let decoders =
        json!({"type": "Sequence", "decoders": vec![replace(json!({"Regex": "(?=.)|$"}), "aa"); 30]});
    run("decoder", &with("decoder", decoders));
    run("stripped", &with("decoder", json!({"type": "Strip", "content": "a", "start": 9, "stop": 99_999})));
}

#[test]
fn tables_of_characters_that_lie_about_themselves_are_errors() {
    use std::fmt::Write;
    for map in ["", "!!!", "////////////////", "/////w==", "BAAAAAAAAAA=", "CAAAAP////8AAAAAYWJj"] {
        run(map, &with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": map})));
    }
    let mut letters = String::new();
    let _ = write!(letters, "BAAAAAABAAA{}", "YWFh".repeat(100_000));
    run("long", &with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": letters})));
}

#[test]
fn more_added_tokens_than_any_model_has_are_refused() {
    let mut file = String::from(r#"{"added_tokens": ["#);
    for id in 0..2_000_000 {
        file.push_str(&format!(r#"{{"id":{id},"content":"t{id}"}},"#));
    }
    file.push_str(r#"{"id":0,"content":"x"}], "model": {"type": "BPE", "vocab": {}, "merges": []}}"#);
    let error = run("added", &file).unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    let lengths: Vec<Value> = (1..3000).map(|n| json!({"id": n, "content": "a".repeat(n) + "b"})).collect();
    run("lengths", &with("added_tokens", lengths.into()));
    let types = Some(vec![4; 200_000]);
    let tokens: Strings = (0..200_000).map(|id| format!("t{id}")).collect();
    let vocab = GgufVocab {
        model: "gpt2".into(),
        tokens,
        types,
        merges: Some(Strings::new()),
        ..GgufVocab::default()
    };
    assert_eq!(Tokenizer::from_gguf(vocab).err().unwrap().kind(), ErrorKind::Malformed);
}

#[test]
fn models_that_are_large_for_nothing_are_refused_or_bounded() {
    let word = "a".repeat(100_000);
    let unigram =
        |vocab: Value, unknown: Value| json!({"type": "Unigram", "unk_id": unknown, "vocab": vocab});
    let lengths: Vec<Value> = (1..3000).map(|n| json!(["a".repeat(n), -1.0])).collect();
    for (name, model) in [
        ("no unknown", unigram(json!([["b", -1.0]]), Value::Null)),
        ("unknown", unigram(json!([["b", -1.0]]), json!(7))),
        ("empty", unigram(json!([]), json!(0))),
        ("long", unigram(json!([["<unk>", 0.0], [word, -1.0]]), json!(0))),
        ("lengths", unigram(lengths.into(), json!(0))),
        ("far", json!({"type": "BPE", "vocab": {"a": 4_000_000_000_u32}, "merges": []})),
        ("gap", json!({"type": "BPE", "vocab": {"a": 2_000_000}, "merges": []})),
        (
            "words",
            json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": word, "max_input_chars_per_word": u64::MAX,
            "vocab": {"a": 0}}),
        ),
        ("nothing", json!({"type": "WordLevel", "unk_token": "none", "vocab": {}})),
        ("fields", json!({"type": "BPE", "vocab": {}, "merges": [], "extra": vec![0; 300_000]})),
    ] {
        let error = run(name, &with("model", model));
        // It blamed a pattern, which this file does not have.
        let told = |error: Error| error.to_string().contains("its tokens, which have very many lengths");
        assert!(name != "lengths" || error.is_some_and(told));
    }
    let deep = "[".repeat(100_000);
    run("deep", &format!(r#"{{"model": {deep}"#));
}

#[test]
fn what_a_library_panics_on_is_told_in_one_line() {
    for (field, value) in [
        ("normalizer", json!({"type": "Replace", "pattern": {"String": ""}, "content": "zz"})),
        ("normalizer", json!({"pattern": {"String": ""}, "content": "zz"})),
        ("normalizer", json!("NFC")),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("pre_tokenizer", json!({"type": "CharDelimiterSplit", "delimiter": ""})),
        ("decoder", json!({"type": "BPEDecoder"})),
        ("decoder", json!(17)),
        ("post_processor", json!({"type": "RobertaProcessing", "sep": [], "cls": 1})),
        ("added_tokens", json!([{"content": 5}])),
        (
            "added_tokens",
            json!([{"id": 3, "content": "<s>", "lstrip": true, "rstrip": true, "single_word": true}]),
        ),
    ] {
        run(field, &with(field, value));
    }
}
