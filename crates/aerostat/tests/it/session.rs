//! Many callers, one engine.

use std::collections::VecDeque;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use aerostat::session::{Event, Priority, RequestState};
use aerostat::{
    Completion, Engine, Error, ErrorKind, FinishReason, ModelFiles, Need, Observer, Options, Outcome, Plan,
    Progress, PromptCache, QueueLimits, Request, Sampling, Session, Silent, Work,
};
use aerostat_testkit::fixture;

fn request(prompt: &[u32], max_new_tokens: usize, seed: u64) -> Request {
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
    Request { token_ids: prompt.to_vec(), max_new_tokens, sampling, ..Request::default() }
}

fn files() -> Arc<ModelFiles> {
    Arc::new(ModelFiles::open(&fixture("llama").path).unwrap())
}

fn session(observer: impl Observer + Send + 'static) -> Session {
    let options = Options { pinned_bytes_max: Some(0), ..Options::default() };
    Session::start(files(), None, options, Need::one(64), Box::new(observer)).unwrap()
}

fn tokens(outcome: Outcome) -> Vec<u32> {
    match outcome {
        Outcome::Completion(completion) => completion.token_ids,
        other => panic!("no answer: {other:?}"),
    }
}

/// What requests give alone.
fn alone(requests: &[Request]) -> Vec<Vec<u32>> {
    let files = files();
    let run = |request: &Request| {
        let requests = std::slice::from_ref(request);
        let need = aerostat::generate::need(requests);
        let mut engine = Engine::open(&files, &Options::default(), &need, &mut Silent).unwrap();
        engine.generate(requests, None, &mut Silent).unwrap().completions.remove(0).unwrap().token_ids
    };
    requests.iter().map(run).collect()
}

#[test]
fn callers_on_many_threads_get_what_they_would_get_alone() {
    let requests: Vec<Request> =
        (0..12).map(|i| request(&[1 + i, 5, 9], 3 + i as usize, u64::from(i))).collect();
    let want = alone(&requests);
    let session = session(Silent);
    let ask = |request: &Request, priority: Priority| {
        let handle = session.handle();
        let request = request.clone();
        std::thread::spawn(move || {
            let ticket = handle.submit(request, priority).unwrap();
            let mut streamed = Vec::new();
            while let Some(event) = ticket.next() {
                match event {
                    Event::Tokens { token_ids, .. } => streamed.extend(token_ids),
                    Event::Finished(outcome) => {
                        assert_eq!(tokens(outcome), streamed);
                        return streamed;
                    }
                    Event::Text(_) => {}
                }
            }
            panic!("a request ended without a result");
        })
    };
    let threads: Vec<_> = requests.iter().enumerate().map(|(i, r)| ask(r, i as Priority % 3 - 1)).collect();
    let found: Vec<Vec<u32>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(found, want);
    session.finish();
}

/// A job: some requests, and what came of them.
struct Job {
    coming: VecDeque<Request>,
    results: Arc<Mutex<Vec<(u64, Outcome)>>>,
    left: Vec<Completion>,
    fails_after: usize,
}

impl Work for Job {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        Ok(self.coming.pop_front())
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        let mut results = self.results.lock().unwrap();
        results.push((id, outcome));
        if results.len() > self.fails_after {
            return Err(Error::new(ErrorKind::Job, "the job's disk is full"));
        }
        Ok(())
    }

    fn unfinished(&mut self, _id: u64, so_far: Completion) -> Result<(), Error> {
        self.left.push(so_far);
        Ok(())
    }
}

fn job(requests: &[Request], fails_after: usize) -> (Box<Job>, Need) {
    let numbered = requests.iter().enumerate().map(|(i, r)| Request { id: i as u64, ..r.clone() });
    let results = Arc::default();
    let job = Job { coming: numbered.collect(), results, left: Vec::new(), fails_after };
    (Box::new(job), aerostat::generate::need(requests))
}

