//! Jobs that ride along in a session, beside each other and single requests.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use aerostat::{Engine, Need, Observer, Options, Outcome, Progress, Request, Session, Silent, Want};
use aerostat_jobs::disk::System;
use aerostat_jobs::{Counts, ErrorKind, Job, JobHandle, Unwatched};
use serde_json::{Map, Value, json};

use crate::support::{Bench, Faulty, chat, mixed, model};

fn options() -> Options {
    Options { memory_bytes: Some(512 << 20), threads: Some(1), ..Options::default() }
}

fn session(observer: impl Observer + Send + 'static) -> Session {
    let files = Arc::new(model());
    let tokenizer = files.tokenizer().unwrap().map(Arc::new);
    let mut need = Need::none();
    (0..4).for_each(|_| need.add_tokens(60, 60, Want::Generate));
    Session::start(files, tokenizer, options(), need, Box::new(observer)).unwrap()
}

fn open(bench: &Bench) -> Job {
    bench.open(System, &Unwatched).unwrap()
}

/// What a job gives with an engine for itself.
fn alone(lines: &[String], seed: u64) -> (BTreeMap<String, Value>, Vec<Value>) {
    let mut bench = Bench::new(lines);
    bench.options.seed = seed;
    bench.run().unwrap();
    (bench.results(), bench.failures())
}

fn requests() -> Vec<Request> {
    let request = |i: u32| Request {
        token_ids: vec![1 + i, 5, 9],
        max_new_tokens: 20 + i as usize,
        ..Request::default()
    };
    (0..6).map(request).collect()
}

fn answers_alone() -> Vec<Vec<u32>> {
    let requests = requests();
    let need = aerostat::generate::need(&requests);
    let mut engine = Engine::open(&model(), &options(), &need, &mut Silent).unwrap();
    let answers = engine.generate(&requests, None, &mut Silent).unwrap();
    answers.completions.into_iter().map(|answer| answer.unwrap().token_ids).collect()
}

#[test]
fn two_jobs_and_single_requests_give_the_bytes_that_each_gives_alone() {
    let (first, second) = (mixed(12), mixed(9));
    let want = (alone(&first, 0), alone(&second, 5), answers_alone());
    let benches = (Bench::new(&first), {
        let mut bench = Bench::named(&second, "out.jsonl.zst");
        bench.options.seed = 5;
        bench
    });
    let session = session(Silent);
    let handle = session.handle();
    let one = open(&benches.0).attach(&handle, 0).unwrap();
    let tickets: Vec<_> = requests().into_iter().map(|r| handle.submit(r, 0).unwrap()).collect();
    let two = open(&benches.1).attach(&handle, 1).unwrap();
    for (ticket, want) in tickets.into_iter().zip(&want.2) {
        match ticket.wait() {
            Outcome::Completion(answer) => assert_eq!(answer.token_ids, *want),
            other => panic!("no answer: {other:?}"),
        }
    }
    let watched = two.handle();
    assert_eq!(one.wait().unwrap(), Counts { total: 16, done: 14, failed: 2 });
    let counts = two.wait().unwrap();
    assert_eq!(counts, Counts { total: 13, done: 11, failed: 2 });
    assert_eq!(watched.progress().counts, counts, "what others see is the end");
    session.finish();
    assert_eq!((benches.0.results(), benches.0.failures()), want.0);
    assert_eq!((benches.1.results(), benches.1.failures()), want.1);
}

/// Stops a job, on the engine's thread, as soon as so many of its lines are done.
#[derive(Clone, Default)]
struct StopsAt(Arc<Mutex<Option<(JobHandle, u64)>>>);

impl Observer for StopsAt {
    fn progress(&mut self, _progress: &Progress) -> bool {
        if let Some((job, lines)) = &*self.0.lock().unwrap()
            && job.progress().counts.done >= *lines
        {
            job.stop();
        }
        false
    }
}

