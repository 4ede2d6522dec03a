//! The bits of a result depend on none of the ways in which it can be computed.

use aerostat::{
    Device, Engine, IoChoice, Isa, KvType, ModelFiles, Options, Request, Sampling, Score, Silent,
};
use aerostat_testkit::{Fixture, fixture, fixtures};

use crate::all;
use crate::budget::score_within;
use crate::experts::mixtures;
use proptest::prelude::*;

fn score(fixture: &Fixture, options: &Options, sequences: &[Vec<u32>]) -> Vec<Score> {
    let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
    let need = aerostat::score::need(sequences, true);
    let mut engine = Engine::open(&files, options, &need, &mut Silent).expect(&fixture.name);
    all(engine.score(sequences, true, &mut Silent).expect(&fixture.name))
}

/// The fixtures whose sequences have a recurrent state.
fn stateful() -> Vec<Fixture> {
    let keeps =
        |fixture: &Fixture| ModelFiles::open(&fixture.path).expect(&fixture.name).spec().state_elements() > 0;
    fixtures().into_iter().filter(keeps).collect()
}

/// Bits, so that even the sign of a zero counts.
fn bits(score: &Score) -> Vec<u32> {
    let logprobs = score.logprobs.iter().flatten();
    logprobs.chain(score.logits_last.iter().flatten()).map(|f| f.to_bits()).collect()
}

/// One way to compute.
#[derive(Clone, Debug)]
struct Way {
    options: Options,
    /// Other sequences in the same run, before and after.
    company: usize,
    /// The budget, in bytes above the smallest that works; `None`: none is named.
    above: Option<u64>,
}

/// The ways to read that this system has: a kernel may refuse io_uring, a file system direct reads.
fn io_choices() -> Vec<IoChoice> {
    let all = [IoChoice::Auto, IoChoice::Direct, IoChoice::Uring, IoChoice::Buffered];
    let fixtures = fixtures();
    let files = ModelFiles::open(&fixtures[0].path).expect("the first fixture");
    let works = |io: &IoChoice| {
        let options = Options { io: *io, ..Options::default() };
        let need = aerostat::score::need(&[vec![0]], true);
        let works = Engine::open(&files, &options, &need, &mut Silent).is_ok();
        if !works {
            eprintln!("skipped: {io:?} does not work here");
        }
        works
    };
    all.into_iter().filter(works).collect()
}

fn ways() -> impl Strategy<Value = Way> {
    let isa = prop::sample::select(Isa::available().collect::<Vec<_>>());
    let device = prop_oneof![4 => Just(Device::Cpu), 1 => Just(Device::Reference)];
    let io = prop::sample::select(io_choices());
    let pinned = prop_oneof![Just(Some(0)), (0u64..200_000).prop_map(Some), Just(None)];
    let tile = prop::sample::select(vec![None, Some(1), Some(700), Some(5_000), Some(60_000)]);
    let chunk = prop::sample::select(vec![None, Some(1), Some(7)]);
    let rows = prop::sample::select(vec![None, Some(1), Some(3), Some(20)]);
    let machine = (isa, device, io, 1usize..4);
    let above = prop_oneof![Just(Some(0)), (0u64..64 << 20).prop_map(Some), Just(None)];
    let company = (prop::sample::select(vec![0usize, 16]), above);
    (machine, pinned, tile, chunk, rows, company).prop_map(
        |((isa, device, io, threads), pinned_bytes_max, tile_bytes, prefill_chunk, rows_max, company)| Way {
            options: Options {
                device,
                isa: Some(isa),
                io,
                threads: Some(threads),
                tile_bytes,
                pinned_bytes_max,
                prefill_chunk,
                rows_max,
                ..Options::default()
            },
            company: company.0,
            above: company.1,
        },
    )
}

