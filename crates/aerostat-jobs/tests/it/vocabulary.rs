//! One vocabulary: what a job writes is what the library's outcomes say in OpenAI's words, whoever asks.

use std::collections::BTreeMap;
use std::fs;

use aerostat::{Engine, Error, Need, Options, Outcome, Request, Silent, Want, Work};
use aerostat_jobs::{ErrorKind, Setting};
use aerostat_openai::{ApiRequest, Endpoint, LazyGrammars, Part, Rules, Stamp};
use serde_json::{Value, json};

use crate::support::{Bench, chat, line, mixed, model};

/// A face that is no job: it keeps nothing but outcomes.
struct Direct {
    requests: Vec<Request>,
    parts: BTreeMap<u64, Part>,
}

impl Work for Direct {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        Ok(self.requests.pop())
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        self.parts.insert(id, Part::of(outcome).unwrap());
        Ok(())
    }
}

fn answer(engine: &mut Engine, setting: &Setting, request: &ApiRequest) -> Vec<Part> {
    let mut grammars = LazyGrammars::default();
    let part = |i: usize| {
        let mut part = request.task.part(i).unwrap();
        part.id = i as u64;
        part.constraint =
            request.task.shape().map(|s| Box::new(grammars.constraint(setting, s).unwrap()) as _);
        part
    };
    let requests = (0..request.task.parts()).map(part).collect();
    let mut work = Direct { requests, parts: BTreeMap::new() };
    engine.run(&mut work, setting.tokenizer().map(|t| &**t), &mut Silent).unwrap();
    work.parts.into_values().collect()
}

#[test]
fn the_same_request_gives_the_same_body_through_a_job_and_without_one() {
    let mut lines = mixed(12);
    lines.push(line("e", "/v1/embeddings", json!({"input": ["a text", [5, 6, 7]], "dimensions": 4})));
    let base64 = json!({"input": "a text", "encoding_format": "base64", "model": "other"});
    lines.push(line("b", "/v1/embeddings", base64));
    let echoed = json!({"prompt": ["one", [5, 6, 7], "two more"], "n": 2, "echo": true, "max_tokens": 3, "logprobs": 1});
    lines.push(line("echoed", "/v1/completions", echoed));
    let scored = json!({"prompt": ["one", "two more"], "max_tokens": 2, "prompt_logprobs": 2});
    lines.push(line("scored", "/v1/completions", scored));
    // So many that some of them are in the database only when the last is done.
    let many = json!({"n": 40, "max_tokens": 90, "temperature": 1.1, "logprobs": true, "top_logprobs": 3});
    lines.push(chat(50, many));
    let bench = Bench::new(&lines);
    bench.run().unwrap();
    let results = bench.results();
    let setting = Setting::new(&model(), "tiny", Rules::from(&bench.options)).unwrap();
    let mut need = Need::none();
    (0..8).for_each(|_| need.add_tokens(120, 120, Want::Generate));
    let options = Options { memory_bytes: Some(512 << 20), threads: Some(1), ..Options::default() };
    let mut engine = Engine::open(&model(), &options, &need, &mut Silent).unwrap();
    let mut compared = 0;
    for (number, line) in lines.iter().enumerate() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let endpoint = Endpoint::at(line["url"].as_str().unwrap()).unwrap();
        let body = line["body"].as_object().unwrap().clone();
        let request = setting.read(endpoint, body, number as u64).unwrap();
        let parts = answer(&mut engine, &setting, &request);
        let stamp = Stamp { id: format!("{:010}", number + 1), created: 0 };
        let mut body = setting.respond(&request, &parts, &stamp).unwrap();
        body.as_object_mut().unwrap().shift_remove("created");
        let wanted = &results[line["custom_id"].as_str().unwrap()];
        if wanted["id"] == format!("batch_req_{:010}", number + 1) {
            assert_eq!(body.to_string(), wanted["response"]["body"].to_string());
            compared += 1;
        }
    }
    assert_eq!(compared, results.len());
}

#[test]
fn a_lenient_job_names_what_it_ignores_and_is_another_job() {
    let lines = [
        chat(0, json!({"max_tokens": 2, "temperature": 3, "seed": 1, "telepathy": true})),
        chat(1, json!({"max_tokens": 2, "temperature": 0})),
    ];
    let strict = Bench::new(&lines);
    assert_eq!(strict.run().unwrap().failed, 1);
    let mut lenient = Bench::new(&lines);
    lenient.options.lenient = true;
    assert_eq!(lenient.run().unwrap().failed, 0);
    let results = lenient.results();
    assert_eq!(results["r0"]["response"]["body"]["aerostat"], json!({"ignored": ["telepathy"]}));
    assert_eq!(results["r1"].to_string(), strict.results()["r1"].to_string());
    lenient.options.lenient = false;
    assert_eq!(lenient.run().unwrap_err().kind(), ErrorKind::Changed);
}

/// A job whose database was lost in part once began anew and cut its results off.
#[test]
fn results_that_the_database_does_not_know_of_are_never_cut() {
    for spoil in [
        "DELETE FROM job; DELETE FROM line;",
        "DELETE FROM job WHERE key = 'state';",
        "UPDATE job SET value = 'validating' WHERE key = 'state';",
        "UPDATE job SET value = 'many' WHERE key = 'output_bytes';",
        "DELETE FROM job WHERE key = 'output_bytes';",
        "DELETE FROM job WHERE key = 'created';",
        "UPDATE line SET state = 9;",
        // What was not counted yet is known by its line.
        "DELETE FROM line; UPDATE job SET value = '0' WHERE key = 'output_bytes';",
        "DELETE FROM line WHERE number = 2;",
        "UPDATE job SET value = '0' WHERE key = 'output_bytes';",
    ] {
        let bench = Bench::new(&mixed(4));
        bench.run().unwrap();
        let before = fs::read(&bench.paths.output).unwrap();
        rusqlite::Connection::open(bench.paths.database()).unwrap().execute_batch(spoil).unwrap();
        let kind = bench.run().unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Changed | ErrorKind::Database), "{spoil}: {kind:?}");
        assert_eq!(fs::read(&bench.paths.output).unwrap(), before, "{spoil}");
    }
    let bench = Bench::new(&mixed(4));
    bench.run().unwrap();
    let longer = [&fs::read(&bench.paths.output).unwrap()[..], b"{\"note\": \"mine\"}\n"].concat();
    fs::write(&bench.paths.output, &longer).unwrap();
    assert_eq!(bench.run().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(fs::read(&bench.paths.output).unwrap(), longer, "a line of somebody else's");
}
