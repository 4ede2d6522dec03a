//! `/v1/responses`: whole, in events, gone on with, in the background, and after the server ended.

use std::io::Write;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aerostat::Options;
use aerostat_serve::Config;
use serde_json::{Value, json};

use crate::support::{Answer, Bench, config, form, options, other_files, request, until};

fn with_data(folder: &Path) -> Config {
    Config { data: Some(folder.join("data")), ..config() }
}

fn ask(more: Value) -> Value {
    let mut body =
        json!({"model": "tiny", "input": "question 1", "seed": 3, "temperature": 1, "max_output_tokens": 12});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn text(response: &Value) -> String {
    let items = response["output"].as_array().unwrap();
    let parts =
        items.iter().filter(|item| item["type"] == "message").flat_map(|i| i["content"].as_array().unwrap());
    parts.map(|part| part["text"].as_str().unwrap()).collect()
}

#[test]
fn a_response_is_the_chat_of_the_same_words() {
    let bench = Bench::new();
    let answer = bench.post("/v1/responses", &ask(json!({})));
    assert_eq!(answer.status, 200, "{answer:?}");
    let response = answer.json();
    let chat = json!({"messages": [{"role": "user", "content": "question 1"}], "seed": 3, "temperature": 1, "max_tokens": 12});
    let chat = bench.post("/v1/chat/completions", &chat).json();
    assert_eq!(text(&response), chat["choices"][0]["message"]["content"]);
    let ended = if chat["choices"][0]["finish_reason"] == "length" { "incomplete" } else { "completed" };
    assert_eq!(
        (&response["object"], &response["status"], &response["store"]),
        (&json!("response"), &json!(ended), &json!(false))
    );
    assert_eq!(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    assert_eq!(response["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
    for (body, param) in [
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"input": 3}), "input"),
        (json!({"temperature": 9}), "temperature"),
    ] {
        let refused = bench.post("/v1/responses", &ask(body));
        assert_eq!(refused.json()["error"]["param"], param, "{refused:?}");
    }
    assert_eq!(bench.post("/v1/responses", &ask(json!({"background": true}))).status, 404);
}

#[test]
fn events_make_the_response_piece_by_piece() {
    let bench = Bench::talking(config());
    let parameters = json!({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": false});
    let tools = json!([{"type": "function", "name": "f", "parameters": parameters}]);
    for more in [
        json!({}),
        json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false, "max_output_tokens": 99}),
    ] {
        let mut body = ask(more);
        body["stream"] = true.into();
        let answer = bench.post("/v1/responses", &body);
        let events = answer.events();
        let numbers: Vec<u64> = events.iter().map(|e| e["sequence_number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds[..3], ["response.created", "response.in_progress", "response.output_item.added"]);
        // Each event is named twice: in its line and in itself.
        let named: Vec<&str> = answer.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        assert_eq!(named, kinds);
        let last = &events.last().unwrap()["response"];
        let item = &last["output"][0];
        let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
        match item["type"].as_str().unwrap() {
            "function_call" => {
                assert_eq!((&item["name"], item["arguments"].as_str()), (&json!("f"), Some(deltas.as_str())));
                assert!(kinds.contains(&"response.function_call_arguments.done"));
                assert_eq!(last["status"], "completed");
            }
            _ => assert_eq!(text(last), deltas),
        }
        let done = events.iter().find(|event| event["type"] == "response.output_item.done").unwrap();
        assert_eq!(&done["item"], item);
    }
}

#[test]
fn a_stored_response_can_be_read_gone_on_with_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(with_data(folder.path()));
    let first = bench.post("/v1/responses", &ask(json!({"instructions": "be brief"}))).json();
    let id = first["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}");
    assert_eq!(bench.get(&path).json(), first);
    let items = bench.get(&format!("{path}/input_items")).json();
    assert_eq!(items["data"][0]["content"], json!([{"type": "input_text", "text": "question 1"}]));
    let turn = |role: &str| json!({"role": role, "content": role});
    let turns = json!({"input": [turn("user"), turn("assistant"), turn("user")], "max_output_tokens": 1});
    let long = bench.post("/v1/responses", &ask(turns)).json();
    let listed = |query: &str| {
        bench.get(&format!("/v1/responses/{}/input_items{query}", long["id"].as_str().unwrap()))
    };
    let first_two = listed("?order=asc&limit=2").json();
    assert_eq!((first_two["data"].as_array().unwrap().len(), &first_two["has_more"]), (2, &json!(true)));
    let rest = listed(&format!("?order=asc&after={}", first_two["last_id"].as_str().unwrap())).json();
    assert_eq!((&rest["data"][0], &rest["has_more"]), (&listed("").json()["data"][0], &json!(false)));
    for query in ["?novel=1", "?limit=0", "?after=none", "?purpose=batch"] {
        assert_eq!(listed(query).status, 400, "{query}");
    }
    let second =
        bench.post("/v1/responses", &ask(json!({"input": "and?", "previous_response_id": id}))).json();
    let chat = json!({"seed": 3, "temperature": 1, "max_tokens": 12, "messages": [{"role": "user", "content": "question 1"},
        {"role": "assistant", "content": text(&first)}, {"role": "user", "content": "and?"}]});
    let chat = bench.post("/v1/chat/completions", &chat).json();
    assert_eq!(text(&second), chat["choices"][0]["message"]["content"], "instructions are not carried over");
    assert_eq!(bench.post(&format!("{path}/cancel"), &json!({})).status, 400);
    assert_eq!(bench.delete(&path).json()["deleted"], true);
    assert_eq!((bench.get(&path).status, bench.delete(&path).status), (404, 404));
    let unkept = bench.post("/v1/responses", &ask(json!({"store": false}))).json();
    assert_eq!(bench.get(&format!("/v1/responses/{}", unkept["id"].as_str().unwrap())).status, 404);
}

#[test]
fn what_runs_in_the_background_can_be_followed_and_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(with_data(folder.path()));
    let whole = bench.post("/v1/responses", &ask(json!({}))).json();
    let made = bench.post("/v1/responses", &ask(json!({"background": true}))).json();
    assert_eq!(made["status"], "queued");
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    let ended = |path: &str| {
        let mut found = Value::Null;
        until("the end of a response", || {
            found = bench.get(path).json();
            !matches!(found["status"].as_str(), Some("queued" | "in_progress"))
        });
        found
    };
    let found = ended(&path);
    assert_eq!((text(&found), &found["status"]), (text(&whole), &whole["status"]));
    let events = bench.get(&format!("{path}?stream=true")).events();
    assert_eq!(events[0]["type"], "response.created");
    let rest = bench.get(&format!("{path}?stream=true&starting_after=2")).events();
    assert_eq!(rest[..], events[3..]);
    let long = json!({"background": true, "max_output_tokens": 400, "ignore_eos": true});
    let made = bench.post("/v1/responses", &ask(long)).json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    let cancelled = bench.post(&format!("{path}/cancel"), &json!({})).json();
    assert_eq!((&cancelled["status"], &ended(&path)["status"]), (&json!("cancelled"), &json!("cancelled")));
}

#[test]
fn a_server_that_ends_goes_on_with_what_ran_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let slow = || Options { rows_max: Some(1), ..options() };
    let bench = Bench::of(with_data(folder.path()), slow());
    let long = json!({"max_output_tokens": 300, "ignore_eos": true, "logit_bias": {"1": -100}});
    let whole = bench.post("/v1/responses", &ask(long.clone())).json();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut body = ask(long.clone());
        body["background"] = true.into();
        ids.push(bench.post("/v1/responses", &body).json()["id"].as_str().unwrap().to_owned());
    }
    bench.server.stop();
    let bench = Bench::of(with_data(folder.path()), slow());
    for id in ids {
        let mut found = Value::Null;
        until("the end of a response", || {
            found = bench.get(&format!("/v1/responses/{id}")).json();
            !matches!(found["status"].as_str(), Some("queued" | "in_progress"))
        });
        assert_eq!(
            (text(&found), &found["usage"], &found["status"]),
            (text(&whole), &whole["usage"], &whole["status"])
        );
    }
}

