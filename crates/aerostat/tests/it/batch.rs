//! Many requests at once: each result is what it would have been alone, whoever comes and goes beside it.

use std::collections::{BTreeMap, VecDeque};

use aerostat::{
    Completion, Constraint, Engine, Error, ErrorKind, FinishReason, Gained, Hidden, Layer, ModelFiles, Need,
    Observer, Options, Outcome, Parts, Plan, Pooling, Prefixes, Progress, Request, RunEnd, Sampling, Silent,
    TokenLogprobs, Want, Work,
};
use aerostat_testkit::{Fixture, fixture};

use crate::all;

/// What is left of an outcome when bits are compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bits {
    Answer(Vec<u32>, FinishReason, Vec<u32>, Vec<Vec<(u32, u32)>>),
    Numbers(Vec<u32>),
    Failed(ErrorKind),
}

pub(crate) fn bits(outcome: Outcome) -> Bits {
    match outcome {
        Outcome::Completion(c) => {
            let logprobs = c.logprobs.unwrap_or_default().iter().map(|l| l.to_bits()).collect();
            let top = |t: &Vec<(u32, f32)>| t.iter().map(|(id, l)| (*id, l.to_bits())).collect();
            let top = c.top_logprobs.unwrap_or_default().iter().map(top).collect();
            Bits::Answer(c.token_ids, c.finish_reason, logprobs, top)
        }
        Outcome::Score(s) => {
            let numbers = s.logprobs.into_iter().map(Option::unwrap_or_default);
            Bits::Numbers(numbers.chain(s.logits_last.unwrap_or_default()).map(f32::to_bits).collect())
        }
        Outcome::TopK(t) => {
            Bits::Numbers(t.ids.into_iter().chain(t.logprobs.iter().map(|l| l.to_bits())).collect())
        }
        Outcome::Hidden(vectors) => Bits::Numbers(vectors.into_iter().flatten().map(f32::to_bits).collect()),
        Outcome::Given => Bits::Numbers(Vec::new()),
        Outcome::Failed(e) => Bits::Failed(e.kind()),
    }
}

/// Requests in an order, some of which come only after so many sweeps; everything that is told of is kept.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) coming: VecDeque<(usize, Request)>,
    /// Those that wait for nobody.
    pub(crate) urgent: VecDeque<(usize, Request)>,
    pub(crate) sweeps: usize,
    pub(crate) gained: BTreeMap<u64, (Vec<u32>, Vec<TokenLogprobs>)>,
    pub(crate) finished: BTreeMap<u64, (usize, Bits)>,
    pub(crate) unfinished: BTreeMap<u64, Completion>,
    /// Which call fails.
    pub(crate) fails: Option<&'static str>,
}

impl Journal {
    pub(crate) fn new(requests: impl IntoIterator<Item = Request>) -> Self {
        Self { coming: requests.into_iter().map(|r| (0, r)).collect(), ..Self::default() }
    }

    fn fail(&self, call: &str) -> Result<(), Error> {
        match self.fails {
            Some(fails) if fails == call => Err(Error::new(ErrorKind::Job, format!("{call} failed"))),
            _ => Ok(()),
        }
    }

    pub(crate) fn results(&self) -> BTreeMap<u64, Bits> {
        self.finished.iter().map(|(id, (_, bits))| (*id, bits.clone())).collect()
    }
}

impl Work for Journal {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        self.fail("next")?;
        Ok(self.coming.pop_front_if(|(sweep, _)| *sweep <= self.sweeps).map(|(_, r)| r))
    }

    fn next_urgent(&mut self) -> Result<Option<Request>, Error> {
        Ok(self.urgent.pop_front_if(|(sweep, _)| *sweep <= self.sweeps).map(|(_, r)| r))
    }

    fn swept(&mut self, gained: &[Gained<'_>]) -> Result<(), Error> {
        self.sweeps += 1;
        for Gained { id, tokens, logprobs } in gained {
            let kept = self.gained.entry(*id).or_default();
            kept.0.extend_from_slice(tokens);
            kept.1.extend_from_slice(logprobs);
        }
        self.fail("swept")
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        self.fail("finished")?;
        let again = self.finished.insert(id, (self.sweeps, bits(outcome)));
        assert!(again.is_none(), "request {id} finished twice");
        Ok(())
    }

    fn unfinished(&mut self, id: u64, so_far: Completion) -> Result<(), Error> {
        self.unfinished.insert(id, so_far);
        Ok(())
    }
}

