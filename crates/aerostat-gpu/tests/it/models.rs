//! Whole models.

use aerostat::{Device, Engine, Hidden, KvType, ModelFiles, Options, Request, Silent};
use aerostat_gpu::UploadPath;
use aerostat_testkit::{Fixture, encoders, fixture, fixtures};

/// Of logits, in parts of the largest.
const LOGIT_TOLERANCE: f32 = 2e-3;

pub(crate) fn all<T>(results: Vec<Result<T, aerostat::Error>>) -> Vec<T> {
    results.into_iter().map(|result| result.expect("every request has a result")).collect()
}

pub(crate) fn options() -> Options {
    Options {
        device: Device::Gpu(None),
        kv: KvType::F32,
        threads: Some(1),
        read_bytes_per_second: Some(1e9),
        draft: aerostat::Draft::None,
        ..Options::default()
    }
}

/// Logits of the last tokens are transformers' within the tolerance, and greedy answers are the CPU's.
fn check(fixture: &Fixture) -> Result<f32, String> {
    let files = ModelFiles::open(&fixture.path).map_err(|e| e.to_string())?;
    let sequences: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
    let requests: Vec<Request> = fixture
        .prompts
        .iter()
        .map(|p| Request { token_ids: p.ids.clone(), max_new_tokens: p.greedy.len(), ..Request::default() })
        .collect();
    let mut need = aerostat::score::need(&sequences, true);
    need.merge(&aerostat::generate::need(&requests));
    let mut engine = Engine::open(&files, &options(), &need, &mut Silent).map_err(|e| e.to_string())?;
    let scores = engine.score(&sequences, true, &mut Silent).map_err(|e| e.to_string())?;
    let mut worst = 0.0f32;
    for (score, want) in all(scores).iter().zip(&fixture.prompts) {
        let logits = score.logits_last.as_ref().ok_or("no logits")?;
        let largest = want.logits_last.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
        for (found, want) in logits.iter().zip(&want.logits_last) {
            let error = (found - want).abs() / largest;
            if error.is_nan() || error > LOGIT_TOLERANCE {
                return Err(format!("a logit is {found}, not {want}, of {largest} at most"));
            }
            worst = worst.max(error);
        }
    }
    let answers = engine.generate(&requests, None, &mut Silent).map_err(|e| e.to_string())?;
    for (answer, prompt) in all(answers.completions).iter().zip(&fixture.prompts) {
        if answer.token_ids != prompt.greedy {
            return Err(format!("the answer is {:?}, not {:?}", answer.token_ids, prompt.greedy));
        }
    }
    Ok(worst)
}

/// Every `of`-th fixture from the `part`-th on.
fn check_part(part: usize, of: usize) {
    // As long as it is open, kernels that were compiled stay so.
    let device = crate::open(None, UploadPath::Auto);
    let (mut failures, mut worst) = (0, (0.0, String::new()));
    for fixture in fixtures().into_iter().skip(part).step_by(of) {
        match check(&fixture) {
            Ok(error) if error > worst.0 => worst = (error, fixture.name),
            Ok(_) => {}
            Err(message) => {
                println!("{}: {message}", fixture.name);
                failures += 1;
            }
        }
    }
    println!("the worst logit is off by {:e} of the largest, in {}", worst.0, worst.1);
    assert_eq!(failures, 0, "fixtures fail");
    crate::shaders::assert_listed(&device);
}

#[test]
fn every_fixture_gives_its_logits_and_greedy_answers_1() {
    check_part(0, 4);
}

#[test]
fn every_fixture_gives_its_logits_and_greedy_answers_2() {
    check_part(1, 4);
}

#[test]
fn every_fixture_gives_its_logits_and_greedy_answers_3() {
    check_part(2, 4);
}

#[test]
fn every_fixture_gives_its_logits_and_greedy_answers_4() {
    check_part(3, 4);
}