#[test]
fn a_job_that_is_cancelled_keeps_what_is_done_and_goes_on_when_it_is_opened_again() {
    let lines = mixed(18);
    let (want, failures) = alone(&lines, 0);
    let (stopped, other) = (Bench::new(&lines), Bench::new(&lines));
    let stops = StopsAt::default();
    let session = session(stops.clone());
    let beside = open(&other).attach(&session.handle(), 0).unwrap();
    let (mut times, mut done) = (0, 0);
    loop {
        let job = open(&stopped);
        assert_eq!(job.counts().done, done, "what was done is kept");
        assert_eq!(job.resumed(), times > 0);
        let job = job.attach(&session.handle(), 0).unwrap();
        let handle = job.handle();
        *stops.0.lock().unwrap() = Some((handle.clone(), done + 5));
        match job.wait() {
            Ok(counts) => {
                assert_eq!(counts.left(), 0);
                break;
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}"),
        }
        (times, done) = (times + 1, handle.progress().counts.done);
    }
    assert!(times >= 2, "it was stopped {times} times");
    assert_eq!(beside.wait().unwrap().left(), 0, "the other went on");
    for bench in [&stopped, &other] {
        assert_eq!((bench.results(), bench.failures()), (want.clone(), failures.clone()));
    }
}

#[test]
fn a_job_whose_disk_or_input_fails_ends_alone() {
    let lines = mixed(12);
    let (want, failures) = alone(&lines, 0);
    let (full, cut, good) = (Bench::new(&lines), Bench::new(&lines), Bench::new(&lines));
    let disk = Faulty::default();
    disk.plan.free.set(Some(3000));
    let session = session(Silent);
    let handle = session.handle();
    let on_full = full.open(disk, &Unwatched).unwrap().attach(&handle, 0).unwrap();
    let job = open(&cut);
    fs::write(&cut.paths.input, "").unwrap();
    let on_cut = job.attach(&handle, 0).unwrap();
    let on_good = open(&good).attach(&handle, 0).unwrap();
    assert_eq!(on_full.wait().unwrap_err().kind(), ErrorKind::Disk);
    assert_eq!(on_cut.wait().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(on_good.wait().unwrap().left(), 0);
    assert_eq!((good.results(), good.failures()), (want.clone(), failures.clone()));
    // The disk has room again, and the session is still open for the same job.
    open(&full).attach(&handle, 0).unwrap().wait().unwrap();
    assert_eq!((full.results(), full.failures()), (want, failures));
}

#[test]
fn a_session_that_ends_leaves_jobs_that_go_on() {
    let lines = mixed(12);
    let (want, failures) = alone(&lines, 0);
    let bench = Bench::new(&lines);
    let session = session(Silent);
    let job = open(&bench).attach(&session.handle(), 0).unwrap();
    drop(session);
    assert_eq!(job.wait().unwrap_err().kind(), ErrorKind::Interrupted);
    bench.run().unwrap();
    assert_eq!((bench.results(), bench.failures()), (want, failures));
}

/// A grammar was compiled between two sweeps, which waited for it, as did everybody's answers.
#[test]
fn sweeps_go_on_while_a_grammar_is_compiled() {
    let ask = |id: usize, schema: Value| {
        let format = json!({"type": "json_schema", "json_schema": {"name": "it", "schema": schema}});
        chat(id, json!({"max_tokens": 1, "response_format": format}))
    };
    let members: Map<String, Value> =
        (0..2_400).map(|i| (format!("field_{i}"), json!({"type": "integer"}))).collect();
    let slow = ask(0, json!({"type": "object", "properties": members}));
    // So many others that the first is compiled once more when the job runs.
    let others = (1..70).map(|i| ask(i, json!({"enum": [format!("{i}")]})));
    let bench = Bench::new(&[slow].into_iter().chain(others).collect::<Vec<_>>());
    let job = open(&bench);
    let session = session(Silent);
    let handle = session.handle();
    let attached = job.attach(&handle, 0).unwrap();
    let watched = attached.handle();
    let request =
        Request { token_ids: vec![1, 5, 9], max_new_tokens: 30, ignore_eos: true, ..Request::default() };
    let answer = handle.submit(request, 0).unwrap().wait();
    assert!(matches!(answer, Outcome::Completion(_)), "{answer:?}");
    assert_eq!(watched.progress().counts.done, 0, "the answer waited for a grammar");
    assert_eq!(attached.wait().unwrap(), Counts { total: 70, done: 70, failed: 0 });
    session.finish();
}
