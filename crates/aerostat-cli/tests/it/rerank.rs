//! `aerostat rerank`: documents of the command line and of tables, sorted by what models say.

use std::fs;

use serde_json::{Value, json};

use crate::support::{fixture, run};

fn model(name: &str) -> String {
    fixture(&format!("sentences/{name}")).to_str().unwrap().to_owned()
}

/// What sentence-transformers or transformers gives the documents of the first query.
fn expected(name: &str, instruction: Option<&str>) -> Vec<(String, String, f64)> {
    let text = fs::read_to_string(fixture(&format!("sentences/{name}/expected.json"))).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let pairs =
        all["pairs"].as_array().unwrap().iter().filter(|pair| pair["instruction"].as_str() == instruction);
    let text = |pair: &Value, key: &str| pair[key].as_str().unwrap().to_owned();
    pairs.map(|pair| (text(pair, "query"), text(pair, "document"), pair["score"].as_f64().unwrap())).collect()
}

#[test]
fn scores_are_those_of_the_libraries() {
    for (name, instruction) in
        [("ranker", None), ("ranker_roberta", None), ("asked", None), ("asked", Some("Find what rhymes"))]
    {
        let model = model(name);
        for (query, document, score) in expected(name, instruction) {
            let mut args =
                vec!["rerank", &model, "--query", &query, "--prompt", &document, "--kv", "f32", "--json"];
            args.extend(instruction.into_iter().flat_map(|instruction| ["--instruction", instruction]));
            let ranked = run(&args);
            assert_eq!(ranked.code, Some(0), "{ranked:?}");
            let ranked: Value = serde_json::from_str(&ranked.stdout).unwrap();
            let found = ranked["results"][0]["score"].as_f64().unwrap();
            assert!((found - score).abs() < 1e-4, "{name}: {query:?}: {found} {score}");
            assert_eq!(ranked["results"][0]["document"], document.as_str());
        }
    }
}

#[test]
fn documents_come_best_first_from_the_line_and_from_tables() {
    let model = model("ranker");
    let query = ["--query", "where is the cat?"];
    let documents = ["the sky", "The cat sat on the mat", "money, money"];
    let mut args = vec!["rerank", &model];
    args.extend(query);
    let listed = run(&[&args[..], &documents].concat());
    args.extend(documents.iter().flat_map(|document| ["--prompt", *document]));
    let plain = run(&args);
    assert_eq!(plain.code, Some(0), "{plain:?}");
    assert_eq!((listed.code, &listed.stdout), (Some(0), &plain.stdout), "{listed:?}");
    let scores: Vec<f64> =
        plain.stdout.lines().map(|line| line.split_once('\t').unwrap().0.parse().unwrap()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{plain:?}");
    let best = run(&[&args[..], &["--top", "1", "--json"]].concat());
    let best: Value = serde_json::from_str(&best.stdout).unwrap();
    assert_eq!(best["results"].as_array().unwrap().len(), 1);
    let index = best["results"][0]["index"].as_u64().unwrap() as usize;
    assert!(plain.stdout.lines().next().unwrap().ends_with(documents[index]));

    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
    fs::write(&input, "name,text\na,the sky\nb,The cat sat on the mat\nc,\"money, money\"\n").unwrap();
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let table = run(&[
        "rerank", &model, query[0], query[1], "-i", input, "-o", output, "--key", "name", "--carry", "text",
    ]);
    assert_eq!(table.code, Some(0), "{table:?}");
    let written = fs::read_to_string(output).unwrap();
    let mut lines = written.lines();
    assert_eq!(lines.next(), Some("name,text,score"));
    assert_eq!(
        lines.next().and_then(|line| line.split(',').next()),
        Some(["a", "b", "c"][index]),
        "{written}"
    );
    assert_eq!(lines.count(), 2);
    // A row without a document fails alone, and what is there is written over only where that is wanted.
    let again = ["rerank", &model, query[0], query[1], "-i", input, "-o", output, "--key", "name"];
    let refused = run(&again);
    assert!(refused.code == Some(2) && refused.stderr.contains("--restart"), "{refused:?}");
    assert_eq!(fs::read_to_string(output).unwrap(), written);
    let input = folder.path().join("in.jsonl");
    fs::write(&input, "{\"text\": \"the sky\"}\n{\"id\": 2}\n{\"text\": \"money\"}\n").unwrap();
    let input = input.to_str().unwrap();
    let table = run(&["rerank", &model, query[0], query[1], "-i", input, "-o", output, "--restart"]);
    assert_eq!(table.code, Some(3), "{table:?}");
    assert!(
        table.stderr.contains("in.jsonl:2: ") && table.stderr.contains("1 of 3 rows failed"),
        "{table:?}"
    );
    assert_eq!(fs::read_to_string(output).unwrap().lines().count(), 3);
}

#[test]
fn what_does_not_rank_is_refused() {
    for (name, args, told) in [
        ("ranker", &["--instruction", "rhyme"][..], "no instruction"),
        ("cls", &[], "neither a head"),
        ("ranker", &["--dry-run", "-i", "x.csv"], "sorts"),
    ] {
        let model = model(name);
        let mut args = [&["rerank", &model, "--query", "q"][..], args].concat();
        if !args.contains(&"-i") {
            args.extend(["--prompt", "d"]);
        }
        let refused = run(&args);
        assert!(refused.code != Some(0) && refused.stderr.contains(told), "{refused:?}");
        let told = run(&[&args[..], &["--json"]].concat());
        let error: Value = serde_json::from_str(&told.stdout).unwrap_or(json!(null));
        assert!(error["error"].is_object() || error["error"].is_string(), "{told:?}");
    }
}