/// A grammar for tests: after every token divisible by 3 the three tokens 5, 6, 8 must follow, and none above 100 may come.
#[derive(Clone, Debug, Default)]
struct Threes {
    forced: VecDeque<u32>,
    left: usize,
}

impl Constraint for Threes {
    fn forced(&mut self) -> Result<Vec<u32>, Error> {
        Ok(self.forced.iter().copied().collect())
    }

    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        assert!(self.forced.is_empty(), "forced tokens are not chosen");
        logits[101..].fill(f32::NEG_INFINITY);
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::new(ErrorKind::Usage, "too many"))?;
        match self.forced.pop_front() {
            Some(wanted) => assert_eq!(wanted, token),
            None if token.is_multiple_of(3) => self.forced.extend([5, 6, 8]),
            None => {}
        }
        Ok(())
    }

    fn ended(&self) -> bool {
        self.left == 0
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// Requests of every kind and of many lengths.
pub(crate) fn requests(fixture: &Fixture) -> Vec<Request> {
    let long: Vec<u32> = fixture.prompts.iter().flat_map(|p| p.ids.iter().copied()).collect();
    let pool = |i: usize, pooling| Hidden {
        layer: if i % 4 < 2 { Layer::Final } else { Layer::After(i % 3) },
        pooling,
        dimensions: Some(7),
        normalize: i.is_multiple_of(2),
    };
    let poolings = [None, Some(Pooling::Mean), Some(Pooling::LastToken), Some(Pooling::WeightedMean)];
    (0..27)
        .map(|i: usize| {
            let request = Request {
                id: i as u64 + 100,
                token_ids: long.iter().copied().cycle().skip(i % 3).take(1 + i * 37 % 61).collect(),
                max_new_tokens: 1 + i * 11 % 23,
                stream: i as u64 % 2,
                ..Request::default()
            };
            let seed = Sampling { temperature: 1.2, seed: i as u64, ..Sampling::default() };
            match i % 9 {
                0 => request,
                1 => Request {
                    sampling: Sampling {
                        frequency_penalty: 0.4,
                        presence_penalty: 0.2,
                        logit_bias: [(3, 1.0), (9, -4.0)].into(),
                        top_p: 0.9,
                        ..seed
                    },
                    ..request
                },
                2 => Request { top_logprobs: Some(3), sampling: seed, ..request },
                3 => Request { want: Want::Score { from: 1 + i % 5, logits_last: i > 6 }, ..request },
                4 => Request {
                    constraint: Some(Box::new(Threes { left: 9 + i, ..Threes::default() })),
                    top_logprobs: (i > 8).then_some(2),
                    sampling: seed,
                    ..request
                },
                5 => Request { want: Want::TopK { k: 4, from: i % 4 }, ..request },
                6 | 7 => Request { want: Want::Hidden(pool(i, poolings[i % 4])), ..request },
                _ => Request { end_tokens: (0..40).collect(), sampling: seed, ..request },
            }
        })
        .collect()
}

pub(crate) fn need(requests: &[Request]) -> Need {
    let mut need = Need::none();
    requests.iter().for_each(|r| need.add(r));
    need
}

pub(crate) fn engine(fixture: &Fixture, options: &Options, requests: &[Request]) -> Engine {
    let files = ModelFiles::open(&fixture.path).unwrap();
    Engine::open(&files, options, &need(requests), &mut Silent).unwrap()
}

/// Each request in a run of its own.
pub(crate) fn alone(fixture: &Fixture, options: &Options, requests: &[Request]) -> BTreeMap<u64, Bits> {
    let mut engine = engine(fixture, options, requests);
    let one = |request: &Request| {
        let mut journal = Journal::new([request.clone()]);
        assert_eq!(engine.run(&mut journal, None, &mut Silent).unwrap(), RunEnd::Done);
        journal.results().pop_first().unwrap()
    };
    requests.iter().map(one).collect()
}

#[test]
fn every_request_gives_the_same_bits_alone_and_in_any_company() {
    for name in ["llama_gqa_bf16", "gemma3", "llama_dynamic", "qwen3_next"] {
        let fixture = fixture(name);
        let requests = requests(&fixture);
        let want = alone(&fixture, &Options::default(), &requests);
        for (rows_max, prefill_chunk) in [(None, None), (Some(1), None), (Some(7), Some(3)), (Some(40), None)]
        {
            let options = Options { rows_max, prefill_chunk, ..Options::default() };
            let mut engine = engine(&fixture, &options, &requests);
            let mut backwards = requests.clone();
            backwards.reverse();
            for order in [&requests, &backwards] {
                let mut journal = Journal::new(order.iter().cloned());
                assert_eq!(engine.run(&mut journal, None, &mut Silent).unwrap(), RunEnd::Done);
                assert_eq!(journal.results(), want, "{name}, {rows_max:?} rows");
            }
        }
    }
}

#[test]
fn requests_come_and_go_at_any_sweep() {
    let fixture = fixture("llama");
    let requests = requests(&fixture);
    let want = alone(&fixture, &Options::default(), &requests);
    let coming = requests.iter().enumerate().map(|(i, r)| (i / 3 * 2, r.clone())).collect();
    let mut journal = Journal { coming, ..Journal::default() };
    let mut engine = engine(&fixture, &Options::default(), &requests);
    while !journal.coming.is_empty() {
        // With nobody active a run ends; the rest comes in the next.
        engine.run(&mut journal, None, &mut Silent).unwrap();
        journal.sweeps += 1;
    }
    assert_eq!(journal.results(), want);
    let ends: std::collections::BTreeSet<usize> =
        journal.finished.values().map(|(sweep, _)| *sweep).collect();
    assert!(ends.len() > 5, "{ends:?}");
    for (id, (tokens, logprobs)) in &journal.gained {
        let Bits::Answer(answer, _, known, _) = &want[id] else { panic!("{id} is not answered") };
        assert_eq!((tokens, logprobs.len()), (answer, known.len()), "what sweeps gave is the answer");
    }
}

#[test]
fn forced_tokens_take_no_sweeps_of_their_own() {
    let fixture = fixture("llama");
    #[derive(Clone, Debug)]
    struct All(usize);
    impl Constraint for All {
        fn forced(&mut self) -> Result<Vec<u32>, Error> {
            Ok(if self.0 == 1 { (20..30).collect() } else { Vec::new() })
        }
        fn mask(&mut self, _: &mut [f32]) -> Result<(), Error> {
            Ok(())
        }
        fn accept(&mut self, _: u32) -> Result<(), Error> {
            self.0 += 1;
            Ok(())
        }
        fn ended(&self) -> bool {
            false
        }
        fn boxed_clone(&self) -> Box<dyn Constraint> {
            Box::new(self.clone())
        }
    }
    for top_logprobs in [None, Some(0)] {
        let request = Request {
            token_ids: vec![1, 2, 3],
            max_new_tokens: 13,
            constraint: Some(Box::new(All(0))),
            top_logprobs,
            ..Request::default()
        };
        let requests = [request];
        let mut engine = engine(&fixture, &Options::default(), &requests);
        let answers = all(engine.generate(&requests, None, &mut Silent).unwrap().completions);
        assert_eq!(answers[0].token_ids[1..11], (20..30).collect::<Vec<u32>>());
        // The prompt; the first token with those forced; one sweep for each of the other two but the last.
        assert_eq!(engine.stats().sweeps, 3, "{top_logprobs:?}");
        if let Some(logprobs) = &answers[0].logprobs {
            let whole = [answers[0].prompt_token_ids.clone(), answers[0].token_ids.clone()].concat();
            let score = all(engine.score(&[whole], false, &mut Silent).unwrap()).remove(0);
            let scored: Vec<f32> = score.logprobs[3..].iter().map(|p| p.unwrap()).collect();
            assert_eq!(logprobs, &scored);
        }
    }
}

/// An answer that is forced from its first token to its last takes no sweep, and jobs, which count what they are told of,
/// reported 0 tokens of it.
#[test]
fn tokens_that_are_all_forced_at_once_are_told_of() {
    #[derive(Clone, Debug)]
    struct Word(usize);
    impl Constraint for Word {
        fn forced(&mut self) -> Result<Vec<u32>, Error> {
            Ok((20 + self.0 as u32..30).collect())
        }
        fn mask(&mut self, _: &mut [f32]) -> Result<(), Error> {
            Ok(())
        }
        fn accept(&mut self, _: u32) -> Result<(), Error> {
            self.0 += 1;
            Ok(())
        }
        fn ended(&self) -> bool {
            false
        }
        fn boxed_clone(&self) -> Box<dyn Constraint> {
            Box::new(self.clone())
        }
    }
    let request = Request {
        token_ids: vec![1, 2, 3],
        max_new_tokens: 4,
        constraint: Some(Box::new(Word(0))),
        ..Request::default()
    };
    let mut engine = engine(&fixture("llama"), &Options::default(), std::slice::from_ref(&request));
    let mut journal = Journal::new([request]);
    engine.run(&mut journal, None, &mut Silent).unwrap();
    assert_eq!(journal.gained[&0].0, [20, 21, 22, 23]);
    assert_eq!(journal.finished.len(), 1);
}

/// Stops at once after so many tiles, or in good order after so many sweeps.
struct Stop {
    tiles: usize,
    sweeps: usize,
}

impl Observer for Stop {
    fn progress(&mut self, _: &Progress) -> bool {
        self.tiles = self.tiles.saturating_sub(1);
        self.tiles == 0
    }

    fn enough(&mut self) -> bool {
        self.sweeps = self.sweeps.saturating_sub(1);
        self.sweeps == 0
    }
}

#[test]
fn an_interrupted_run_goes_on_from_its_journal_as_if_nothing_had_happened() {
    goes_on(&fixture("qwen2"));
}

#[test]
fn what_an_interrupted_run_did_to_recurrent_states_is_forgotten() {
    goes_on(&fixture("qwen3_5"));
}

fn goes_on(fixture: &Fixture) {
    let requests = requests(fixture);
    let want = alone(fixture, &Options::default(), &requests);
    let options = Options { rows_max: Some(30), ..Options::default() };
    for (tiles, sweeps) in [(0, 2), (0, 5), (0, 9), (5, 0), (130, 0), (333, 0)] {
        let mut engine = engine(fixture, &options, &requests);
        let mut journal = Journal::new(requests.iter().cloned());
        let end = engine.run(&mut journal, None, &mut Stop { tiles, sweeps }).unwrap();
        assert_eq!(end, RunEnd::Interrupted);
        for (id, so_far) in &journal.unfinished {
            assert_eq!(so_far.finish_reason, FinishReason::Interrupted);
            let told = journal.gained.get(id).map(|g| g.0.clone()).unwrap_or_default();
            assert!(so_far.token_ids.starts_with(&told));
        }
        let done = journal.results();
        let mut rest = Journal::new(requests.iter().filter(|r| !done.contains_key(&r.id)).map(|r| {
            let (resumed, resumed_logprobs) = journal.gained.get(&r.id).cloned().unwrap_or_default();
            Request { resumed, resumed_logprobs, ..r.clone() }
        }));
        engine.run(&mut rest, None, &mut Silent).unwrap();
        let all: BTreeMap<u64, Bits> = done.into_iter().chain(rest.results()).collect();
        assert_eq!(all, want);
    }
}

/// The prompt's log-probabilities are computed again, and those of the answer once came again with them: there were more than
/// tokens, and the answer never ended.
#[test]
fn an_answer_goes_on_though_all_of_its_prompt_is_wanted_again() {
    for name in ["llama", "granitemoehybrid"] {
        let fixture = fixture(name);
        let request = |id| Request {
            id,
            token_ids: fixture.prompts[0].ids.clone(),
            max_new_tokens: 12,
            stream: id,
            top_logprobs: Some(1),
            prompt_logprobs: Some(1),
            sampling: Sampling { temperature: 1.0, ..Sampling::default() },
            ..Request::default()
        };
        let requests: Vec<Request> = (0..2).map(request).collect();
        let mut engine = engine(&fixture, &Options { rows_max: Some(4), ..Options::default() }, &requests);
        let want = all(engine.generate(&requests, None, &mut Silent).unwrap().completions);
        for cut in [1, 5, 11] {
            let resumed = requests.iter().zip(&want).map(|(request, want)| {
                let logprobs = want.logprobs.iter().flatten().zip(want.top_logprobs.iter().flatten());
                let resumed_logprobs = logprobs.map(|(l, top)| TokenLogprobs {
                    logprob: *l,
                    top: top.clone(),
                    ..Default::default()
                });
                Request {
                    resumed: want.token_ids[..cut].to_vec(),
                    resumed_logprobs: resumed_logprobs.take(cut).collect(),
                    ..request.clone()
                }
            });
            let resumed: Vec<Request> = resumed.collect();
            let found = all(engine.generate(&resumed, None, &mut Silent).unwrap().completions);
            for (found, want) in found.iter().zip(&want) {
                assert_eq!(
                    (&found.token_ids, &found.logprobs),
                    (&want.token_ids, &want.logprobs),
                    "{name}, {cut}"
                );
                assert_eq!(found.prompt_logprobs, want.prompt_logprobs);
            }
        }
    }
}

#[test]
fn a_journal_that_holds_a_whole_answer_needs_no_sweep() {
    let fixture = fixture("llama");
    let request = Request {
        token_ids: vec![1, 2],
        resumed: vec![9, 7],
        max_new_tokens: 5,
        end_tokens: vec![7],
        ..Request::default()
    };
    let mut engine = engine(&fixture, &Options::default(), std::slice::from_ref(&request));
    let mut journal = Journal::new([request]);
    engine.run(&mut journal, None, &mut Silent).unwrap();
    assert_eq!(engine.stats().sweeps, 0);
    assert_eq!(journal.finished[&0].1, Bits::Answer(vec![9, 7], FinishReason::Stop, vec![], vec![]));
}

#[test]
fn an_error_of_the_caller_ends_the_run_and_leaves_the_engine_whole() {
    let fixture = fixture("llama");
    let requests = requests(&fixture);
    let mut engine = engine(&fixture, &Options::default(), &requests);
    for fails in ["next", "swept", "finished"] {
        let mut journal = Journal { fails: Some(fails), ..Journal::new(requests.iter().cloned()) };
        let error = engine.run(&mut journal, None, &mut Silent).expect_err(fails);
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Job, format!("{fails} failed")));
    }
    let mut journal = Journal::new(requests.iter().cloned());
    engine.run(&mut journal, None, &mut Silent).unwrap();
    assert_eq!(journal.results(), alone(&fixture, &Options::default(), &requests));
}