/// Whether a way of computing gives a fixture's bits.
fn agrees(fixture: &Fixture, way: &Way, kv: KvType) -> Result<(), TestCaseError> {
    let prompts: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
    let plain = Options { kv, threads: Some(1), isa: Some(Isa::Portable), ..Options::default() };
    let want: Vec<_> =
        prompts.iter().map(|p| bits(&score(fixture, &plain, std::slice::from_ref(p))[0])).collect();
    // The prompts among others: copies of them, cut to various lengths.
    let other = |i: usize| {
        let p = &prompts[i % prompts.len()];
        p[..p.len().min(1 + i)].to_vec()
    };
    let half = way.company / 2;
    let mut sequences: Vec<Vec<u32>> = (0..half).map(other).collect();
    sequences.extend(prompts.iter().cloned());
    sequences.extend((half..way.company).map(other));
    let options = Options { kv, ..way.options.clone() };
    let found = match way.above {
        Some(above) => score_within(fixture, &options, &sequences, above),
        None => score(fixture, &options, &sequences),
    };
    for (i, want) in want.iter().enumerate() {
        prop_assert_eq!(&bits(&found[half + i]), want, "{}, prompt {}", fixture.name, i);
    }
    Ok(())
}

/// The fixtures whose matrices are codes with scales beside them.
fn coded() -> Vec<Fixture> {
    let is_coded = |fixture: &Fixture| {
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        files.spec().matrices().any(|matrix| matrix.scales.is_some())
    };
    fixtures().into_iter().filter(is_coded).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_way_of_computing_gives_the_same_bits(
        way in ways(),
        which in any::<prop::sample::Index>(),
        kv in prop::sample::select(KvType::ALL),
    ) {
        agrees(which.get(&fixtures()), &way, kv)?;
    }

    #[test]
    fn of_codes_too(way in ways(), which in any::<prop::sample::Index>(), kv in prop::sample::select(KvType::ALL)) {
        agrees(which.get(&coded()), &way, kv)?;
    }

    #[test]
    fn with_experts_too(way in ways(), which in any::<prop::sample::Index>(), kv in prop::sample::select(KvType::ALL)) {
        agrees(which.get(&mixtures()), &way, kv)?;
    }

    #[test]
    fn with_recurrent_states_too(
        way in ways(),
        which in any::<prop::sample::Index>(),
        kv in prop::sample::select(KvType::ALL),
    ) {
        agrees(which.get(&stateful()), &way, kv)?;
    }
}

#[test]
fn a_seed_gives_the_same_text_alone_and_in_a_crowd() {
    let fixture = fixture("llama_gqa_bf16");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let request = |prompt: usize, seed: u64| Request {
        token_ids: fixture.prompts[prompt].ids.clone(),
        max_new_tokens: 12,
        sampling: Sampling { temperature: 1.5, top_p: 0.95, seed, ..Sampling::default() },
        ..Request::default()
    };
    let run = |requests: &[Request], rows_max: Option<usize>| -> Vec<Vec<u32>> {
        let options = Options { rows_max, ..Options::default() };
        let need = aerostat::generate::need(requests);
        let mut engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
        let answers = engine.generate(requests, None, &mut Silent).unwrap();
        all(answers.completions).into_iter().map(|c| c.token_ids).collect()
    };
    let requests: Vec<Request> = (0..12).map(|i| request(i % 3, i as u64)).collect();
    let together = run(&requests, None);
    assert_eq!(run(&requests, Some(2)), together);
    for (request, want) in requests.iter().zip(&together) {
        assert_eq!(&run(std::slice::from_ref(request), None)[0], want);
    }
    assert_ne!(together[0], together[3], "another seed, another text");
}

#[test]
fn one_engine_serves_many_runs() {
    let fixture = fixture("gemma3");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let sequences: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
    let options = Options { pinned_bytes_max: Some(0), ..Options::default() };
    let mut engine =
        Engine::open(&files, &options, &aerostat::score::need(&sequences, true), &mut Silent).unwrap();
    let first: Vec<_> = all(engine.score(&sequences, true, &mut Silent).unwrap()).iter().map(bits).collect();
    let second: Vec<_> = all(engine.score(&sequences, true, &mut Silent).unwrap()).iter().map(bits).collect();
    assert_eq!(first, second);
}