#[test]
fn a_job_and_single_requests_ride_together_and_each_keeps_its_ids() {
    let requests: Vec<Request> = (0..40).map(|i| request(&[2, 1 + i], 6, u64::from(i))).collect();
    let single = request(&[7, 7, 7], 9, 3);
    let want = alone(&requests);
    let session = session(Silent);
    let (work, need) = job(&requests, usize::MAX);
    let results = Arc::clone(&work.results);
    let attached = session.handle().attach(work, need, 5).unwrap();
    let ticket = session.handle().submit(single.clone(), -1).unwrap();
    assert_eq!(tokens(ticket.wait()), alone(&[single])[0]);
    attached.wait().unwrap().result.unwrap();
    let mut found: Vec<(u64, Vec<u32>)> =
        results.lock().unwrap().drain(..).map(|(id, outcome)| (id, tokens(outcome))).collect();
    found.sort();
    assert_eq!(found, (0..).zip(want).collect::<Vec<_>>());
}

/// Jobs once wrote a file for each of their lines, each of which the sweep waited for.
#[test]
fn a_job_leaves_nothing_of_its_prompts_on_disk_and_a_single_request_does() {
    let folder = tempfile::tempdir().unwrap();
    let cache =
        PromptCache { folder: folder.path().join("cache"), bytes_max: 1 << 30, identity: String::new() };
    let options = Options { prompt_cache: Some(cache.clone()), ..Options::default() };
    let session = Session::start(files(), None, options, Need::one(128), Box::new(Silent)).unwrap();
    let requests: Vec<Request> = (0..8).map(|i| request(&[1 + i; 80], 3, u64::from(i))).collect();
    let (work, need) = job(&requests, usize::MAX);
    session.handle().attach(work, need, 5).unwrap().wait().unwrap().result.unwrap();
    assert!(!cache.folder.exists());
    let single = session.handle().submit(requests[0].clone(), -1).unwrap();
    assert_eq!(tokens(single.wait()).len(), 3);
    session.finish();
    assert_eq!(std::fs::read_dir(&cache.folder).unwrap().count(), 1);
}

#[test]
fn a_jobs_own_error_ends_the_job_alone() {
    let requests: Vec<Request> = (0..10).map(|i| request(&[2, 1 + i], 4, u64::from(i))).collect();
    let session = session(Silent);
    let (work, need) = job(&requests, 2);
    let results = Arc::clone(&work.results);
    let attached = session.handle().attach(work, need, 0).unwrap();
    let error = attached.wait().unwrap().result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Job);
    assert_eq!(results.lock().unwrap().len(), 3, "it is not called again after its own error");
    let single = request(&[3, 4], 5, 1);
    let ticket = session.handle().submit(single.clone(), 0).unwrap();
    assert_eq!(tokens(ticket.wait()), alone(&[single])[0]);
}

/// A source that has nothing for a while, and then one request.
struct Late {
    asked: usize,
    result: Arc<Mutex<Option<Outcome>>>,
}

impl Work for Late {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        self.asked += 1;
        Ok((self.asked == 3).then(|| request(&[5, 6], 4, 9)))
    }

    fn finished(&mut self, _id: u64, outcome: Outcome) -> Result<(), Error> {
        *self.result.lock().unwrap() = Some(outcome);
        Ok(())
    }

    fn more_may_come(&self) -> bool {
        self.asked < 3
    }
}

#[test]
fn a_source_that_is_dry_is_asked_again_until_it_is_over() {
    let session = session(Silent);
    let result = Arc::default();
    let late = Late { asked: 0, result: Arc::clone(&result) };
    let attached = session.handle().attach(Box::new(late), Need::one(8), 0).unwrap();
    attached.wait().unwrap().result.unwrap();
    let found = result.lock().unwrap().take().unwrap();
    assert_eq!(tokens(found), alone(&[request(&[5, 6], 4, 9)])[0]);
}

/// Slows every tile, so that there is time to cancel.
struct Slow;

impl Observer for Slow {
    fn progress(&mut self, _progress: &Progress) -> bool {
        std::thread::sleep(Duration::from_millis(1));
        false
    }
}