/// It was answered as stored, and was not there.
#[test]
fn what_cannot_be_stored_is_refused_or_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(Config { data_bytes_max: 4000, ..with_data(folder.path()) });
    bench.upload(&"x".repeat(3500));
    let refused =
        [json!({"store": true}), json!({"store": true, "stream": true}), json!({"background": true})];
    for more in refused {
        let answer = bench.post("/v1/responses", &ask(more.clone()));
        assert_eq!((answer.status, answer.code().as_str()), (413, "storage_full"), "{more}");
    }
    let made = bench.post("/v1/responses", &ask(json!({}))).json();
    assert_eq!(made["store"], false);
    assert_eq!(bench.get(&format!("/v1/responses/{}", made["id"].as_str().unwrap())).status, 404);
    for event in bench.post("/v1/responses", &ask(json!({"stream": true}))).events() {
        assert!(event["response"].is_null() || event["response"]["store"] == false, "{event}");
    }
    let keeps_none = Bench::new().post("/v1/responses", &ask(json!({"store": true})));
    assert_eq!((keeps_none.status, keeps_none.code().as_str()), (404, "no_data"));
}

/// A server that is slow enough for what comes between the first token and the last.
fn slow(folder: &Path) -> Bench {
    Bench::with(Config { sweep_delay: Duration::from_millis(20), ..with_data(folder) })
}

