//! Answers that come whole: their bytes are those of a job with the same requests.

use std::io::Write;
use std::time::Duration;

use aerostat::{Engine, Need, Options, Silent, Want};
use aerostat_openai::{Endpoint, Part, Rules, Setting, Stamp};
use aerostat_serve::Config;
use serde_json::{Value, json};

use crate::support::{Answer, Bench, chat, config, files, options, request, until};

/// What the library gives for a body, without what differs from time to time.
fn expected(endpoint: Endpoint, body: &Value) -> Value {
    let files = files();
    let rules = Rules { context: Some(512), max_new_tokens: 24, seed: 0, lenient: false };
    let setting = Setting::new(&files, "tiny", rules).unwrap();
    let request = setting.read(endpoint, body.as_object().unwrap().clone(), 0).unwrap();
    let mut need = Need::none();
    (0..8).for_each(|_| need.add_tokens(400, 112, Want::Generate));
    let mut engine = Engine::open(&files, &options(), &need, &mut Silent).unwrap();
    let mut grammars = aerostat_openai::LazyGrammars::default();
    let mut parts = Vec::new();
    for index in 0..request.task.parts() {
        let mut part = request.task.part(index).unwrap();
        if let Some(shape) = request.task.shape() {
            part.constraint = Some(Box::new(grammars.constraint(&setting, shape).unwrap()));
        }
        let mut one = One { request: Some(part), outcome: None };
        engine.run(&mut one, setting.tokenizer().map(|t| &**t), &mut Silent).unwrap();
        parts.push(Part::of(one.outcome.unwrap()).unwrap());
    }
    let stamp = Stamp { id: "0".to_owned(), created: 0 };
    plain(setting.respond(&request, &parts, &stamp).unwrap())
}

struct One {
    request: Option<aerostat::Request>,
    outcome: Option<aerostat::Outcome>,
}

impl aerostat::Work for One {
    fn next(&mut self) -> Result<Option<aerostat::Request>, aerostat::Error> {
        Ok(self.request.take())
    }

    fn finished(&mut self, _id: u64, outcome: aerostat::Outcome) -> Result<(), aerostat::Error> {
        self.outcome = Some(outcome);
        Ok(())
    }
}

/// A body without its name, its time and its maker.
fn plain(mut body: Value) -> Value {
    for name in ["id", "created", "system_fingerprint"] {
        body.as_object_mut().unwrap().remove(name);
    }
    body
}

/// Requests of many kinds, and where they go.
fn requests() -> Vec<(Endpoint, Value)> {
    let schema = json!({"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties":
        {"a": {"type": "integer", "maximum": 9}}, "required": ["a"], "additionalProperties": false}}});
    vec![
        (Endpoint::Chat, chat(json!({"max_tokens": 5, "temperature": 0, "seed": 1}))),
        (Endpoint::Chat, chat(json!({"max_tokens": 12, "temperature": 1, "seed": 7, "n": 3}))),
        (Endpoint::Chat, chat(json!({"max_tokens": 6, "seed": 1, "logprobs": true, "top_logprobs": 2}))),
        (
            Endpoint::Chat,
            chat(json!({"max_tokens": 40, "temperature": 1.2, "seed": 3, "response_format": schema})),
        ),
        (Endpoint::Chat, chat(json!({"max_tokens": 60, "temperature": 0.7, "seed": 2, "stop": ["e", "zz"]}))),
        (
            Endpoint::Completions,
            json!({"model": "tiny", "prompt": ["a", "the"], "n": 2, "seed": 5, "temperature": 1}),
        ),
        (Endpoint::Completions, json!({"model": "tiny", "prompt": [5, 6, 7], "logprobs": 1, "seed": 5})),
        (
            Endpoint::Completions,
            json!({"model": "tiny", "prompt": "the", "echo": true, "logprobs": 2, "max_tokens": 1, "seed": 5}),
        ),
        (
            Endpoint::Completions,
            json!({"model": "tiny", "prompt": "the", "echo": true, "max_tokens": 0, "seed": 5}),
        ),
        (Endpoint::Embeddings, json!({"model": "tiny", "input": ["one", "two"]})),
        (Endpoint::Embeddings, json!({"model": "tiny", "input": "one", "encoding_format": "base64"})),
        (Endpoint::Score, json!({"model": "tiny", "text_1": "the", "text_2": [" cat", " dog"]})),
    ]
}

