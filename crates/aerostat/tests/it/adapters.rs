//! LoRA adapters against what PEFT computes with them, and what is no adapter of the model.

use std::fs;
use std::path::Path;

use aerostat::{Engine, ErrorKind, ModelFiles, Need, Options, Parts, Request, Silent};
use aerostat_testkit::{adapters, fixture, fixtures_dir};
use serde_json::{Value, json};

use crate::all;
use crate::golden::{LOGIT_TOLERANCE, LOGPROB_TOLERANCE, compare_scores, exact};

#[test]
fn scores_and_answers_are_those_of_peft() {
    for (folder, base) in adapters() {
        let name = folder.display();
        let files = ModelFiles::open_with_adapter(&base.path, &folder).unwrap();
        let worst =
            compare_scores(&files, &base.prompts, &exact(), (LOGPROB_TOLERANCE, LOGIT_TOLERANCE)).unwrap();
        println!("{name}: logits differ by up to {worst:e}");
        let plain = ModelFiles::open(&base.path).unwrap();
        assert!(
            compare_scores(&plain, &base.prompts, &exact(), (0.1, 0.1)).is_err(),
            "{name} changes nothing"
        );
        let request = |p: &aerostat_testkit::Prompt| Request {
            token_ids: p.ids.clone(),
            max_new_tokens: p.greedy.len(),
            ..Request::default()
        };
        let requests: Vec<Request> = base.prompts.iter().map(request).collect();
        let need = aerostat::generate::need(&requests);
        let mut engine = Engine::open(&files, &exact(), &need, &mut Silent).unwrap();
        let answers = engine.generate(&requests, None, &mut Silent).unwrap();
        for (answer, prompt) in all(answers.completions).iter().zip(&base.prompts) {
            assert_eq!(answer.token_ids, prompt.greedy, "{name}");
        }
    }
}

#[test]
fn no_bit_depends_on_how_an_adapted_model_runs() {
    for (folder, base) in adapters() {
        let files = ModelFiles::open_with_adapter(&base.path, &folder).unwrap();
        let sequences: Vec<Vec<u32>> = base.prompts.iter().map(|p| p.ids.clone()).collect();
        let need = aerostat::score::need(&sequences, true);
        // A budget of 0 stands for the smallest there is, by the figures that the engine is opened with.
        let score = |mut options: Options| {
            let parts = Parts::of(&files, &options).unwrap();
            if options.memory_bytes == Some(0) {
                options.memory_bytes = None;
                let least = Engine::plan_with(&files, &options, &need, &parts).unwrap().minimum_bytes;
                options.memory_bytes = Some(least);
            }
            let mut engine = Engine::open_with(&files, &options, &need, parts, &mut Silent).unwrap();
            all(engine.score(&sequences, true, &mut Silent).unwrap())
        };
        let reference = score(Options::default());
        let ways = [
            Options { memory_bytes: Some(0), tile_bytes: Some(1), ..Options::default() },
            Options {
                prefill_chunk: Some(3),
                threads: Some(1),
                pinned_bytes_max: Some(0),
                ..Options::default()
            },
            Options { isa: Some(aerostat::Isa::Portable), rows_max: Some(5), ..Options::default() },
        ];
        for options in ways {
            let found = score(options.clone());
            for (found, expected) in found.iter().zip(&reference) {
                assert_eq!(found.logits_last, expected.logits_last, "{} {options:?}", folder.display());
                assert_eq!(found.logprobs, expected.logprobs, "{} {options:?}", folder.display());
            }
        }
    }
}

#[test]
fn an_adapter_counts_in_the_plan() {
    let base = fixture("llama");
    let files = ModelFiles::open_with_adapter(&base.path, &fixtures_dir().join("adapters/llama")).unwrap();
    let elements: usize = files.spec().updates.iter().map(|update| update.down.len + update.up.len).sum();
    assert_eq!(files.spec().updates.len(), 14);
    let open = |files: &ModelFiles| {
        let options = Options { pinned_bytes_max: Some(0), ..Options::default() };
        let engine = Engine::open(files, &options, &Need::one(8), &mut Silent).unwrap();
        (engine.footprint().fixed_bytes, engine.allocated().weights_bytes)
    };
    let (planned, held) = open(&files);
    let (planned_without, held_without) = open(&ModelFiles::open(&base.path).unwrap());
    assert_eq!(planned - planned_without, 4 * elements as u64);
    // Each of its matrices begins at a border of 64 bytes.
    let padding = held - held_without - 4 * elements as u64;
    assert!(padding < 64 * 2 * 14, "{padding}");
}

/// An adapter of the fixture `llama` with another configuration, and what opening it says.
fn refusal(base: &str, change: impl FnOnce(&mut Value), rename: Option<(&str, &str)>) -> String {
    let (from, folder) = (fixtures_dir().join("adapters/llama"), tempfile::tempdir().unwrap());
    let mut config: Value =
        serde_json::from_slice(&fs::read(from.join("adapter_config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    let mut weights = fs::read(from.join("adapter_model.safetensors")).unwrap();
    if let Some((old, new)) = rename {
        assert_eq!(old.len(), new.len());
        let at = weights.windows(old.len()).position(|part| part == old.as_bytes()).unwrap();
        weights[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    fs::write(folder.path().join("adapter_model.safetensors"), weights).unwrap();
    let error = ModelFiles::open_with_adapter(&fixture(base).path, folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    let message = error.to_string();
    assert!(message.len() < 600, "{message}");
    message
}

#[test]
fn what_cannot_be_added_exactly_is_refused_by_name() {
    let cases: [(&str, Value, &str); 8] = [
        ("peft_type", json!("IA3"), "`IA3`"),
        ("use_dora", json!(true), "`use_dora`"),
        ("lora_bias", json!(true), "`lora_bias`"),
        ("modules_to_save", json!(["lm_head"]), "`modules_to_save`"),
        ("init_lora_weights", json!("pissa_niter_4"), "`pissa_niter_4`"),
        ("alpha_pattern", json!({"layers\\.[01]": 3}), "`alpha_pattern`"),
        ("lora_alpha", json!("8"), "`lora_alpha`"),
        ("target_parameters", json!(["experts.down_proj"]), "`target_parameters`"),
    ];
    for (key, value, expected) in cases {
        let message = refusal("llama", |config| config[key] = value, None);
        assert!(message.contains(expected), "{key}: {message}");
    }
    // Of another model, in shape or in names; a tensor that is no low-rank factor; half a pair.
    assert!(refusal("llama_gqa_bf16", |_| (), None).contains("lora_"));
    assert!(refusal("gpt2", |_| (), None).contains("another model"));
    assert!(
        refusal("llama", |_| (), Some(("q_proj.lora_A.weight", "q_proj.lora_A.weighs")))
            .contains("no lora_A")
    );
    assert!(refusal("llama", |_| (), Some(("layers.0.mlp", "layers.7.mlp"))).contains("`model.layers."));
}

#[test]
fn an_adapter_needs_both_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |path: &Path| ModelFiles::open_with_adapter(&fixture("llama").path, path).unwrap_err().to_string();
    assert!(open(folder.path()).contains("adapter_config.json"));
    fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    assert!(open(folder.path()).contains("adapter_model.safetensors"));
    assert!(open(&folder.path().join("none")).contains("adapter_config.json"));
}