fn long(more: Value) -> Value {
    let mut body = ask(json!({"max_output_tokens": 400, "ignore_eos": true}));
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Sends a request whose answer is read meanwhile, and gives the response's id.
fn begun(bench: &Bench, body: &Value) -> (String, JoinHandle<Answer>) {
    let mut stream = bench.connect();
    stream.write_all(request("POST", "/v1/responses", "", &body.to_string()).as_bytes()).unwrap();
    let reader = thread::spawn(move || Answer::read(&mut stream));
    let mut id = None;
    until("a token", || {
        let list = bench.get("/v1/aerostat/requests").json();
        let first = &list["data"][0];
        id = first["id"].as_str().filter(|_| first["tokens"].as_u64() > Some(0)).map(str::to_owned);
        id.is_some()
    });
    (id.unwrap(), reader)
}

#[test]
fn a_disk_that_is_filled_meanwhile_shows_in_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let delay = Duration::from_millis(20);
    let bench = Bench::with(Config { data_bytes_max: 4000, sweep_delay: delay, ..with_data(folder.path()) });
    for stream in [false, true] {
        let (_, reader) = begun(&bench, &long(json!({"stream": stream, "max_output_tokens": 60})));
        let full =
            bench.send(&form(&[("purpose", None, "batch"), ("file", Some("a"), &"x".repeat(3000))])).json();
        let answer = reader.join().unwrap();
        let told = match stream {
            true => answer.events().pop().unwrap()["response"].clone(),
            false => answer.json(),
        };
        assert_eq!((&told["status"], &told["store"]), (&json!("incomplete"), &json!(false)));
        bench.delete(&format!("/v1/files/{}", full["id"].as_str().unwrap()));
    }
}

/// They ended without a word, and clients took that for a broken connection.
#[test]
fn streams_of_what_is_cancelled_deleted_or_stopped_have_a_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let bench = slow(folder.path());
    let background = long(json!({"background": true, "stream": true}));
    let last = |reader: JoinHandle<Answer>| reader.join().unwrap().events().pop().unwrap();
    let (id, reader) = begun(&bench, &background);
    bench.post(&format!("/v1/responses/{id}/cancel"), &json!({}));
    let event = last(reader);
    assert_eq!(
        (&event["type"], &event["response"]["status"]),
        (&json!("response.cancelled"), &json!("cancelled"))
    );
    let (id, reader) = begun(&bench, &background);
    assert_eq!(bench.delete(&format!("/v1/responses/{id}")).status, 200);
    assert_eq!(last(reader)["type"], "response.cancelled");
    let (id, reader) = begun(&bench, &long(json!({"stream": true})));
    bench.delete(&format!("/v1/aerostat/requests/{id}"));
    assert_eq!(last(reader)["type"], "response.cancelled");
    let (id, first) = begun(&bench, &background);
    let mut second = bench.connect();
    let path = format!("/v1/responses/{id}?stream=true");
    second
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let second = thread::spawn(move || Answer::read(&mut second));
    thread::sleep(Duration::from_millis(200));
    bench.server.stop();
    for reader in [first, second] {
        let events = reader.join().unwrap().events();
        let (event, number) = (events.last().unwrap(), events.len() - 1);
        assert_eq!((&event["type"], &event["code"]), (&json!("error"), &json!("stopped")), "{event}");
        assert_eq!(event["sequence_number"], json!(number));
    }
    // It was queued for good with no reason where another model is served, and its stream ended without one.
    let bench = Bench::model(with_data(folder.path()), other_files(&folder.path().join("model")));
    let path = format!("/v1/responses/{id}");
    until("the reason", || bench.get(&path).json()["aerostat"]["paused"].is_string());
    let events = bench.get(&format!("{path}?stream=true")).events();
    assert_eq!((&events[1]["type"], &events[1]["code"]), (&json!("error"), &json!("paused")), "{events:?}");
    assert_eq!(bench.post(&format!("{path}/cancel"), &json!({})).json()["status"], "cancelled");
    assert_eq!(bench.get(&path).json().get("aerostat"), None);
}
