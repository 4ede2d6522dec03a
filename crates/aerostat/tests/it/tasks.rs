//! Answers end where they should and say why.

use aerostat::{
    Choices, Completion, Engine, FinishReason, Hidden, Layer, Measure, ModelFiles, Options, Pooling, Request,
    Sampling, Silent, Tokenizer, classify, distil, embed,
};
use aerostat_testkit::{fixture, fixtures_dir};

use crate::all;

fn generate(files: &ModelFiles, tokenizer: Option<&Tokenizer>, requests: &[Request]) -> Vec<Completion> {
    let need = aerostat::generate::need(requests);
    let mut engine = Engine::open(files, &Options::default(), &need, &mut Silent).unwrap();
    all(engine.generate(requests, tokenizer, &mut Silent).unwrap().completions)
}

#[test]
fn an_answer_ends_at_an_end_token_or_its_length() {
    let fixture = fixture("llama");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let prompt = &fixture.prompts[1];
    let free = Request { token_ids: prompt.ids.clone(), max_new_tokens: 10, ..Request::default() };
    let ended = Request { end_tokens: vec![prompt.greedy[4]], ..free.clone() };
    let nothing = Request { max_new_tokens: 0, ..free.clone() };
    let answers = generate(&files, None, &[free, ended, nothing]);
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
    let whole = generate(&files, Some(&tokenizer), std::slice::from_ref(&free)).remove(0).text.unwrap();
    let letters: Vec<char> = whole.chars().collect();
    let stop: String = letters[5..8].iter().collect();
    let answer =
        generate(&files, Some(&tokenizer), &[Request { stop: vec![stop.clone()], ..free }]).remove(0);
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
    let answer = generate(&files, None, &[request]).remove(0);
    let whole = [answer.prompt_token_ids, answer.token_ids].concat();
    let need = aerostat::score::need(std::slice::from_ref(&whole), true);
    let mut engine = Engine::open(&files, &Options::default(), &need, &mut Silent).unwrap();
    let score = all(engine.score(&[whole], false, &mut Silent).unwrap()).remove(0);
    let scored: Vec<f32> =
        score.logprobs[fixture.prompts[2].ids.len()..].iter().map(|p| p.unwrap()).collect();
    assert_eq!(answer.logprobs.unwrap(), scored);
}

#[test]
fn labels_are_scored_after_their_text_in_one_sweep() {
    let fixture = fixture("llama");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let text = |n: u32| (0..40).map(|i| (i * n + 3) % 100).collect::<Vec<u32>>();
    let labels = vec![vec![5], vec![9, 7, 4], vec![11, 2], vec![5]];
    let items: Vec<Choices> =
        [3, 7].iter().map(|n| Choices { prefix: text(*n), labels: labels.clone() }).collect();
    for measure in [Measure::Sum, Measure::Mean, Measure::Calibrated(vec![1, 2])] {
        let need = classify::need(&items, &measure);
        let mut engine = Engine::open(&files, &Options::default(), &need, &mut Silent).unwrap();
        let found = all(engine.classify(&items, &measure, &mut Silent).unwrap());
        assert_eq!(engine.stats().sweeps, 1);
        for (item, found) in items.iter().zip(&found) {
            let logprobs = |prefix: &[u32], label: &[u32]| -> Vec<f32> {
                let need = aerostat::score::need(&[[prefix, label].concat()], false);
                let mut engine = Engine::open(&files, &Options::default(), &need, &mut Silent).unwrap();
                let score =
                    engine.score(&[[prefix, label].concat()], false, &mut Silent).unwrap().remove(0).unwrap();
                score.logprobs[prefix.len()..].iter().map(|l| l.unwrap()).collect()
            };
            let sum = |l: &[f32]| l.iter().map(|l| f64::from(*l)).sum::<f64>();
            for (i, label) in item.labels.iter().enumerate() {
                let want = logprobs(&item.prefix, label);
                assert_eq!(found.logprobs[i], want);
                let score = match &measure {
                    Measure::Sum => sum(&want),
                    Measure::Mean => sum(&want) / want.len() as f64,
                    Measure::Calibrated(plain) => sum(&want) - sum(&logprobs(plain, label)),
                };
                assert_eq!(found.scores[i], score);
                assert!(found.scores[found.best] >= score && found.best < 3);
            }
        }
    }
    let bad = [Choices { prefix: vec![1], labels: vec![vec![]] }];
    let mut engine =
        Engine::open(&files, &Options::default(), &classify::need(&bad, &Measure::Sum), &mut Silent).unwrap();
    // Its neighbour does not suffer for it.
    let good = Choices { prefix: vec![1], labels: vec![vec![2], vec![3]] };
    let empty = Choices { prefix: vec![], ..good.clone() };
    let outside = Choices { prefix: vec![1], labels: vec![vec![2], vec![99_999]] };
    let [bad] = bad;
    for measure in [Measure::Sum, Measure::Mean, Measure::Calibrated(vec![4])] {
        let items = [bad.clone(), good.clone(), empty.clone(), outside.clone()];
        let found = engine.classify(&items, &measure, &mut Silent).unwrap();
        assert_eq!(
            found.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [false, true, false, false],
            "{measure:?}"
        );
    }
}