/// Bits of logits depend on neither what stays where, nor tiles, chunks and company.
#[test]
fn memory_tiles_chunks_and_company_do_not_show() {
    let _open = crate::boxed(UploadPath::Auto);
    for name in
        ["llama", "qwen3_moe", "gemma3", "qwen3_next", "deepseek_v3", "gguf_k_mixed/twin.gguf", "gpt2"]
    {
        let Some(fixture) = fixtures().into_iter().find(|f| f.name == name) else { continue };
        let files = ModelFiles::open(&fixture.path).expect(name);
        let sequences: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
        let bits = |options: Options, sequences: &[Vec<u32>]| -> Vec<u32> {
            let need = aerostat::score::need(sequences, true);
            let mut engine = Engine::open(&files, &options, &need, &mut Silent).expect(name);
            let scores = all(engine.score(sequences, true, &mut Silent).expect(name));
            scores[0].logits_last.iter().flatten().map(|v| v.to_bits()).collect()
        };
        let want = bits(options(), &sequences);
        let ways = [
            Options { pinned_bytes_max: Some(0), ..options() },
            Options { vram_bytes: Some(64 << 20), tile_bytes: Some(3000), ..options() },
            Options { pinned_bytes_max: Some(60_000), prefill_chunk: Some(3), ..options() },
            Options { rows_max: Some(2), ..options() },
        ];
        for way in ways {
            assert_eq!(bits(way.clone(), &sequences), want, "{name}: {way:?}");
            assert_eq!(bits(way, &sequences[..1]), want, "{name}, alone");
        }
    }
}

/// Means of the last hidden states, as attention that looks both ways and biases by distance give them.
#[test]
fn every_encoder_gives_its_vectors() {
    let _open = crate::boxed(UploadPath::Auto);
    let mut checked = 0;
    for (folder, texts) in encoders() {
        let files = ModelFiles::open(&folder).unwrap_or_else(|e| panic!("{e}"));
        let texts: Vec<_> = texts.into_iter().filter(|text| text.second.is_none()).collect();
        let sequences: Vec<Vec<u32>> = texts.iter().map(|text| text.ids.clone()).collect();
        let need = aerostat::embed::need(&sequences);
        let mut engine =
            Engine::open(&files, &options(), &need, &mut Silent).unwrap_or_else(|e| panic!("{e}"));
        let found = all(engine.embed(&sequences, Hidden::default(), &mut Silent).unwrap());
        for (found, text) in found.iter().zip(&texts) {
            let largest = text.mean.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
            let error = found.iter().zip(&text.mean).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert_eq!(found.len(), text.mean.len());
            assert!(error <= LOGIT_TOLERANCE * largest, "{}: {error} of {largest}", folder.display());
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

/// Recurrent states are copied within the memory that they are kept in.
#[test]
fn wrong_guesses_are_taken_back_from_recurrent_states() {
    let fixture = fixture("lfm2");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let token_ids = fixture.prompts[0].ids.clone();
    let request = |seed| Request {
        token_ids: token_ids.clone(),
        max_new_tokens: 24,
        sampling: aerostat::Sampling { temperature: 0.7, seed, ..Default::default() },
        ..Request::default()
    };
    let run = |draft| {
        let options =
            Options { draft, pinned_bytes_max: Some(0), read_bytes_per_second: Some(1e5), ..options() };
        let need = aerostat::generate::need(&[request(1)]);
        let mut engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
        // The second is guessed from the first, to a point.
        let answer = |seed| all(engine.generate(&[request(seed)], None, &mut Silent).unwrap().completions);
        let answers: Vec<_> = [1, 1, 2].map(answer).into_iter().flatten().map(|a| a.token_ids).collect();
        (answers, engine.stats())
    };
    let ((want, _), (found, stats)) = (run(aerostat::Draft::None), run(aerostat::Draft::Texts));
    assert_eq!(found, want);
    assert!(stats.accepted > 5 && stats.drafted > stats.accepted, "{stats:?}");
}