#[test]
fn a_bad_request_fails_alone() {
    let fixture = fixture("llama");
    let good = Request { id: 1, token_ids: vec![1, 2, 3], max_new_tokens: 4, ..Request::default() };
    let stuck = Box::new(Threes { left: 0, ..Threes::default() });
    let bad = [
        Request { token_ids: vec![], ..good.clone() },
        Request { token_ids: vec![1, 999_999], ..good.clone() },
        Request { stop: vec!["x".to_owned()], ..good.clone() },
        Request {
            sampling: Sampling { logit_bias: [(1, f32::NAN)].into(), ..Sampling::default() },
            ..good.clone()
        },
        Request { resumed: vec![999_999], ..good.clone() },
        Request { max_new_tokens: 1 << 40, ..good.clone() },
        Request { constraint: Some(stuck), resumed: vec![3], ..good.clone() },
    ];
    let mut all: Vec<Request> = bad.into_iter().zip(10..).map(|(r, id)| Request { id, ..r }).collect();
    all.insert(3, good.clone());
    let mut engine = engine(&fixture, &Options::default(), std::slice::from_ref(&good));
    let mut journal = Journal::new(all);
    engine.run(&mut journal, None, &mut Silent).unwrap();
    let results = journal.results();
    for id in 10..17 {
        assert_eq!(results[&id], Bits::Failed(ErrorKind::Usage), "{id}");
    }
    assert_eq!(results[&1], alone(&fixture, &Options::default(), &[good])[&1]);
}