#[test]
fn the_likeliest_tokens_are_those_of_the_logits() {
    let fixture = fixture("qwen2");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let texts: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
    let mut engine =
        Engine::open(&files, &super::golden::exact(), &distil::need(&texts), &mut Silent).unwrap();
    let found = all(engine.distil(&texts, 5, &mut Silent).unwrap());
    for (top, prompt) in found.iter().zip(&fixture.prompts) {
        assert_eq!(
            (top.k, top.ids.len(), top.logprobs.len()),
            (5, 5 * prompt.ids.len(), 5 * prompt.ids.len())
        );
        let mut order: Vec<u32> = (0..prompt.logits_last.len() as u32).collect();
        order.sort_by(|a, b| prompt.logits_last[*b as usize].total_cmp(&prompt.logits_last[*a as usize]));
        assert_eq!(top.ids[top.ids.len() - 5..], order[..5]);
        for position in 1..prompt.ids.len() {
            // Where the next token is among the likeliest, its log-probability is that of scoring.
            let row = (position - 1) * 5..position * 5;
            if let Some(at) = top.ids[row.clone()].iter().position(|id| *id == prompt.ids[position]) {
                let want = prompt.logprobs[position].unwrap();
                assert!((top.logprobs[row.start + at] - want).abs() < 3e-4);
            }
        }
    }
}

#[test]
fn hidden_states_agree_with_transformers() {
    for name in ["llama_gqa_bf16", "gemma3", "gpt_neox", "cohere", "opt_sums", "opt_350m", "bloom_post"] {
        let fixture = fixture(name);
        let text = std::fs::read(fixture.path.join("hidden.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let files = ModelFiles::open(&fixture.path).unwrap();
        for case in expected["cases"].as_array().unwrap() {
            let floats = |key: &str| -> Vec<f32> { serde_json::from_value(case[key].clone()).unwrap() };
            let texts: Vec<Vec<u32>> = vec![serde_json::from_value(case["ids"].clone()).unwrap()];
            let mut engine =
                Engine::open(&files, &super::golden::exact(), &embed::need(&texts), &mut Silent).unwrap();
            for (key, layer) in
                [("first", Layer::After(0)), ("second", Layer::After(1)), ("last", Layer::Final)]
            {
                for (pooling, pooled) in [
                    ("mean", Pooling::Mean),
                    ("last_token", Pooling::LastToken),
                    ("cls", Pooling::Cls),
                    ("weighted", Pooling::WeightedMean),
                ] {
                    let hidden = Hidden { layer, pooling: Some(pooled), ..Hidden::default() };
                    let found = engine.embed(&texts, hidden, &mut Silent).unwrap().remove(0).unwrap();
                    let key = format!("{key}_{pooling}");
                    // Where embeddings have a width of their own, transformers gives no last state of the stream.
                    if name == "opt_350m" && layer == Layer::Final {
                        continue;
                    }
                    let want = floats(&key);
                    assert_eq!(found.len(), want.len());
                    for (f, w) in found.iter().zip(&want) {
                        assert!((f - w).abs() < 3e-4, "{name}, {key}: {f} {w}");
                    }
                }
            }
        }
        let far = Hidden { layer: Layer::After(99), ..Hidden::default() };
        let texts = [vec![1]];
        let mut engine =
            Engine::open(&files, &Options::default(), &embed::need(&texts), &mut Silent).unwrap();
        assert!(engine.embed(&texts, far, &mut Silent).unwrap()[0].is_err());
    }
}
