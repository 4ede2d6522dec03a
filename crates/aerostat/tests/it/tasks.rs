//! Answers end where they should and say why.

use aerostat::{Engine, FinishReason, ModelFiles, Options, Request, Sampling, Silent, Tokenizer};
use aerostat_testkit::{fixture, fixtures_dir};

fn generate(files: &ModelFiles, tokenizer: Option<&Tokenizer>, requests: &[Request]) -> aerostat::Answers {
    let need = aerostat::generate::demand(requests);
    let mut engine = Engine::open(files, &Options::default(), &need, &mut Silent).unwrap();
    engine.generate(requests, tokenizer, &mut Silent).unwrap()
}

#[test]
fn an_answer_ends_at_an_end_token_or_its_length() {
    let fixture = fixture("llama");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let prompt = &fixture.prompts[1];
    let free = Request { token_ids: prompt.ids.clone(), max_new_tokens: 10, ..Request::default() };
    let ended = Request { end_tokens: vec![prompt.greedy[4]], ..free.clone() };
    let nothing = Request { max_new_tokens: 0, ..free.clone() };
    let answers = generate(&files, None, &[free, ended, nothing]).completions;
    assert_eq!((answers[0].token_ids.len(), answers[0].finish_reason), (10, FinishReason::Length));
    let at = prompt.greedy.iter().position(|t| *t == prompt.greedy[4]).unwrap();
    assert_eq!(
        (&answers[1].token_ids[..], answers[1].finish_reason),
        (&prompt.greedy[..=at], FinishReason::Stop)
    );
    assert_eq!((answers[2].token_ids.len(), answers[2].finish_reason), (0, FinishReason::Length));
}

#[test]
fn a_stop_string_ends_an_answer_and_is_not_part_of_it() {
    let files = ModelFiles::open(&fixtures_dir().join("chat")).unwrap();
    let tokenizer = files.tokenizer().unwrap().unwrap();
    let token_ids = tokenizer.encode("the hills", true).unwrap();
    let free = Request { token_ids, max_new_tokens: 20, ..Request::default() };
    let whole =
        generate(&files, Some(&tokenizer), std::slice::from_ref(&free)).completions.remove(0).text.unwrap();
    let letters: Vec<char> = whole.chars().collect();
    let stop: String = letters[5..8].iter().collect();
    let answer = generate(&files, Some(&tokenizer), &[Request { stop: vec![stop.clone()], ..free }])
        .completions
        .remove(0);
    let want = &whole[..whole.find(&stop).unwrap()];
    assert_eq!((answer.text.as_deref(), answer.finish_reason), (Some(want), FinishReason::Stop));
}

#[test]
fn the_makers_sampling_and_end_tokens_are_the_defaults() {
    let files = ModelFiles::open(&fixtures_dir().join("chat")).unwrap();
    let want = Sampling { temperature: 0.7, top_k: 40, top_p: 0.9, ..Sampling::default() };
    assert_eq!(files.sampling(), want);
    assert_eq!(files.end_tokens(None), [0, 2]);
    let greedy = ModelFiles::open(&fixture("llama").path).unwrap();
    assert_eq!(greedy.sampling(), Sampling::default());
}

#[test]
fn log_probabilities_of_an_answer_are_those_of_scoring_it() {
    let fixture = fixture("gemma2");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let request = Request {
        token_ids: fixture.prompts[2].ids.clone(),
        max_new_tokens: 6,
        top_logprobs: Some(0),
        ..Request::default()
    };
    let answer = generate(&files, None, &[request]).completions.remove(0);
    let whole = [answer.prompt_token_ids, answer.token_ids].concat();
    let need = aerostat::score::demand(std::slice::from_ref(&whole), true);
    let mut engine = Engine::open(&files, &Options::default(), &need, &mut Silent).unwrap();
    let score = engine.score(&[whole], false, &mut Silent).unwrap().remove(0);
    let scored: Vec<f32> =
        score.logprobs[fixture.prompts[2].ids.len()..].iter().map(|p| p.unwrap()).collect();
    assert_eq!(answer.logprobs.unwrap(), scored);
}
