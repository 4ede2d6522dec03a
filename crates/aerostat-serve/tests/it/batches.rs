//! Batches: results are those of a job, whatever rides beside them and however often the server ends.

use std::path::Path;

use aerostat::Options;
use aerostat_jobs::disk::System;
use aerostat_jobs::{Job, JobOptions, JobPaths, Setting, Unwatched};
use aerostat_serve::Config;
use serde_json::{Value, json};

use crate::support::{Bench, by_custom_id, chat, config, files, line, options, other_files, until};

fn with_data(folder: &Path) -> Config {
    Config { data: Some(folder.join("data")), ..config() }
}

fn create(bench: &Bench, file: &str) -> Value {
    let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": {"job": "night"}});
    let answer = bench.post("/v1/batches", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Lines of many kinds; one of them is no good.
fn lines(count: usize) -> String {
    let kinds = [
        json!({"max_tokens": 5, "temperature": 0}),
        json!({"max_tokens": 30, "temperature": 0.9, "seed": 7}),
        json!({"max_tokens": 12, "temperature": 1, "n": 3}),
        json!({"max_tokens": 9, "logprobs": true, "top_logprobs": 2, "temperature": 0}),
        json!({"max_tokens": 40, "guided_choice": ["alpha", "beta"]}),
    ];
    let one = |i: usize| line(&format!("r{i}"), &chat(kinds[i % kinds.len()].clone()));
    let bad = line("bad", &chat(json!({"novel": 1})));
    (0..count).map(one).chain([bad]).collect::<Vec<_>>().join("\n")
}

/// What a job of the same lines gives.
fn expected(folder: &Path, text: &str) -> (String, String) {
    let input = folder.join("in.jsonl");
    std::fs::write(&input, text).unwrap();
    let paths = JobPaths::beside(&input, &folder.join("out.jsonl"));
    let job = JobOptions { context: Some(512), max_new_tokens: 24, ..JobOptions::default() };
    let files = files();
    let setting = Setting::new(&files, "tiny", &job).unwrap();
    let job = Job::open(Box::new(System), paths.clone(), setting, "digest", &job, &Unwatched).unwrap();
    let mut engine = aerostat::Engine::open(&files, &options(), &job.need(), &mut aerostat::Silent).unwrap();
    job.run(&mut engine, &Unwatched).unwrap();
    (std::fs::read_to_string(&paths.output).unwrap(), std::fs::read_to_string(&paths.errors).unwrap())
}

#[test]
fn a_batch_goes_from_file_to_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = lines(12);
    let (output, errors) = expected(folder.path(), &text);
    let bench = Bench::with(with_data(folder.path()));
    let file = bench.upload(&text);
    let made = create(&bench, &file);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["object"], &made["status"]), (&json!("batch"), &json!("validating")));
    assert_eq!(made["metadata"], json!({"job": "night"}));
    let batch = bench.ended(id);
    assert_eq!((&batch["status"], &batch["errors"]), (&json!("completed"), &Value::Null), "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 13, "completed": 12, "failed": 1}));
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(batch[time].is_u64(), "{time}: {batch}");
    }
    assert_eq!(bench.results(&batch["output_file_id"]), by_custom_id(&output));
    assert_eq!(bench.results(&batch["error_file_id"]), by_custom_id(&errors));
    let listed = bench.get("/v1/files?purpose=batch_output").json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let output = bench.get(&format!("/v1/aerostat/batches/{id}/output"));
    assert_eq!(by_custom_id(&output.body), bench.results(&batch["output_file_id"]));
    // What its job kept for itself is gone, and its input can go.
    let kept = folder.path().join("data/jobs");
    until("what its job kept to go", || std::fs::read_dir(&kept).unwrap().count() == 0);
    assert_eq!(bench.delete(&format!("/v1/files/{file}")).status, 200);
}

#[test]
fn single_requests_are_not_changed_by_a_batch_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(with_data(folder.path()));
    let body = chat(json!({"max_tokens": 10, "temperature": 1, "seed": 3}));
    let alone = bench.post("/v1/chat/completions", &body).json()["choices"].clone();
    let made = create(&bench, &bench.upload(&lines(20)));
    for _ in 0..5 {
        assert_eq!(bench.post("/v1/chat/completions", &body).json()["choices"], alone);
    }
    assert_eq!(bench.ended(made["id"].as_str().unwrap())["status"], "completed");
}

#[test]
fn a_server_that_ends_takes_the_batch_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let text = lines(20);
    let (output, _) = expected(folder.path(), &text);
    let slow = || Options { rows_max: Some(4), ..options() };
    let bench = Bench::of(with_data(folder.path()), slow());
    let id = create(&bench, &bench.upload(&text))["id"].as_str().unwrap().to_owned();
    let done = |bench: &Bench| {
        let batch = bench.get(&format!("/v1/batches/{id}")).json();
        batch["request_counts"]["completed"].as_u64().unwrap()
    };
    until("some results", || done(&bench) > 2);
    bench.server.stop();
    let bench = Bench::of(with_data(folder.path()), slow());
    let batch = bench.ended(&id);
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(bench.results(&batch["output_file_id"]), by_custom_id(&output));
}

