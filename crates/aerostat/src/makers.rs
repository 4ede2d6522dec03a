//! How a model's makers sample: what `generation_config.json` says, and what of it cannot be followed.

use std::sync::Arc;

use serde_json::Value;

use crate::{Sampling, TokenRules};

/// How a model's makers sample, and notes on what of their settings is not followed.
pub(crate) fn sampling(config: &Value, vocab: usize) -> (Sampling, Vec<String>) {
    let mut sampling = Sampling::default();
    let (rules, mut notes) = rules(config, vocab);
    let mut number = |key: &str, is_good: fn(f64) -> bool| {
        let value = config.get(key).filter(|v| !v.is_null())?;
        let found = value.as_f64().filter(|n| is_good(*n));
        if found.is_none() {
            notes.push(malformed(key));
        }
        found
    };
    if let Some(penalty) = number("repetition_penalty", |p| p > 0.0 && p.is_finite()) {
        sampling.repetition_penalty = penalty as f32;
    }
    let share = |p: f64| (0.0..=1.0).contains(&p);
    let temperature = number("temperature", |t| t >= 0.0 && t.is_finite());
    let top_p = number("top_p", share);
    // Some files have -1 where all tokens are meant.
    let top_k = number("top_k", |k| k >= -1.0 && k.fract() == 0.0);
    let min_p = number("min_p", share);
    if config.get("do_sample").and_then(Value::as_bool) == Some(true) {
        sampling.temperature = temperature.unwrap_or(1.0) as f32;
        sampling.top_p = top_p.map_or(sampling.top_p, |p| p as f32);
        sampling.top_k = top_k.map_or(sampling.top_k, |k| k as usize);
        sampling.min_p = min_p.map_or(sampling.min_p, |p| p as f32);
    }
    if config.get("do_sample").is_some_and(|v| !v.is_null() && !v.is_boolean()) {
        notes.push(malformed("do_sample"));
    }
    if config.get("max_new_tokens").is_some_and(|v| !v.is_null() && answer_tokens(config).is_none()) {
        notes.push(malformed("max_new_tokens"));
    }
    if config.get("eos_token_id").is_some_and(|v| !v.is_null() && ids(v).is_none()) {
        notes.push(malformed("eos_token_id"));
    }
    sampling.rules = Arc::new(rules);
    notes.extend(not_followed(config));
    (sampling, notes)
}

/// Tokens of an answer at most.
pub(crate) fn answer_tokens(config: &Value) -> Option<usize> {
    let tokens = config.get("max_new_tokens")?.as_u64()?;
    usize::try_from(tokens).ok().filter(|tokens| *tokens > 0)
}

/// A note on the tokens of prompt and answer together that transformers ends at, if they are fewer than the model takes.
pub(crate) fn length_note(config: &Value, context_max: usize) -> Option<String> {
    /// What files had that meant nothing by it.
    const DEFAULT: u64 = 20;
    let length = config.get("max_length").filter(|v| !v.is_null())?;
    let ends = match length.as_u64() {
        Some(length) => length != DEFAULT && length < context_max as u64 && answer_tokens(config).is_none(),
        None => return Some(malformed("max_length")),
    };
    ends.then(|| followed_elsewhere("max_length"))
}

fn malformed(key: &str) -> String {
    format!("generation_config.json: `{key}` is not followed: it is malformed")
}

fn followed_elsewhere(key: &str) -> String {
    format!("generation_config.json: `{key}` is not followed; transformers does")
}

/// Rules about tokens. Tokens outside the vocabulary never come, so that rules about them say nothing.
fn rules(config: &Value, vocab: usize) -> (TokenRules, Vec<String>) {
    let mut notes = Vec::new();
    let mut wrong = |key: &str| notes.push(malformed(key));
    let mut read =
        |key: &str, of: fn(&Value) -> Option<Vec<u32>>| match config.get(key).filter(|v| !v.is_null()) {
            None => Vec::new(),
            Some(value) => of(value).unwrap_or_else(|| {
                wrong(key);
                Vec::new()
            }),
        };
    let count = |list: Vec<u32>| list.first().map_or(0, |n| *n as usize);
    let inside = |list: Vec<u32>| list.into_iter().filter(|t| (*t as usize) < vocab).collect::<Vec<_>>();
    let mut found = TokenRules {
        min_tokens: count(read("min_new_tokens", ids)),
        min_length: count(read("min_length", ids)),
        suppress_tokens: inside(read("suppress_tokens", ids)),
        begin_suppress_tokens: inside(read("begin_suppress_tokens", ids)),
        no_repeat_ngram_size: count(read("no_repeat_ngram_size", ids)),
        forced_bos: inside(read("forced_bos_token_id", ids)).first().copied(),
        forced_eos: inside(read("forced_eos_token_id", ids)),
        ..TokenRules::default()
    };
    if let Some(words) = config.get("bad_words_ids").filter(|v| !v.is_null()) {
        let words = words.as_array().and_then(|words| words.iter().map(ids).collect::<Option<Vec<_>>>());
        match words.filter(|words| words.iter().flatten().all(|t| (*t as usize) < vocab)) {
            Some(words) if words.iter().all(|word| !word.is_empty()) => found.bad_words_ids = words,
            _ => wrong("bad_words_ids"),
        }
    }
    (found, notes)
}