#[test]
fn a_cancelled_request_leaves_as_far_as_it_came_and_others_go_on() {
    let (long, other) = (request(&[1, 2, 3], 60, 1), request(&[1, 2, 4], 8, 2));
    let want = alone(&[long.clone(), other.clone()]);
    let session = session(Slow);
    let cancelled = session.handle().submit(long, 0).unwrap();
    let kept = session.handle().submit(other, 0).unwrap();
    let dropped = session.handle().submit(request(&[9], 60, 3), 0).unwrap();
    drop(dropped);
    // Once it has begun.
    let Some(Event::Tokens { token_ids, .. }) = cancelled.next() else { panic!("no tokens") };
    session.handle().cancel(cancelled.id());
    match cancelled.wait() {
        Outcome::Completion(Completion { token_ids: found, finish_reason, .. }) => {
            assert_eq!(finish_reason, FinishReason::Interrupted);
            assert!(found.starts_with(&token_ids) && want[0].starts_with(&found) && found.len() < 60);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tokens(kept.wait()), want[1]);
}

#[test]
fn a_request_that_does_not_fit_reopens_the_model_and_others_never_do() {
    let session = session(Silent);
    let small = request(&[1, 2], 20, 1);
    let large = request(&(0..100).collect::<Vec<u32>>(), 100, 2);
    let want = alone(&[small.clone(), large.clone()]);
    let handle = session.handle();
    for _ in 0..3 {
        assert_eq!(tokens(handle.submit(small.clone(), 0).unwrap().wait()), want[0]);
    }
    assert_eq!(handle.status().reopened, 0);
    let both = (handle.submit(small, 0).unwrap(), handle.submit(large, 0).unwrap());
    assert_eq!((tokens(both.0.wait()), tokens(both.1.wait())), (want[0].clone(), want[1].clone()));
    assert_eq!(handle.status().reopened, 1);
}

#[test]
fn what_can_never_fit_is_refused_and_the_session_goes_on() {
    let options = Options { pinned_bytes_max: Some(0), ..Options::default() };
    let minimum = Engine::plan(&files(), &options, &Need::one(64)).unwrap().minimum_bytes;
    let options = Options { memory_bytes: Some(minimum + (4 << 20)), ..options };
    let session = Session::start(files(), None, options, Need::one(64), Box::new(Silent)).unwrap();
    let handle = session.handle();
    let small = request(&[1, 2], 5, 1);
    let want = alone(std::slice::from_ref(&small));
    assert_eq!(tokens(handle.submit(small.clone(), 0).unwrap().wait()), want[0]);
    match handle.submit(request(&[1], 1 << 20, 1), 0).unwrap().wait() {
        Outcome::Failed(error) => assert_eq!(error.kind(), ErrorKind::Budget, "{error}"),
        other => panic!("{other:?}"),
    }
    for absurd in [3_000_000_000, usize::MAX - 5] {
        let outcome = handle.submit(request(&[1], absurd, 1), 0).unwrap().wait();
        assert!(matches!(outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Usage));
    }
    // It would need a larger cache, and is refused before one is opened.
    let outside = handle.submit(request(&[99_999], 200, 1), 0).unwrap().wait();
    assert!(matches!(outside, Outcome::Failed(error) if error.kind() == ErrorKind::Usage));
    assert_eq!(handle.status().reopened, 0);
    let empty = handle.submit(Request::default(), 0).unwrap().wait();
    assert!(matches!(empty, Outcome::Failed(error) if error.kind() == ErrorKind::Usage));
    assert_eq!(tokens(handle.submit(small, 0).unwrap().wait()), want[0]);
    session.finish();
    assert!(handle.submit(Request::default(), 0).is_err());
}

/// A request for two thousand million tokens once opened the model with as large a cache as there may be, and was refused then.
#[test]
fn what_no_model_has_positions_for_opens_nothing() {
    let mut need = Need::none();
    need.add(&request(&[1], 1 << 31, 1));
    let pages = |need| Engine::plan(&files(), &Options::default(), need).unwrap().kv_pages;
    assert_eq!(pages(&need), pages(&Need::none()));
    let session = session(Silent);
    let outcome = session.handle().submit(request(&[1], 1 << 31, 1), 0).unwrap().wait();
    assert!(matches!(outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Usage));
    assert_eq!(session.handle().status().reopened, 0);
}

/// Holds up the opening of the model and every tile while it is shut.
#[derive(Clone)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn shut() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn set(&self, open: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = open;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Observer for Gate {
    fn planned(&mut self, _plan: &Plan) {
        self.pass();
    }

    fn progress(&mut self, _progress: &Progress) -> bool {
        self.pass();
        false
    }
}

