//! Models whose head scores texts, and those that give vectors only: what they have is served, the rest refused.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Bench, config};

fn expected(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name).join("expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn near(found: &Value, want: &Value) {
    let (found, want) = (found.as_f64().unwrap(), want.as_f64().unwrap());
    assert!((found - want).abs() < 1e-4, "{found} {want}");
}

/// The scores of sentence-transformers, from either door, and in a batch.
#[test]
fn a_head_scores_pairs_at_every_door() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["sentences/ranker", "sentences/ranker_roberta"] {
        let data = Some(folder.path().join(name));
        let bench = Bench::fixture(name, aerostat_serve::Config { data, ..config() });
        let expected = expected(name);
        let mut lines = String::new();
        for (index, pair) in expected["pairs"].as_array().unwrap().iter().enumerate() {
            let body = json!({"text_1": pair["query"], "text_2": pair["document"]});
            let answer = bench.post("/v1/score", &body);
            assert_eq!(answer.status, 200, "{answer:?}");
            near(&answer.json()["data"][0]["score"], &pair["score"]);
            let line =
                json!({"custom_id": index.to_string(), "method": "POST", "url": "/v1/score", "body": body});
            lines += &format!("{line}\n");
            let ranked = json!({"query": pair["query"], "documents": [pair["document"], "the mat"]});
            let answer = bench.post("/v1/rerank", &ranked).json();
            let results = answer["results"].as_array().unwrap();
            let of =
                |index: u64| results.iter().find(|r| r["index"] == index).unwrap()["relevance_score"].clone();
            near(&of(0), &pair["score"]);
            assert!(results[0]["relevance_score"].as_f64() >= results[1]["relevance_score"].as_f64());
        }
        let make = json!({"input_file_id": bench.upload(&lines), "endpoint": "/v1/score", "completion_window": "24h"});
        let id = bench.post("/v1/batches", &make).json()["id"].as_str().unwrap().to_owned();
        let results = bench.results(&bench.ended(&id)["output_file_id"]);
        for (index, pair) in expected["pairs"].as_array().unwrap().iter().enumerate() {
            near(&results[&index.to_string()]["response"]["body"]["data"][0]["score"], &pair["score"]);
        }
        let ids = bench.post("/v1/score", &json!({"text_1": [5], "text_2": [6]}));
        assert_eq!((ids.status, &ids.json()["error"]["param"]), (400, &json!("text_1")));
    }
}

/// Once a model without an LM head could not be opened by the server at all.
#[test]
fn a_model_that_gives_vectors_only_is_served_as_such() {
    let bench = Bench::fixture("sentences/cls", config());
    let vectors = bench.post("/v1/embeddings", &json!({"input": ["the cat", "the dog"]}));
    assert_eq!(vectors.status, 200, "{vectors:?}");
    assert_eq!(vectors.json()["data"].as_array().map(Vec::len), Some(2));
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "the cat", "max_tokens": 2})),
        ("/v1/score", json!({"text_1": "the", "text_2": " cat"})),
        ("/v1/rerank", json!({"query": "the", "documents": ["cat"]})),
    ] {
        let answer = bench.post(path, &body);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    assert_eq!(bench.get("/health").status, 200);
}
