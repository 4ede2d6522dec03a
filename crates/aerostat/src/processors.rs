//! Choosing tokens, compared with transformers' processors of logits (`oracle/make_processors.py`).

use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::Value;

use crate::hook::{Hook, SharedHook};
use crate::request::Request;
use crate::rules::Place;
use crate::sampler::{Choice, Sampler};
use crate::{Engine, Error, Layer, ModelFiles, Options, Outcome, Silent, Want, makers};

#[derive(Deserialize)]
struct Expected {
    eos: Vec<u32>,
    max_new_tokens: usize,
    steps: Vec<Step>,
    answers: Vec<Answer>,
    states: Vec<States>,
}

#[derive(Deserialize)]
struct Step {
    settings: Value,
    tokens: Vec<u32>,
    prompt: usize,
    logits: Vec<f32>,
    /// `None` for minus infinity.
    scores: Vec<Option<f32>>,
}

#[derive(Deserialize)]
struct Answer {
    settings: Value,
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

#[derive(Deserialize)]
struct States {
    ids: Vec<u32>,
    hidden: Vec<Vec<Vec<f32>>>,
    logits: Vec<Vec<f32>>,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../tests/it/processors.json")).unwrap()
}

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Gather(Arc<Mutex<Gathered>>);

#[derive(Default)]
struct Gathered {
    processed: Vec<f32>,
    logits: Vec<(usize, Vec<f32>)>,
    hidden: Vec<(Layer, usize, Vec<f32>)>,
}

impl Hook for Gather {
    fn wants_processed(&self) -> bool {
        true
    }

    fn processed(&mut self, _: usize, logits: &[f32]) -> Result<(), Error> {
        self.0.lock().unwrap().processed = logits.to_vec();
        Ok(())
    }

    fn logits(&mut self, position: usize, logits: &[f32]) -> Result<(), Error> {
        self.0.lock().unwrap().logits.push((position, logits.to_vec()));
        Ok(())
    }

    fn hidden(&mut self, layer: Layer, position: usize, state: &[f32]) -> Result<(), Error> {
        self.0.lock().unwrap().hidden.push((layer, position, state.to_vec()));
        Ok(())
    }
}

fn close(found: &[f32], want: &[f32], tolerance: f32) -> bool {
    found.len() == want.len()
        && found.iter().zip(want).all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1.0))
}

#[test]
fn what_a_token_is_drawn_from_is_what_transformers_draws_from() {
    let expected = expected();
    for step in &expected.steps {
        let (sampling, notes) = makers::sampling(&step.settings, step.logits.len());
        assert!(notes.is_empty(), "{notes:?}");
        let last = step.tokens.len() + 1 == step.prompt + expected.max_new_tokens;
        let place = Place {
            tokens: &step.tokens,
            prompt: step.prompt,
            last,
            ends: &expected.eos,
            constrained: false,
        };
        let gather = Gather::default();
        let hook = SharedHook::new(gather.clone());
        let choice = Choice { place, sampling: &sampling, stream: 0, hook: Some(&hook) };
        let token = Sampler::default().choose(&step.logits, &choice, None).unwrap();
        let found = gather.0.lock().unwrap().processed.clone();
        let told = format!("{} after {:?}: {found:?}", step.settings, step.tokens);
        assert_eq!(found.len(), step.scores.len());
        for (found, want) in found.iter().zip(&step.scores) {
            match want {
                None => assert_eq!(*found, f32::NEG_INFINITY, "{told}"),
                Some(want) => assert!(close(&[*found], &[*want], 2e-6), "{want}: {told}"),
            }
        }
        assert!(step.scores[token as usize].is_some(), "{told}");
    }
}

fn open(name: &str, request: &Request) -> (ModelFiles, Engine) {
    let files = ModelFiles::open(&aerostat_testkit::fixture(name).path).unwrap();
    let options = Options { kv: crate::KvType::F32, threads: Some(1), ..Options::default() };
    let need = crate::generate::need(std::slice::from_ref(request));
    let engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
    (files, engine)
}

#[test]
fn answers_are_those_of_transformers_under_each_setting() {
    let expected = expected();
    let longest = Request { token_ids: vec![1; 5], max_new_tokens: 10, ..Request::default() };
    let (files, mut engine) = open("llama", &longest);
    let request = |answer: &Answer| Request {
        token_ids: answer.prompt.clone(),
        max_new_tokens: 10,
        sampling: makers::sampling(&answer.settings, files.spec().vocab).0,
        end_tokens: answer.settings["eos_token_id"].as_u64().map(|t| t as u32).into_iter().collect(),
        ..Request::default()
    };
    let requests: Vec<Request> = expected.answers.iter().map(request).collect();
    let found = engine.generate(&requests, None, &mut Silent).unwrap().completions;
    for (found, answer) in found.into_iter().zip(&expected.answers) {
        assert_eq!(found.unwrap().token_ids, answer.answer, "{}", answer.settings);
    }
}

/// All layers in one sweep, and the logits of all positions, given as they come.
#[test]
fn hidden_states_and_logits_are_those_of_transformers() {
    for states in expected().states {
        let gather = Gather::default();
        let blocks = states.hidden.len() - 1;
        let request = Request {
            token_ids: states.ids.clone(),
            want: Want::Logits { from: 1 },
            layers: Layer::all(blocks),
            hook: Some(SharedHook::new(gather.clone())),
            ..Request::default()
        };
        let (_, mut engine) = open("llama", &request);
        let (outcomes, _) = engine.run_list(1, &|_| request.clone(), None, &mut Silent).unwrap();
        assert!(matches!(outcomes[..], [Some(Outcome::Given)]));
        let gathered = gather.0.lock().unwrap();
        assert_eq!(gathered.logits.iter().map(|row| row.0).collect::<Vec<_>>(), [1, 2, 3]);
        for (position, row) in &gathered.logits {
            assert!(close(row, &states.logits[*position], 1e-4), "logits after {position}");
        }
        assert_eq!(gathered.hidden.len(), (blocks + 1) * states.ids.len());
        for (layer, position, state) in &gathered.hidden {
            let index = if let Layer::After(index) = layer { *index } else { blocks };
            assert!(close(state, &states.hidden[index][*position], 1e-4), "{layer:?} at {position}");
        }
    }
}
