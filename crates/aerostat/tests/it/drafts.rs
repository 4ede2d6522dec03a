//! What is guessed shows in no result.

use std::sync::Arc;

use aerostat::{
    Completion, Draft, Engine, KvType, ModelFiles, Options, Parts, Prefixes, Request, Sampling, Silent, Stats,
};
use aerostat_testkit::{Fixture, fixture, fixtures};
use proptest::prelude::*;

use crate::all;

fn answer(fixture: &Fixture, options: &Options, requests: &[Request]) -> (Vec<Completion>, Stats) {
    let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
    let need = aerostat::generate::need(requests);
    let mut engine = Engine::open(&files, options, &need, &mut Silent).expect(&fixture.name);
    let answers = engine.generate(requests, None, &mut Silent).expect(&fixture.name);
    (all(answers.completions), engine.stats())
}

/// Everything of an answer, to the bit.
fn shown(answers: &[Completion]) -> Vec<String> {
    let bits = |c: &Completion| -> Vec<u32> {
        let of_prompt = c.prompt_logprobs.iter().flatten().flatten().map(|l| &l.logprob);
        c.logprobs.iter().flatten().chain(of_prompt).map(|l| l.to_bits()).collect()
    };
    answers.iter().map(|c| format!("{c:?} {:?}", bits(c))).collect()
}

/// Requests of all kinds, whose answers repeat themselves, as those of tiny models do.
fn requests(fixture: &Fixture) -> Vec<Request> {
    let greedy = |prompt: usize| Request {
        token_ids: fixture.prompts[prompt % fixture.prompts.len()].ids.clone(),
        max_new_tokens: 24,
        ..Request::default()
    };
    let warm = |temperature, seed| Sampling { temperature, seed, top_p: 0.9, ..Sampling::default() };
    let three = (0..3).map(|stream| Request { stream, sampling: warm(0.7, 5), ..greedy(0) });
    let mut all = vec![
        greedy(0),
        Request { top_logprobs: Some(2), prompt_logprobs: Some(1), ..greedy(1) },
        Request { sampling: warm(0.2, 1), ..greedy(2) },
        Request { sampling: warm(1.0, 2), top_logprobs: Some(0), ..greedy(0) },
        Request { sampling: Sampling { repetition_penalty: 1.1, ..Sampling::default() }, ..greedy(1) },
        Request { sampling: Sampling { frequency_penalty: 0.3, ..warm(0.7, 3) }, ..greedy(2) },
    ];
    all.extend(three);
    all
}

#[test]
fn every_model_answers_with_the_same_bits() {
    let (mut drafted, mut accepted) = (0, 0);
    for (number, fixture) in fixtures().into_iter().enumerate() {
        // Four kinds of requests for each.
        let mut requests = requests(&fixture);
        requests.rotate_left(number % 3 * 2);
        requests.truncate(4);
        let apart = Options { draft: Draft::None, ..Options::default() };
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        if files.spec().head.absent {
            continue;
        }
        let (want, plain) = answer(&fixture, &apart, &requests);
        assert_eq!((plain.drafted, plain.accepted), (0, 0));
        let (found, stats) = answer(&fixture, &Options::default(), &requests);
        assert_eq!(shown(&found), shown(&want), "{}", fixture.name);
        assert!(
            stats.sweeps <= plain.sweeps,
            "{}: {} sweeps, not {}",
            fixture.name,
            stats.sweeps,
            plain.sweeps
        );
        assert!(stats.accepted <= stats.drafted);
        drafted += stats.drafted;
        accepted += stats.accepted;
    }
    assert!(accepted > 300 && drafted > accepted, "{accepted} of {drafted}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_any_company_and_memory(
        which in any::<prop::sample::Index>(),
        kv in prop::sample::select(KvType::ALL),
        rows_max in prop::sample::select(vec![None, Some(2), Some(9), Some(60)]),
        prefill_chunk in prop::sample::select(vec![None, Some(1), Some(5)]),
        threads in 1usize..4,
        apart in any::<bool>(),
        spills in any::<bool>(),
        above in prop::sample::select(vec![None, Some(0), Some(3u64 << 20), Some(12 << 20)]),
        some in 1usize..9,
    ) {
        let all_fixtures = fixtures();
        let fixture = which.get(&all_fixtures);
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        prop_assume!(!files.spec().head.absent);
        let requests = &requests(fixture)[..some];
        let plain = Options { kv, draft: Draft::None, threads: Some(1), ..Options::default() };
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options {
            kv,
            rows_max,
            prefill_chunk,
            threads: Some(threads),
            prefixes: if apart { Prefixes::Apart } else { Prefixes::Shared },
            spill: spills.then(|| folder.path().to_owned()),
            pinned_bytes_max: Some(0),
            ..Options::default()
        };
        let (want, _) = answer(fixture, &plain, requests);
        // One reading of the machine's figures for both: the process grows meanwhile.
        let need = aerostat::generate::need(requests);
        let parts = Parts::of(&files, &options).expect(&fixture.name);
        if let Some(above) = above {
            let plan = Engine::plan_with(&files, &options, &need, &parts).expect(&fixture.name);
            options.memory_bytes = Some(plan.minimum_bytes + above);
        }
        let mut engine =
            Engine::open_with(&files, &options, &need, parts, &mut Silent).expect(&fixture.name);
        let found = engine.generate(requests, None, &mut Silent).expect(&fixture.name).completions;
        prop_assert_eq!(shown(&all(found)), shown(&want), "{}", fixture.name);
    }
}