/// Requests that begin alike: by a preamble, wholly, or not at all; some are answers of many to one prompt.
pub(crate) fn alike(fixture: &Fixture) -> Vec<Request> {
    let preamble: Vec<u32> = fixture.prompts.iter().flat_map(|p| p.ids.clone()).cycle().take(70).collect();
    (0..24)
        .map(|i: usize| {
            let own = (0..i as u32 % 5 * 4).map(|t| t * 7 % 90 + i as u32 % 3);
            let cut = [70, 64, 33, 9, 17][i % 5];
            let request = Request {
                id: i as u64,
                token_ids: preamble[..cut].iter().copied().chain(own).collect(),
                max_new_tokens: 20 + i * 17 % 70,
                stream: i as u64,
                sampling: Sampling { temperature: 1.1, seed: 5, ..Sampling::default() },
                ..Request::default()
            };
            match i % 8 {
                5 => Request { want: Want::Score { from: 50.min(cut - 1), logits_last: true }, ..request },
                6 => Request {
                    want: Want::Hidden(Hidden {
                        pooling: Some(if i > 10 { Pooling::LastToken } else { Pooling::Mean }),
                        ..Hidden::default()
                    }),
                    ..request
                },
                7 => Request { want: Want::TopK { k: 3, from: 8 }, ..request },
                _ => request,
            }
        })
        .collect()
}

