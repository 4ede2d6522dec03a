//! How tokens are chosen, what ends an answer, and what is told of it.

use std::sync::{Arc, Mutex};

use aerostat::{
    Completion, Engine, Error, ErrorKind, FinishReason, Hook, Layer, ModelFiles, Options, Request, Sampling,
    SharedHook, Silent, StopReason, TokenRules, Tokenizer,
};
use aerostat_testkit::{fixture, fixtures_dir};

fn answers(
    files: &ModelFiles,
    tokenizer: Option<&Tokenizer>,
    requests: &[Request],
) -> Vec<Result<Completion, Error>> {
    let need = aerostat::generate::need(requests);
    let mut engine = Engine::open(files, &Options::default(), &need, &mut Silent).unwrap();
    engine.generate(requests, tokenizer, &mut Silent).unwrap().completions
}

fn answer(files: &ModelFiles, tokenizer: Option<&Tokenizer>, request: Request) -> Completion {
    answers(files, tokenizer, &[request]).remove(0).unwrap()
}

fn rules(rules: TokenRules) -> Sampling {
    Sampling { rules: Arc::new(rules), ..Sampling::default() }
}

#[test]
fn what_ended_an_answer_is_told() {
    let files = ModelFiles::open(&fixtures_dir().join("chat")).unwrap();
    let tokenizer = files.tokenizer().unwrap().unwrap();
    let token_ids = tokenizer.encode("the hills", true).unwrap();
    let free = Request { token_ids, max_new_tokens: 20, ..Request::default() };
    let whole = answer(&files, Some(&tokenizer), free.clone());
    let text = whole.text.unwrap();
    assert_eq!((whole.finish_reason, whole.stop_reason), (FinishReason::Length, None));
    let letters: Vec<char> = text.chars().collect();
    let stop: String = letters[5..8].iter().collect();
    let up_to = text.find(&stop).unwrap();
    let told = Some(StopReason::Text(stop.clone()));
    let stopped = Request { stop: vec![stop.clone()], ..free.clone() };
    let found = answer(&files, Some(&tokenizer), stopped.clone());
    assert_eq!((found.text.as_deref(), &found.stop_reason), (Some(&text[..up_to]), &told));
    let found = answer(&files, Some(&tokenizer), Request { include_stop: true, ..stopped.clone() });
    assert_eq!((found.text.as_deref(), &found.stop_reason), (Some(&text[..up_to + stop.len()]), &told));
    // Found in what comes after the shortest answer alone, if at all.
    let rules = rules(TokenRules { min_tokens: 20, ..TokenRules::default() });
    let found = answer(&files, Some(&tokenizer), Request { sampling: rules, ..stopped });
    assert_eq!((found.text.as_deref(), found.finish_reason), (Some(&text[..]), FinishReason::Length));
    // An end token is no reason of the request's own; a token that it names is.
    let token = whole.token_ids[4];
    let ended = Request { end_tokens: vec![token], ..free.clone() };
    assert_eq!(answer(&files, Some(&tokenizer), ended.clone()).stop_reason, None);
    let named = Request { stop_token_ids: vec![token], ignore_eos: true, ..ended.clone() };
    assert_eq!(answer(&files, Some(&tokenizer), named).stop_reason, Some(StopReason::Token(token)));
    let ignored = answer(&files, Some(&tokenizer), Request { ignore_eos: true, ..ended.clone() });
    assert_eq!(ignored.token_ids, whole.token_ids);
    let without = answer(&files, Some(&tokenizer), ended.clone()).text.unwrap();
    let with = answer(&files, Some(&tokenizer), Request { include_stop: true, ..ended }).text.unwrap();
    assert_eq!(with, without + &tokenizer.decode(&[token], true));
}

/// The prompt's and the answer's log-probabilities in one request are those of a score of both; chunks do not show.
#[test]
fn a_prompt_is_scored_together_with_its_answer() {
    let fixture = fixture("llama");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let prompt = fixture.prompts.iter().max_by_key(|p| p.ids.len()).unwrap();
    let request = Request {
        token_ids: prompt.ids.clone(),
        max_new_tokens: 4,
        top_logprobs: Some(2),
        prompt_logprobs: Some(3),
        ..Request::default()
    };
    let only = Request { max_new_tokens: 0, top_logprobs: None, ..request.clone() };
    let one = Request { token_ids: vec![5], ..only.clone() };
    let chunked = Options { prefill_chunk: Some(3), ..Options::default() };
    for options in [Options::default(), chunked] {
        let requests = [request.clone(), only.clone(), one.clone()];
        let need = aerostat::generate::need(&requests);
        let mut engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
        let found = engine.generate(&requests, None, &mut Silent).unwrap().completions;
        let found: Vec<Completion> = found.into_iter().map(Result::unwrap).collect();
        let all = [&prompt.ids[..], &found[0].token_ids].concat();
        let scores = engine.score(&[all], false, &mut Silent).unwrap().remove(0).unwrap();
        let of_prompt = found[0].prompt_logprobs.as_ref().unwrap();
        assert_eq!(of_prompt.len(), prompt.ids.len());
        let logprobs = of_prompt.iter().map(|l| l.as_ref().map(|l| l.logprob));
        let logprobs = logprobs.chain(found[0].logprobs.iter().flatten().map(|l| Some(*l)));
        assert_eq!(logprobs.collect::<Vec<_>>(), scores.logprobs);
        for known in of_prompt.iter().flatten() {
            assert_eq!(known.top.len(), 3);
            assert_eq!(known.rank == 1, known.top[0].1 == known.logprob);
        }
        assert_eq!(found[0].ranks.as_deref(), Some(&[1, 1, 1, 1][..]), "greedy answers are the likeliest");
        assert_eq!(found[1].prompt_logprobs.as_ref(), Some(of_prompt));
        assert_eq!((found[1].token_ids.len(), found[1].finish_reason), (0, FinishReason::Length));
        assert_eq!(found[2].prompt_logprobs, Some(vec![None]));
    }
}

