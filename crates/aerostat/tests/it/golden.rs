//! Every fixture against what transformers computed for it.

use aerostat::{Engine, KvType, ModelFiles, Options, Request, Silent};
use aerostat_testkit::{Fixture, Prompt, fixtures};

use crate::all;

/// Real models are held to 2e-3 and 2e-2; these are tiny and allow less.
pub(crate) const LOGPROB_TOLERANCE: f32 = 3e-4;
pub(crate) const LOGIT_TOLERANCE: f32 = 3e-4;
/// With keys and values of eight bits; wrong ones move logits by whole numbers.
const EIGHT_BITS_TOLERANCE: f32 = 0.4;

pub(crate) fn exact() -> Options {
    Options { kv: KvType::F32, threads: Some(2), ..Options::default() }
}

#[test]
fn scores_and_logits_agree_with_transformers() {
    let mut failures = Vec::new();
    for fixture in fixtures() {
        match check_scores(&fixture, &exact(), (LOGPROB_TOLERANCE, LOGIT_TOLERANCE)) {
            Ok(worst) => println!("{}: logits differ by up to {worst:e}", fixture.name),
            Err(e) => failures.push(format!("{}: {e}", fixture.name)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Models without experts: a little less precision could choose others.
#[test]
fn keys_and_values_of_eight_bits_are_near() {
    let eight = Options { kv: KvType::Q8All, ..exact() };
    let mut worst = 0.0f32;
    for fixture in fixtures() {
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        let chooses = |b: &aerostat_arch::Block| b.experts.is_some();
        if !files.spec().blocks.iter().any(chooses) {
            worst = worst.max(check_scores(&fixture, &eight, (f32::MAX, EIGHT_BITS_TOLERANCE)).unwrap());
        }
    }
    assert!(worst > LOGIT_TOLERANCE, "nothing was lost: {worst:e}");
}

/// Gives the largest difference of logits.
fn check_scores(
    fixture: &Fixture,
    options: &Options,
    (logprob_tolerance, logit_tolerance): (f32, f32),
) -> Result<f32, String> {
    let files = ModelFiles::open(&fixture.path).map_err(|e| e.to_string())?;
    compare_scores(&files, &fixture.prompts, options, (logprob_tolerance, logit_tolerance))
}

/// The same of a model that is open, with prompts of the caller's.
pub(crate) fn compare_scores(
    files: &ModelFiles,
    prompts: &[Prompt],
    options: &Options,
    (logprob_tolerance, logit_tolerance): (f32, f32),
) -> Result<f32, String> {
    let sequences: Vec<Vec<u32>> = prompts.iter().map(|p| p.ids.clone()).collect();
    let need = aerostat::score::need(&sequences, true);
    let mut engine = Engine::open(files, options, &need, &mut Silent).map_err(|e| e.to_string())?;
    let scores = all(engine.score(&sequences, true, &mut Silent).map_err(|e| e.to_string())?);
    let mut largest = 0.0f32;
    for (score, want) in scores.iter().zip(prompts) {
        let n = want.ids.len();
        for (i, (found, want)) in score.logprobs.iter().zip(&want.logprobs).enumerate() {
            match (found, want) {
                (None, None) => {}
                (Some(f), Some(w)) if (f - w).abs() <= logprob_tolerance => {}
                _ => {
                    return Err(format!(
                        "prompt of {n}: log-probability {i} is {found:?}, expected {want:?}"
                    ));
                }
            }
        }
        let logits = score.logits_last.as_ref().ok_or("no logits")?;
        let worst = logits.iter().zip(&want.logits_last).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if worst.is_nan() || worst > logit_tolerance || logits.len() != want.logits_last.len() {
            return Err(format!("prompt of {n}: logits differ by up to {worst}"));
        }
        largest = largest.max(worst);
    }
    Ok(largest)
}

#[test]
fn greedy_continuations_equal_transformers() {
    let mut failures = Vec::new();
    for fixture in fixtures() {
        // All prompts of a fixture ride on the same sweeps.
        let request = |p: &aerostat_testkit::Prompt| Request {
            token_ids: p.ids.clone(),
            max_new_tokens: p.greedy.len(),
            ..Request::default()
        };
        let requests: Vec<Request> = fixture.prompts.iter().map(request).collect();
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        let need = aerostat::generate::need(&requests);
        let mut engine = Engine::open(&files, &exact(), &need, &mut Silent).expect(&fixture.name);
        let answers = engine.generate(&requests, None, &mut Silent).expect(&fixture.name);
        for (answer, prompt) in all(answers.completions).iter().zip(&fixture.prompts) {
            if answer.token_ids != prompt.greedy {
                failures.push(format!(
                    "{}, prompt of {}: {:?}, expected {:?}",
                    fixture.name,
                    prompt.ids.len(),
                    answer.token_ids,
                    prompt.greedy
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