#[test]
fn shared_prefixes_and_pages_on_disk_change_no_bits() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama_gqa_bf16", "gemma3", "llama_dynamic", "phi3_longrope", "opt"] {
        let fixture = fixture(name);
        let requests: Vec<Request> = alike(&fixture)
            .into_iter()
            .map(|r| Request { max_new_tokens: r.max_new_tokens.min(128 - r.token_ids.len()), ..r })
            .collect();
        let plain = Options { prefixes: Prefixes::Apart, ..Options::default() };
        let want = alone(&fixture, &plain, &requests);
        let (mut shared, mut spilled) = (0, 0);
        for (rows_max, pages) in [(None, None), (Some(9), Some(9)), (Some(50), Some(20))] {
            for prefixes in [Prefixes::Shared, Prefixes::Apart] {
                for spill in [None, Some(folder.path().to_owned())] {
                    let options = Options { rows_max, prefixes, spill, ..Options::default() };
                    let mut engine = engine_with_pages(&fixture, &options, &requests, pages);
                    let mut journal = Journal::new(requests.iter().rev().cloned());
                    assert_eq!(engine.run(&mut journal, None, &mut Silent).unwrap(), RunEnd::Done);
                    let way = format!("{name}, {rows_max:?} rows, {pages:?} pages, {prefixes:?}");
                    assert_eq!(journal.results(), want, "{way}");
                    let stats = engine.stats();
                    assert!(stats.shared_rows == 0 || prefixes == Prefixes::Shared, "{way}");
                    shared += stats.shared_rows;
                    spilled += stats.spilled_bytes;
                }
            }
        }
        assert!(shared > 0 && spilled > 0, "{name}: {shared} rows shared, {spilled} bytes spilled");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left on disk");
}