/// Opens a gate at the end of its scope, so that a test that fails does not wait for a session that waits for the gate.
struct Opened(Gate);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn a_full_queue_refuses_more_and_tells_how_far_each_request_is() {
    let gate = Gate::shut();
    let options = Options { pinned_bytes_max: Some(0), draft: aerostat::Draft::None, ..Options::default() };
    let limits = QueueLimits { requests_max: 2, bytes_max: usize::MAX };
    let need = (Need::one(64), limits);
    let session = Session::start_with(files(), None, options, need, Box::new(gate.clone())).unwrap();
    let _opened = Opened(gate.clone());
    let handle = session.handle();
    let (first, second) = (request(&[1, 2, 3], 60, 1), request(&[4, 5], 4, 2));
    let want = alone(&[first.clone(), second.clone()]);
    // The first answer's first token shuts the gate again: the sweep after it stands still while the test looks.
    let (events, heard) = channel();
    let (mut begun, at_first_token) = (false, gate.clone());
    let listener = move |event: Event| {
        if matches!(event, Event::Tokens { .. }) && !std::mem::replace(&mut begun, true) {
            at_first_token.set(false);
        }
        let _ = events.send(event);
    };
    let first = handle.submit_to(first, 0, Box::new(listener)).unwrap();
    let ticket = handle.submit(second.clone(), 0).unwrap();
    let Err(full) = handle.submit(second.clone(), 0) else { panic!("three wait where two may") };
    assert_eq!(full.kind(), ErrorKind::Busy, "{full}");
    let told = handle.requests();
    assert_eq!(told.iter().map(|r| r.position).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert!(told.iter().all(|r| r.state == RequestState::Waiting));
    gate.set(true);
    let Ok(Event::Tokens { token_ids, .. }) = heard.recv() else { panic!("no tokens") };
    let told = handle.requests();
    let (one, other) = (told[0], told[1]);
    assert_eq!((one.id, one.state, one.position), (first, RequestState::Answering, None));
    assert_eq!((one.prompt_tokens, one.prompt_done, one.tokens, one.tokens_max), (3, 3, token_ids.len(), 60));
    // The model was opened for one answer at a time.
    assert_eq!((other.state, other.position, other.tokens), (RequestState::Waiting, Some(0), 0));
    // One has left the queue, so that another may come.
    let third = handle.submit(second, 0).unwrap();
    gate.set(true);
    let outcome = heard.iter().find_map(|event| match event {
        Event::Finished(outcome) => Some(outcome),
        _ => None,
    });
    assert_eq!((tokens(outcome.unwrap()), tokens(ticket.wait())), (want[0].clone(), want[1].clone()));
    assert_eq!(tokens(third.wait()), want[1]);
    assert!(handle.requests().is_empty());
}

/// A session for some sequences of some tokens once had pages and logits for fewer at once.
#[test]
fn a_session_for_many_sequences_has_room_for_all_at_once() {
    let files = files();
    for (sequences, tokens) in [(1, 64), (8, 64), (6, 1_000)] {
        let plan = Engine::plan(&files, &Options::default(), &Need::many(sequences, tokens)).unwrap();
        assert!(plan.logit_rows_max >= sequences, "{sequences} x {tokens}: {}", plan.logit_rows_max);
        assert!(
            plan.kv_pages >= sequences * tokens.div_ceil(16),
            "{sequences} x {tokens}: {}",
            plan.kv_pages
        );
        assert!(plan.rows_max >= sequences);
    }
}