/// What was written before is guessed, and most of it is right.
#[test]
fn an_answer_that_was_given_before_takes_few_sweeps() {
    let fixture = fixture("llama");
    let request =
        Request { token_ids: fixture.prompts[0].ids.clone(), max_new_tokens: 200, ..Request::default() };
    // Where weights are read in every sweep, and reading is slow.
    let options =
        Options { pinned_bytes_max: Some(0), read_bytes_per_second: Some(1e6), ..Options::default() };
    let files = ModelFiles::open(&fixture.path).unwrap();
    let need = aerostat::generate::need(std::slice::from_ref(&request));
    let mut engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
    let mut run = || {
        let before = engine.stats().sweeps;
        let answers = engine.generate(std::slice::from_ref(&request), None, &mut Silent).unwrap();
        (shown(&all(answers.completions)), engine.stats().sweeps - before)
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0, second.0);
    assert!(second.1 * 2 < first.1, "{} sweeps, then {}", first.1, second.1);
    let stats = engine.stats();
    assert!(stats.accepted > 100 && stats.tokens_per_sweep > 1.3, "{stats:?}");
}

/// A state cannot leave out a wrong guess: what follows is computed from a copy of before. A sweep without guesses right
/// after some that were right or wrong once gave other bits elsewhere.
#[test]
fn models_with_recurrent_states_guess_and_take_wrong_guesses_back() {
    for name in ["qwen3_next", "qwen3_5", "mamba2", "granitemoehybrid", "falcon_h1", "lfm2", "nemotron_h"] {
        let fixture = fixture(name);
        let slow = Options {
            pinned_bytes_max: Some(0),
            read_bytes_per_second: Some(1e5),
            threads: Some(1),
            ..Options::default()
        };
        let requests = requests(&fixture);
        let need = aerostat::generate::need(&requests);
        let files = ModelFiles::open(&fixture.path).unwrap();
        let (mut drafted, mut accepted) = (0, 0);
        for prefill_chunk in [None, Some(3)] {
            let options = Options { prefill_chunk, ..slow.clone() };
            let mut engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
            // What was answered before is guessed, rightly for the same question, and wrongly for one like it.
            for list in
                [&requests[..1], &requests[..1], &requests[3..4], &requests, &requests[4..5], &requests]
            {
                let (want, _) = answer(&fixture, &Options { draft: Draft::None, ..slow.clone() }, list);
                let found = engine.generate(list, None, &mut Silent).unwrap().completions;
                assert_eq!(shown(&all(found)), shown(&want), "{name}");
            }
            let stats = engine.stats();
            (drafted, accepted) = (drafted + stats.drafted, accepted + stats.accepted);
        }
        assert!(accepted > 10 && drafted > accepted, "{name}: {accepted} of {drafted}");
    }
}

/// A copy of the model itself is right about everything; another model about little. Neither shows.
#[test]
fn a_small_model_guesses_and_nothing_shows() {
    let slow =
        || Options { pinned_bytes_max: Some(0), read_bytes_per_second: Some(1e5), ..Options::default() };
    let pairs = [
        ("llama", "llama", 60),
        ("llama", "llama_gqa_bf16", 0),
        ("llama", "gemma3", 0),
        ("mamba2", "llama", 0),
        ("qwen3_next", "llama", 0),
    ];
    for (name, small, least) in pairs {
        let fixture = fixture(name);
        let requests = requests(&fixture);
        let (want, _) = answer(&fixture, &Options { draft: Draft::None, ..slow() }, &requests);
        let mut accepted = 0;
        let files = Arc::new(ModelFiles::open(&aerostat_testkit::fixture(small).path).unwrap());
        let options = Options { draft: Draft::Model(files), ..slow() };
        let (found, _) = answer(&fixture, &options, &requests);
        assert_eq!(shown(&found), shown(&want), "{name} by {small}");
        for (request, want) in requests.iter().zip(&want) {
            let (found, stats) = answer(&fixture, &options, std::slice::from_ref(request));
            assert_eq!(found[0].token_ids, want.token_ids, "{name} by {small}");
            accepted += stats.accepted;
        }
        assert!(accepted >= least, "{name} by {small}: {accepted}");
    }
    // A model that keeps states guesses for others no branches: its guesses were wrong, and nothing said so.
    let states = Arc::new(ModelFiles::open(&aerostat_testkit::fixture("mamba2").path).unwrap());
    let options = Options { draft: Draft::Model(states), ..slow() };
    let fixture = fixture("llama");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let need = aerostat::generate::need(&requests(&fixture));
    let error = Engine::open(&files, &options, &need, &mut Silent).map(drop).unwrap_err();
    assert!(error.to_string().contains("recurrent states"), "{error}");
}

/// Of the models on a machine the largest that can guess does, where reading takes longer than its guesses; else none.
#[test]
fn the_best_small_model_of_a_machine_is_found() {
    let path = |name: &str| aerostat_testkit::fixture(name).path;
    let files = ModelFiles::open(&path("falcon_rw")).unwrap();
    let of_other_tokens = path("llama").with_file_name("chat");
    let paths =
        [path("gemma"), path("falcon_rw"), path("mamba2"), of_other_tokens, "nowhere".into(), path("llama")];
    let with = |rate, paths: &[_]| {
        let options =
            Options { pinned_bytes_max: Some(0), read_bytes_per_second: Some(rate), ..Options::default() };
        let found = aerostat::best_draft(&files, &options, Some(64), paths).unwrap();
        found.map(|small| small.path().to_owned())
    };
    assert_eq!(with(1e5, &paths), Some(path("llama")));
    assert_eq!(with(1e5, &paths[..5]), Some(path("gemma")));
    assert_eq!((with(1e15, &paths), with(1e5, &paths[1..5])), (None, None));
}