#[test]
fn sequences_wait_for_a_recurrent_state_and_share_none() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = fixture("qwen3_5_moe");
    let shorter = |r: Request| Request { max_new_tokens: r.max_new_tokens.min(20), ..r };
    let requests: Vec<Request> = alike(&fixture).into_iter().map(shorter).collect();
    let want = alone(&fixture, &Options::default(), &requests);
    for (rows_max, states) in [(None, None), (None, Some(1)), (Some(11), Some(3))] {
        let options = Options { rows_max, spill: Some(folder.path().to_owned()), ..Options::default() };
        let mut engine = engine_with(&fixture, &options, &requests, |plan| {
            assert_eq!(plan.state_bytes, plan.state_slots as u64 * plan.state_bytes_per_sequence);
            plan.state_slots = states.unwrap_or(plan.state_slots);
        });
        for _ in 0..2 {
            let mut journal = Journal::new(requests.iter().rev().cloned());
            assert_eq!(engine.run(&mut journal, None, &mut Silent).unwrap(), RunEnd::Done);
            assert_eq!(journal.results(), want, "{rows_max:?} rows, {states:?} states");
        }
        assert_eq!((engine.stats().shared_rows, engine.stats().spilled_bytes), (0, 0));
    }
}

/// With a KV cache of so many pages.
fn engine_with_pages(
    fixture: &Fixture,
    options: &Options,
    requests: &[Request],
    pages: Option<usize>,
) -> Engine {
    engine_with(fixture, options, requests, |plan| plan.kv_pages = pages.unwrap_or(plan.kv_pages))
}

