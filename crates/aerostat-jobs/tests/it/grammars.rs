//! Answers that must follow a grammar do, whatever the model would rather say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::schema::valid;
use crate::support::{Bench, line};

/// A schema of the public suite with instances that it accepts and rejects.
struct Case {
    name: String,
    schema: Value,
    accepted: Vec<Value>,
    rejected: Vec<Value>,
}

fn cases() -> Vec<Case> {
    let list = |v: &Value| v.as_array().unwrap().clone();
    let case = |text: &str| {
        let v: Value = serde_json::from_str(text).unwrap();
        Case {
            name: v["name"].as_str().unwrap().to_owned(),
            schema: v["schema"].clone(),
            accepted: list(&v["valid"]),
            rejected: list(&v["invalid"]),
        }
    };
    include_str!("../data/schemas.jsonl").lines().map(case).collect()
}

#[test]
fn the_judge_agrees_with_the_suite() {
    for case in cases() {
        for (values, want) in [(&case.accepted, true), (&case.rejected, false)] {
            for value in values {
                assert_eq!(valid(value, &case.schema, &case.schema), want, "{}: {value}", case.name);
            }
        }
    }
}

/// A bias that lets a model of noise come to an end: what closes texts, lists and objects.
fn closing() -> Value {
    let setting = crate::support::model();
    let tokenizer = setting.tokenizer().unwrap().unwrap();
    let ids = ["\"", "}", "]"].map(|t| tokenizer.encode(t, false).unwrap());
    let map: serde_json::Map<String, Value> =
        ids.iter().filter(|ids| ids.len() == 1).map(|ids| (ids[0].to_string(), json!(6))).collect();
    assert_eq!(map.len(), 3);
    map.into()
}

#[test]
fn a_hundred_schemas_of_the_public_suite_are_followed() {
    let cases = cases();
    let bias = closing();
    let request = |(i, case): (usize, &Case)| {
        let format = json!({"type": "json_schema", "json_schema": {"name": "it", "schema": case.schema}});
        let body = json!({
            "messages": [{"role": "user", "content": "?"}], "response_format": format,
            "temperature": 0.8, "seed": 11, "max_tokens": 300, "logit_bias": bias,
        });
        line(&i.to_string(), "/v1/chat/completions", body)
    };
    let bench = Bench::new(&cases.iter().enumerate().map(request).collect::<Vec<_>>());
    bench.run().unwrap();
    let results = bench.results();
    let mut followed = 0;
    for (id, result) in &results {
        let case = &cases[id.parse::<usize>().unwrap()];
        let choice = &result["response"]["body"]["choices"][0];
        if choice["finish_reason"] == "length" {
            continue;
        }
        let text = choice["message"]["content"].as_str().unwrap();
        let value: Value =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {text:?}: {e}", case.name));
        assert!(valid(&value, &case.schema, &case.schema), "{}: {text}", case.name);
        followed += 1;
    }
    // The rest: refused with a reason, or longer than they may be.
    let refused = bench.failures();
    assert!(
        refused.iter().all(|f| f["error"]["message"].as_str().unwrap().contains("grammar")),
        "{refused:?}"
    );
    assert!(followed >= 100, "{followed} followed, {} refused, of {}", refused.len(), cases.len());
}

#[test]
fn every_kind_of_grammar_is_followed() {
    let ask = |id: &str, extra: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "?"}], "temperature": 1, "seed": 3, "max_tokens": 80});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        line(id, "/v1/chat/completions", body)
    };
    let lines = [
        ask("regex", json!({"guided_regex": "[ab]{3}-[0-9]{2}"})),
        ask("choice", json!({"structured_outputs": {"choice": ["positive", "negative, or \"both\""]}})),
        ask(
            "lark",
            json!({"guided_grammar": "start: \"(\" NUMBER (\"+\" NUMBER)~2 \")\"\nNUMBER: /[0-9]{1,3}/"}),
        ),
        ask(
            "guided",
            json!({"guided_json": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 5}},
            "required": ["n"], "additionalProperties": false}}),
        ),
        ask("text", json!({"response_format": {"type": "text"}})),
        ask("broken", json!({"guided_regex": "[ab"})),
        ask("two", json!({"guided_regex": "a", "guided_choice": ["b"]})),
    ];
    let bench = Bench::new(&lines);
    bench.run().unwrap();
    let answers: BTreeMap<String, String> = bench
        .results()
        .into_iter()
        .map(|(id, r)| {
            (id, r["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap().to_owned())
        })
        .collect();
    let regex = &answers["regex"];
    assert!(
        regex.len() == 6 && regex[..3].chars().all(|c| "ab".contains(c)) && &regex[3..4] == "-",
        "{regex:?}"
    );
    assert!(["positive", "negative, or \"both\""].contains(&&*answers["choice"]), "{answers:?}");
    assert!(answers["lark"].starts_with('(') && answers["lark"].matches('+').count() == 2, "{answers:?}");
    let n: Value = serde_json::from_str(&answers["guided"]).unwrap();
    assert!((3..=5).contains(&n["n"].as_i64().unwrap()));
    let failed: Vec<String> =
        bench.failures().iter().map(|f| f["custom_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(failed, ["broken", "two"]);
}