#[test]
fn answers_are_the_librarys_alone_and_in_a_crowd() {
    let bench = Bench::new();
    let requests = requests();
    let wanted: Vec<Value> = requests.iter().map(|(endpoint, body)| expected(*endpoint, body)).collect();
    for ((endpoint, body), want) in requests.iter().zip(&wanted) {
        let answer = bench.post(endpoint.path(), body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(&plain(answer.json()), want, "{body}");
    }
    std::thread::scope(|scope| {
        for _ in 0..6 {
            for ((endpoint, body), want) in requests.iter().zip(&wanted) {
                let bench = &bench;
                scope.spawn(move || assert_eq!(&plain(bench.post(endpoint.path(), body).json()), want));
            }
        }
    });
}

#[test]
fn what_a_request_lacks_is_given_back() {
    let bench = Bench::new();
    let body = chat(json!({"max_tokens": 12, "temperature": 1.5}));
    let first = bench.post("/v1/chat/completions", &body).json();
    assert!(first["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(first["system_fingerprint"].as_str().unwrap().starts_with("fp_"), "{first}");
    let seed = first["aerostat"]["seed"].as_u64().unwrap();
    let again = chat(json!({"max_tokens": 12, "temperature": 1.5, "seed": seed}));
    assert_eq!(bench.post("/v1/chat/completions", &again).json()["choices"], first["choices"]);
    let other = bench.post("/v1/chat/completions", &body).json();
    assert_ne!(other["aerostat"]["seed"], first["aerostat"]["seed"]);
}

#[test]
fn members_that_are_not_known_are_refused_or_named() {
    let body = chat(json!({"max_tokens": 1, "novel": 1}));
    let refused = Bench::new().post("/v1/chat/completions", &body);
    let error = &refused.json()["error"];
    assert_eq!((refused.status, &error["param"]), (400, &json!("novel")));
    assert_eq!(error["code"], "unsupported_parameter");
    let bench = Bench::with(Config { lenient: true, ..config() });
    let answer = bench.post("/v1/chat/completions", &body);
    assert_eq!((answer.status, answer.header("x-aerostat-ignored")), (200, Some("novel")));
}

#[test]
fn bad_requests_are_told_and_cost_nobody_else_anything() {
    let bench = Bench::new();
    for (more, code) in [
        (json!({"n": 1_000_000_000}), "invalid_value"),
        (json!({"n": 129}), "invalid_value"),
        (json!({"n": -1}), "invalid_value"),
        (json!({"max_tokens": 10_000}), "context_length_exceeded"),
        (json!({"messages": [{"role": "user", "content": "a ".repeat(2000)}]}), "context_length_exceeded"),
        (json!({"temperature": 1e300}), "invalid_value"),
        (json!({"stream": "yes"}), "invalid_value"),
        (json!({"guided_regex": "(("}), "invalid_value"),
        (json!({"guided_grammar": "start: nothing"}), "invalid_value"),
        (json!({"guided_regex": format!("({})", "a".repeat(300_000))}), "invalid_value"),
        (json!({"chat_template": "{% for a in range(10**9) %}x{% endfor %}"}), "unsupported_parameter"),
        (json!({"guided_json": {"$ref": "http://localhost/schema"}}), "invalid_value"),
        (json!({"stop": ["a", ""]}), "invalid_value"),
        (json!({"guided_json": {"$ref": "#/nothing"}}), "invalid_value"),
    ] {
        let answer = bench.post("/v1/chat/completions", &chat(more.clone()));
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{more}: {answer:?}");
    }
    let prompts: Vec<&str> = vec!["a"; 600];
    let many = bench.post("/v1/completions", &json!({"prompt": prompts, "n": 2, "max_tokens": 1}));
    assert_eq!((many.status, many.code().as_str()), (400, "too_many_sequences"));
    assert_eq!(bench.post("/v1/chat/completions", &chat(json!({"max_tokens": 2}))).status, 200);
    assert_eq!(bench.get("/health").json()["running"], 0);
}

/// Schemas that would take for ever to follow are refused or bounded; the others go on.
#[test]
fn a_grammar_bomb_harms_itself_alone() {
    let bench = Bench::new();
    let bombs = [
        json!({"guided_regex": "(a{1,1000}){1,1000}b"}),
        json!({"guided_json": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$", "minLength": 100_000}}),
        json!({"guided_json": {"definitions": {"a": {"$ref": "#/definitions/a"}}, "$ref": "#/definitions/a"}}),
    ];
    for bomb in bombs {
        let mut body = chat(json!({"max_tokens": 4}));
        body.as_object_mut().unwrap().extend(bomb.as_object().unwrap().clone());
        let answer = bench.post("/v1/chat/completions", &body);
        assert!(matches!(answer.status, 200 | 400), "{bomb}: {answer:?}");
    }
    assert_eq!(bench.post("/v1/chat/completions", &chat(json!({"max_tokens": 2}))).status, 200);
}

#[test]
fn an_answer_that_is_late_begins_early() {
    let mut config = config();
    config.limits.early_time = Duration::ZERO;
    config.limits.sign_time = Duration::from_millis(2);
    let bench = Bench::of(config, Options { rows_max: Some(1), ..options() });
    let prompt = vec![5; 400];
    let answer = bench
        .post("/v1/completions", &json!({"prompt": prompt, "max_tokens": 8, "temperature": 0, "seed": 1}));
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("\n\n"), "{:?}", answer.body);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 8);
}

#[test]
fn who_goes_away_frees_what_he_had() {
    let bench = Bench::of(config(), Options { rows_max: Some(1), ..options() });
    for stream in [false, true] {
        let body = json!({"prompt": vec![5; 300], "max_tokens": 200, "ignore_eos": true, "stream": stream});
        let mut connection = bench.connect();
        connection.write_all(request("POST", "/v1/completions", "", &body.to_string()).as_bytes()).unwrap();
        until("the request", || {
            !bench.get("/v1/aerostat/requests").json()["data"].as_array().unwrap().is_empty()
        });
        let one = bench.get("/v1/aerostat/requests").json()["data"][0].clone();
        assert_eq!((&one["prompt_tokens"], &one["tokens_max"]), (&json!(300), &json!(200)));
        drop(connection);
        until("the end", || bench.get("/v1/aerostat/requests").json()["data"].as_array().unwrap().is_empty());
        // The session has let it go as well.
        until("room", || bench.get("/health").json()["waiting"] == 0);
    }
}

#[test]
fn a_request_can_be_cancelled_by_its_name() {
    let bench = Bench::of(config(), Options { rows_max: Some(1), ..options() });
    let body = json!({"prompt": vec![5; 300], "max_tokens": 200, "ignore_eos": true});
    let mut connection = bench.connect();
    connection.write_all(request("POST", "/v1/completions", "", &body.to_string()).as_bytes()).unwrap();
    let mut id = String::new();
    until("the request", || {
        let list = bench.get("/v1/aerostat/requests").json();
        id = list["data"][0]["id"].as_str().unwrap_or_default().to_owned();
        !id.is_empty()
    });
    let path = format!("/v1/aerostat/requests/{id}");
    assert_eq!(bench.get(&path).json()["id"], *id);
    let cancelled = bench.send(&request("DELETE", &path, "", ""));
    assert_eq!((cancelled.status, &cancelled.json()["cancelled"]), (200, &json!(true)));
    let answer = Answer::read(&mut connection);
    assert_eq!((answer.status, answer.code().as_str()), (503, "stopped"));
    assert_eq!(bench.get(&path).status, 404);
}

#[test]
fn more_requests_than_there_are_places_are_told_to_come_again() {
    let mut config = config();
    config.limits.requests_max = 2;
    let bench = Bench::of(config, Options { rows_max: Some(1), ..options() });
    let body = json!({"prompt": vec![5; 400], "max_tokens": 100, "ignore_eos": true});
    let mut waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = bench.connect();
            connection
                .write_all(request("POST", "/v1/completions", "", &body.to_string()).as_bytes())
                .unwrap();
            connection
        })
        .collect();
    until("both", || bench.get("/v1/aerostat/requests").json()["data"].as_array().unwrap().len() == 2);
    let refused = bench.post("/v1/completions", &body);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("30")));
    assert_eq!(refused.header("x-should-retry"), None);
    assert_eq!(refused.code(), "rate_limit_exceeded");
    for connection in &mut waiting {
        assert_eq!(Answer::read(connection).status, 200);
    }
    assert_eq!(bench.post("/v1/completions", &json!({"prompt": [5], "max_tokens": 1})).status, 200);
}