#[test]
fn a_batch_that_is_cancelled_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::of(with_data(folder.path()), Options { rows_max: Some(4), ..options() });
    let file = bench.upload(&lines(100));
    let id = create(&bench, &file)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/batches/{id}");
    until("some results", || bench.get(&path).json()["request_counts"]["completed"].as_u64().unwrap() > 1);
    let busy = bench.delete(&format!("/v1/files/{file}"));
    assert_eq!((busy.status, busy.header("x-should-retry")), (409, Some("false")));
    let cancelling = bench.post(&format!("{path}/cancel"), &json!({})).json();
    assert_eq!(cancelling["status"], "cancelling");
    let batch = bench.ended(&id);
    assert_eq!(batch["status"], "cancelled");
    let counts = &batch["request_counts"];
    let results = bench.results(&batch["output_file_id"]);
    assert_eq!(Some(results.len() as u64), counts["completed"].as_u64(), "{batch}");
    assert!(results.len() < 100);
    assert_eq!(bench.post(&format!("{path}/cancel"), &json!({})).status, 409);
    assert_eq!(bench.post("/v1/chat/completions", &chat(json!({"max_tokens": 1}))).status, 200);
}

#[test]
fn what_is_no_batch_fails_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(with_data(folder.path()));
    let good = line("a", &chat(json!({"max_tokens": 1})));
    for (text, code, number) in [
        ("not json\n", "invalid_json_line", json!(1)),
        ("", "empty_file", json!(null)),
        (&*format!("{good}\n{good}"), "duplicate_custom_id", json!(2)),
        (&*good.replace("chat/completions", "embeddings"), "mismatched_url", json!(1)),
    ] {
        let made = create(&bench, &bench.upload(text));
        let batch = bench.ended(made["id"].as_str().unwrap());
        assert_eq!(batch["status"], "failed", "{batch}");
        let error = &batch["errors"]["data"][0];
        assert_eq!((&error["code"], &error["line"]), (&json!(code), &number), "{batch}");
        assert!(batch["failed_at"].is_u64() && batch["output_file_id"].is_null());
    }
    let file = bench.upload(&good);
    for (body, status) in [
        (json!({"input_file_id": file, "endpoint": "/v1/images", "completion_window": "24h"}), 400),
        (json!({"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "soon"}), 400),
        (
            json!({"input_file_id": "file-../../x", "endpoint": "/v1/embeddings", "completion_window": "24h"}),
            404,
        ),
        (
            json!({"input_file_id": format!("file-{}", "0".repeat(32)), "endpoint": "/v1/score", "completion_window": "24h"}),
            404,
        ),
        (
            json!({"input_file_id": file, "endpoint": "/v1/score", "completion_window": "24h", "metadata": {"a": 1}}),
            400,
        ),
        (
            json!({"input_file_id": file, "endpoint": "/v1/score", "completion_window": "24h", "novel": 1}),
            400,
        ),
    ] {
        assert_eq!(bench.post("/v1/batches", &body).status, status, "{body}");
    }
}

#[test]
fn batches_are_listed_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(with_data(folder.path()));
    let ids: Vec<String> =
        (0..5).map(|_| create(&bench, &bench.upload(&lines(1)))["id"].as_str().unwrap().to_owned()).collect();
    let list = bench.get("/v1/batches?limit=3").json();
    assert_eq!((&list["first_id"], list["has_more"].as_bool()), (&json!(ids[4]), Some(true)));
    let rest = bench.get(&format!("/v1/batches?limit=3&after={}", list["last_id"].as_str().unwrap())).json();
    assert_eq!((&rest["last_id"], rest["has_more"].as_bool()), (&json!(ids[0]), Some(false)));
    ids.iter().for_each(|id| assert_eq!(bench.ended(id)["status"], "completed"));
}

/// Another model would answer otherwise.
#[test]
fn a_batch_of_another_model_waits_for_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let id = {
        let bench = Bench::of(with_data(folder.path()), Options { rows_max: Some(2), ..options() });
        let id = create(&bench, &bench.upload(&lines(20)))["id"].as_str().unwrap().to_owned();
        until("the beginning", || bench.get(&format!("/v1/batches/{id}")).json()["status"] == "in_progress");
        id
    };
    let bench = Bench::model(with_data(folder.path()), other_files(&folder.path().join("model")));
    let path = format!("/v1/batches/{id}");
    until("the reason", || bench.get(&path).json()["aerostat"]["paused"].is_string());
    assert_eq!(bench.get(&path).json()["status"], "in_progress");
    drop(bench);
    let bench = Bench::with(with_data(folder.path()));
    let batch = bench.ended(&id);
    assert_eq!((&batch["status"], batch.get("aerostat")), (&json!("completed"), None));
}

/// It stayed cancelling for ever, and so did its input stay.
#[test]
fn a_batch_of_another_model_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (file, id) = {
        let bench = Bench::of(with_data(folder.path()), Options { rows_max: Some(2), ..options() });
        let file = bench.upload(&lines(100));
        let id = create(&bench, &file)["id"].as_str().unwrap().to_owned();
        let done = || bench.get(&format!("/v1/batches/{id}")).json()["request_counts"]["completed"].as_u64();
        until("some results", || done().unwrap() > 2);
        (file, id)
    };
    let bench = Bench::model(with_data(folder.path()), other_files(&folder.path().join("model")));
    let path = format!("/v1/batches/{id}");
    until("the reason", || bench.get(&path).json()["aerostat"]["paused"].is_string());
    assert_eq!(bench.post(&format!("{path}/cancel"), &json!({})).status, 200);
    let batch = bench.ended(&id);
    assert_eq!((&batch["status"], batch.get("aerostat")), (&json!("cancelled"), None), "{batch}");
    let results = bench.results(&batch["output_file_id"]);
    assert!(results.len() > 2 && results.len() < 100, "{batch}");
    assert_eq!(batch["request_counts"]["completed"], json!(results.len()));
    assert_eq!(bench.delete(&format!("/v1/files/{file}")).status, 200);
}