/// With a plan that was changed.
pub(crate) fn engine_with(
    fixture: &Fixture,
    options: &Options,
    requests: &[Request],
    change: impl FnOnce(&mut Plan),
) -> Engine {
    let files = ModelFiles::open(&fixture.path).unwrap();
    let (need, parts) = (need(requests), Parts::of(&files, options).unwrap());
    let mut plan = Engine::plan_with(&files, options, &need, &parts).unwrap();
    change(&mut plan);
    Engine::open_planned(&files, options, (&need, plan), parts, &mut Silent).unwrap()
}

#[test]
fn a_disk_that_takes_no_pages_costs_time_but_no_bits() {
    let fixture = fixture("llama");
    let requests = alike(&fixture);
    let want = alone(&fixture, &Options::default(), &requests);
    let options = Options { spill: Some("/nowhere/at/all".into()), ..Options::default() };
    let mut engine = engine_with_pages(&fixture, &options, &requests, Some(12));
    let mut journal = Journal::new(requests);
    engine.run(&mut journal, None, &mut Silent).unwrap();
    assert_eq!(journal.results(), want);
    assert_eq!(engine.stats().spilled_bytes, 0);
}

#[test]
fn what_prompts_share_is_computed_once_and_kept_for_later_runs() {
    let fixture = fixture("llama");
    let prompt: Vec<u32> = (0..100).collect();
    let request = |stream| Request {
        token_ids: prompt.clone(),
        max_new_tokens: 3,
        stream,
        sampling: Sampling { temperature: 1.0, seed: 1, ..Sampling::default() },
        ..Request::default()
    };
    let requests: Vec<Request> = (0..10).map(request).collect();
    let mut engine = engine(&fixture, &Options::default(), &requests);
    engine.generate(&requests, None, &mut Silent).unwrap();
    // 96 of 100 tokens fill six pages; nine of ten sequences find them.
    assert_eq!((engine.stats().sweeps, engine.stats().shared_rows), (3, 9 * 96));
    assert_eq!(engine.stats().rows, 100 + 9 * 4 + 2 * 10);
    engine.generate(&requests[..1], None, &mut Silent).unwrap();
    assert_eq!(engine.stats().shared_rows, 10 * 96);
    // The tiles of one sweep are counted before the interruption; its pages are not trusted.
    let other = [Request { token_ids: (1..100).collect(), ..requests[0].clone() }];
    let mut stop = Stop { tiles: 3, sweeps: 0 };
    assert!(engine.generate(&other, None, &mut stop).unwrap().interrupted);
    let shared = engine.stats().shared_rows;
    engine.generate(&other, None, &mut Silent).unwrap();
    assert_eq!(engine.stats().shared_rows, shared);
}