#[test]
fn documents_are_ranked_by_how_likely_they_make_the_query() {
    let bench = Bench::new();
    let documents = json!(["one", "two three", "four"]);
    let body = json!({"model": "tiny", "query": "what", "documents": documents, "top_n": 2});
    let answer = bench.post("/v1/rerank", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let ranked = answer.json();
    let results = ranked["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    let score = |i: usize| results[i]["relevance_score"].as_f64().unwrap();
    assert!(score(0) >= score(1));
    for result in results {
        let document = documents[result["index"].as_u64().unwrap() as usize].as_str().unwrap();
        assert_eq!(result["document"]["text"], document);
        let given = format!("{document}\n");
        let scored = bench.post("/v1/score", &json!({"text_1": given, "text_2": "what"})).json();
        let tokens = scored["data"][0]["token_logprobs"].as_array().unwrap().len() as f64;
        assert_eq!(
            result["relevance_score"].as_f64().unwrap(),
            scored["data"][0]["score"].as_f64().unwrap() / tokens
        );
    }
    assert_eq!(bench.post("/rerank", &json!({"query": "", "documents": ["a"]})).status, 400);
    assert_eq!(bench.post("/rerank", &json!({"query": "a", "documents": []})).status, 400);
}

#[test]
fn tokens_and_texts_are_told() {
    let bench = Bench::new();
    let asked = json!({"model": "tiny", "prompt": "question 1", "return_token_strs": true});
    let tokens = bench.post("/tokenize", &asked).json();
    let ids = tokens["tokens"].as_array().unwrap();
    assert_eq!(tokens["count"].as_u64(), Some(ids.len() as u64));
    assert_eq!(tokens["token_strs"].as_array().unwrap().len(), ids.len());
    let plain = bench.post("/tokenize", &json!({"prompt": "question 1", "add_special_tokens": false})).json();
    let text = bench.post("/detokenize", &json!({"tokens": plain["tokens"]})).json();
    assert_eq!(text["prompt"], "question 1");
    let chatted = bench.post("/tokenize", &chat(json!({}))).json();
    let used = bench.post("/v1/chat/completions", &chat(json!({"max_tokens": 1}))).json();
    assert_eq!(chatted["count"], used["usage"]["prompt_tokens"]);
    assert_eq!(bench.post("/tokenize", &json!({"prompt": 5})).status, 400);
    assert_eq!(bench.post("/detokenize", &json!({"tokens": [-1]})).status, 400);
    assert!(bench.get("/tokenizer_info").json()["eos_token"].is_string());
}