/// Bans the likeliest token, ends after three, and keeps what it sees.
#[derive(Clone, Default)]
struct Second(Arc<Mutex<Vec<usize>>>);

impl Hook for Second {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<(), Error> {
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        logits[best] = f32::NEG_INFINITY;
        Ok(())
    }

    fn logits(&mut self, position: usize, _: &[f32]) -> Result<(), Error> {
        self.0.lock().unwrap().push(position);
        Ok(())
    }

    fn stops(&mut self, tokens: &[u32]) -> Result<bool, Error> {
        Ok(tokens.len() == 6)
    }
}

struct Failing;

impl Hook for Failing {
    fn process(&mut self, _: &[u32], _: &mut [f32]) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Job, "the caller's own"))
    }
}

struct NotNumbers;

impl Hook for NotNumbers {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<(), Error> {
        logits[3] = f32::NAN;
        Ok(())
    }
}

#[test]
fn a_hook_changes_logits_and_ends_answers() {
    let files = ModelFiles::open(&fixture("llama").path).unwrap();
    let plain = Request {
        token_ids: vec![5, 9, 11],
        max_new_tokens: 9,
        top_logprobs: Some(2),
        end_tokens: Vec::new(),
        ..Request::default()
    };
    let second = Second::default();
    let with = |hook: SharedHook| Request { hook: Some(hook), ..plain.clone() };
    let banned = rules(TokenRules { suppress_tokens: (0..128).collect(), ..TokenRules::default() });
    let nothing = Request { sampling: banned, ..plain.clone() };
    let layers = Request { layers: vec![Layer::Final], ..plain.clone() };
    let outside = rules(TokenRules { bad_words: vec![vec![128]], ..TokenRules::default() });
    let requests = [
        with(SharedHook::new(second.clone())),
        with(SharedHook::new(Failing)),
        with(SharedHook::new(NotNumbers)),
        nothing,
        layers,
        Request { sampling: outside, ..plain.clone() },
        Request { sampling: Sampling { temperature: f32::NAN, ..Sampling::default() }, ..plain.clone() },
        plain.clone(),
    ];
    let mut found = answers(&files, None, &requests);
    assert_eq!(found.pop().unwrap().unwrap().token_ids.len(), 9, "others go on");
    let first = found.remove(0).unwrap();
    assert_eq!(
        (first.token_ids.len(), first.finish_reason, first.stop_reason),
        (3, FinishReason::Stop, None)
    );
    let seconds: Vec<u32> = first.top_logprobs.unwrap().iter().map(|top| top[1].0).collect();
    assert_eq!(first.token_ids, seconds, "log-probabilities are the model's own");
    assert_eq!(*second.0.lock().unwrap(), [2, 3, 4]);
    let kinds: Vec<ErrorKind> = found.into_iter().map(|f| f.unwrap_err().kind()).collect();
    assert_eq!(kinds[0], ErrorKind::Job);
    assert!(kinds[1..].iter().all(|kind| *kind == ErrorKind::Usage), "{kinds:?}");
}

/// Settings of a model's makers that were once ignored: tokens that never come.
#[test]
fn what_makers_rule_out_does_not_come() {
    let fixture = fixture("llama");
    let prompt = &fixture.prompts[1];
    for key in ["suppress_tokens", "bad_words_ids"] {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(fixture.path.join(file), folder.path().join(file)).unwrap();
        }
        let banned = prompt.greedy[0];
        let list = if key == "suppress_tokens" { format!("[{banned}]") } else { format!("[[{banned}]]") };
        let text = format!(r#"{{"{key}": {list}, "num_beams": 3}}"#);
        std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
        let files = ModelFiles::open(folder.path()).unwrap();
        assert!(files.sampling_notes()[0].contains("num_beams"));
        let request = Request {
            token_ids: prompt.ids.clone(),
            max_new_tokens: 10,
            sampling: files.sampling(),
            ..Request::default()
        };
        let found = answer(&files, None, request);
        assert!(found.token_ids.len() == 10 && !found.token_ids.contains(&banned), "{key}");
    }
}