/// A number, or a list of them. Older files have -1 for tokens that are not there.
fn ids(value: &Value) -> Option<Vec<u32>> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let id = |id: &Value| id.as_i64().filter(|n| *n >= -1).map(|n| u32::try_from(n).ok());
    list.iter().map(id).collect::<Option<Vec<_>>>().map(|ids| ids.into_iter().flatten().collect())
}

/// Notes on settings that change what transformers answers, and that nothing here follows.
fn not_followed(config: &Value) -> Vec<String> {
    // With the value that changes nothing.
    const NUMBERS: [(&str, f64); 11] = [
        ("num_beams", 1.0),
        ("num_beam_groups", 1.0),
        ("diversity_penalty", 0.0),
        ("penalty_alpha", 0.0),
        ("guidance_scale", 1.0),
        ("encoder_repetition_penalty", 1.0),
        ("typical_p", 1.0),
        ("epsilon_cutoff", 0.0),
        ("eta_cutoff", 0.0),
        ("encoder_no_repeat_ngram_size", 0.0),
        ("max_time", f64::INFINITY),
    ];
    const OTHERS: [&str; 9] = [
        "sequence_bias",
        "exponential_decay_length_penalty",
        "watermarking_config",
        "constraints",
        "force_words_ids",
        "stop_strings",
        "dola_layers",
        "token_healing",
        "top_h",
    ];
    let set = |key: &&str| config.get(*key).filter(|v| !v.is_null() && **v != Value::Bool(false)).is_some();
    let numbers = NUMBERS
        .iter()
        .filter(|(key, plain)| config.get(key).and_then(Value::as_f64).is_some_and(|n| n != *plain));
    let keys = numbers.map(|(key, _)| *key).chain(OTHERS.into_iter().filter(set));
    keys.map(followed_elsewhere).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_followed_is_noted() {
        let plain = json!({"num_beams": 1, "typical_p": 1.0, "token_healing": false, "sequence_bias": null,
            "suppress_tokens": null, "max_length": 20});
        let (found, notes) = sampling(&plain, 8);
        assert_eq!((found, notes.len()), (Sampling::default(), 0));
        let (_, notes) = sampling(&json!({"num_beams": 4, "stop_strings": ["x"], "bad_words_ids": [[9]]}), 8);
        for (note, key) in notes.iter().zip(["bad_words_ids", "num_beams", "stop_strings"]) {
            assert!(note.contains(key), "{note}");
        }
        assert_eq!(notes.len(), 3);
        let (found, notes) = sampling(&json!({"suppress_tokens": [1, 99, -1], "forced_eos_token_id": 3}), 8);
        assert_eq!((&found.rules.suppress_tokens[..], &found.rules.forced_eos[..]), (&[1][..], &[3][..]));
        assert!(notes.is_empty());
    }

    /// A temperature in quotes was 1, and an end in quotes no end, without a word.
    #[test]
    fn what_is_malformed_is_noted() {
        for (key, bad, good) in [
            ("temperature", vec![json!("0.7"), json!(-1), json!([1])], json!(0.7)),
            ("top_k", vec![json!("3"), json!(2.5), json!(-2)], json!(-1)),
            ("top_p", vec![json!("0.5"), json!(2)], json!(0.5)),
            ("min_p", vec![json!("x"), json!(-0.1)], json!(0.1)),
            ("repetition_penalty", vec![json!("1.5"), json!(0), json!({})], json!(1.5)),
            ("do_sample", vec![json!("true"), json!(1)], json!(true)),
            ("max_new_tokens", vec![json!("2"), json!(0), json!(2.5)], json!(2)),
            (
                "eos_token_id",
                vec![json!("2"), json!(true), json!({}), json!([2, "x"]), json!([[2]])],
                json!([2, -1]),
            ),
            ("min_new_tokens", vec![json!("3")], json!(3)),
        ] {
            for value in bad {
                let (_, notes) = sampling(&json!({key: value}), 8);
                assert_eq!(notes, [malformed(key)], "{key}: {value}");
            }
            assert!(
                sampling(&json!({key: good}), 8).1.is_empty()
                    && sampling(&json!({key: null}), 8).1.is_empty()
            );
        }
    }

    #[test]
    fn a_length_that_is_shorter_than_the_models_is_noted() {
        let note = |config: Value| length_note(&config, 4096);
        for plain in [json!({}), json!({"max_length": 20}), json!({"max_length": 4096})] {
            assert_eq!(note(plain), None);
        }
        assert_eq!(note(json!({"max_length": 512, "max_new_tokens": 9})), None);
        assert!(note(json!({"max_length": 512})).unwrap().contains("max_length"));
        assert!(note(json!({"max_length": "512"})).unwrap().contains("malformed"));
    }
}
