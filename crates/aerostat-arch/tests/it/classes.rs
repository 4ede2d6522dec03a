//! Configurations are read as the class of their model type reads them.

use std::collections::{BTreeMap, BTreeSet};

use aerostat_arch::{ErrorKind, FAMILIES, Growth, ModelSpec, Scaling, describe};
use aerostat_checkpoint::{Checkpoint, Config};
use aerostat_testkit::fixtures;
use serde_json::{Map, Value, json};

/// The keys of each model type's class with their defaults, and the other spellings.
type Classes = BTreeMap<String, (Map<String, Value>, Map<String, Value>)>;

fn classes() -> Classes {
    let lines = include_str!("../../src/classes.jsonl").lines();
    let class = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let of = |key: &str| line[key].as_object().unwrap().clone();
        (line["type"].as_str().unwrap().to_owned(), (of("keys"), of("names")))
    };
    lines.map(class).collect()
}

/// The part of a configuration that a text model is described by, and its type.
fn text(config: &mut Value) -> (&mut Map<String, Value>, String) {
    let nested = config.get("text_config").is_some_and(Value::is_object);
    let outer = config["model_type"].as_str().unwrap_or_default().to_owned();
    let tower =
        aerostat_arch::TOWERS.iter().find(|(whole, _)| *whole == outer).map(|(_, tower)| (*tower).to_owned());
    let text = match (&tower, nested) {
        (Some(_), true) => config.get_mut("text_config").unwrap(),
        _ => config,
    };
    let text = text.as_object_mut().unwrap();
    let own = text.get("model_type").and_then(Value::as_str).map(str::to_owned);
    let model_type = if tower.is_some() { own.or(tower) } else { Some(outer) };
    (text, model_type.unwrap_or_default())
}

fn described(
    checkpoint: &Checkpoint,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<ModelSpec, aerostat_arch::Error> {
    let mut changed = checkpoint.clone();
    let Config::HuggingFace(hf) = &mut changed.config else { panic!("a folder") };
    change(text(&mut hf.config).0);
    describe(&changed)
}

/// The configuration of a fixture.
fn config(name: &str) -> Value {
    let Config::HuggingFace(hf) = Checkpoint::open(&aerostat_testkit::fixture(name).path).unwrap().config
    else {
        panic!("a folder")
    };
    hf.config
}

/// A fixture of each model type.
fn one_of_each() -> Vec<(String, String, Checkpoint)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for fixture in fixtures().iter().filter(|f| f.path.is_dir()) {
        let mut checkpoint = Checkpoint::open(&fixture.path).unwrap();
        let Config::HuggingFace(hf) = &mut checkpoint.config else { continue };
        let (_, model_type) = text(&mut hf.config.clone());
        if seen.insert(model_type.clone()) {
            found.push((fixture.name.clone(), model_type, checkpoint));
        }
    }
    found
}

#[test]
fn every_model_type_has_a_class_and_every_class_a_type() {
    let types: BTreeSet<&str> = FAMILIES.iter().flat_map(|f| f.model_types).copied().collect();
    assert_eq!(
        classes().keys().map(String::as_str).collect::<BTreeSet<_>>(),
        types,
        "python oracle/classes.py"
    );
}

/// `rope_ratio` changed 72 types, `rotary_dim` 61, `partial_rotary_factor` 50; `num_key_value_heads`, `kv_channels`,
/// `head_dim` and `num_experts` made others fail.
#[test]
fn keys_that_the_class_does_not_read_change_nothing() {
    let classes = classes();
    let all: BTreeSet<&String> =
        classes.values().flat_map(|(keys, names)| keys.keys().chain(names.keys())).collect();
    // What no class reads, but some model's own code.
    let more: Vec<String> =
        ["intermediate_size_mlp", "rotary_ndims", "sliding_window_size", "layer_norm_epsilon2"]
            .map(str::to_owned)
            .into();
    let values = |key: &str| -> Vec<Value> {
        match key {
            "rope_scaling" | "rope_parameters" => vec![json!({"rope_type": "linear", "factor": 4.0})],
            "attn_config" => vec![json!({"softmax_scale": 3.0, "alibi": true, "clip_qkv": 0.1})],
            _ if key.ends_with("types") => vec![json!(["sliding_attention"])],
            _ => vec![json!(3), json!(true), json!("gelu"), json!(null), json!([0.5, 7])],
        }
    };
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, model_type, checkpoint) in one_of_each() {
        let Some((keys, names)) = classes.get(&model_type) else { panic!("{name}: {model_type}") };
        let want = format!("{:?}", described(&checkpoint, |_| {}).unwrap());
        let strange = |key: &&String| {
            let read = ["vocab_size", "per_layer_config"].contains(&key.as_str());
            // A Mistral with this key is a Ministral.
            let is_ministral = model_type == "mistral" && *key == "layer_types";
            !keys.contains_key(*key) && !names.contains_key(*key) && !read && !is_ministral
        };
        for key in all.iter().copied().chain(&more).filter(strange) {
            // One after the other, so that each key meets each value in some family.
            let of_key = values(key);
            let value = &of_key[count % of_key.len()];
            let found = described(&checkpoint, |config| {
                config.insert(key.clone(), value.clone());
            });
            let found = found.map_or_else(|e| e.to_string(), |spec| format!("{spec:?}"));
            if found != want {
                wrong.push(format!("{name} with `{key}`: {value}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {count}: {:?}", wrong.len(), &wrong[..wrong.len().min(40)]);
    assert!(count > 10_000, "{count} cases");
}

/// A type that Python would stop at was taken for an absent key, so that `"500000"` became 10000.
#[test]
fn values_of_wrong_types_are_refused_by_key() {
    let numbers = [
        "rope_theta",
        "rms_norm_eps",
        "layer_norm_eps",
        "head_dim",
        "num_key_value_heads",
        "sliding_window",
        "max_position_embeddings",
        "rotary_emb_base",
        "rotary_pct",
        "partial_rotary_factor",
        "rope_local_base_freq",
        "query_pre_attn_scalar",
        "final_logit_softcapping",
        "embedding_multiplier",
        "logit_scale",
        "routed_scaling_factor",
        "n_group",
        "num_experts_per_tok",
        "attention_bias",
        "mlp_bias",
        "tie_word_embeddings",
        "norm_topk_prob",
        "hidden_act",
        "rope_scaling",
        "rope_parameters",
        "swiglu_limit",
        "attention_multiplier",
    ];
    let classes = classes();
    let mut refused = BTreeSet::new();
    for (name, model_type, checkpoint) in one_of_each() {
        let (keys, _) = &classes[&model_type];
        for key in numbers.into_iter().filter(|key| keys.contains_key(*key)) {
            let wrong = described(&checkpoint, |config| {
                if matches!(
                    key,
                    "rope_theta"
                        | "rotary_emb_base"
                        | "rotary_pct"
                        | "rope_local_base_freq"
                        | "partial_rotary_factor"
                ) {
                    config.remove("rope_parameters");
                    config.remove("rope_scaling");
                }
                config.insert(key.to_owned(), json!(["500000"]));
            });
            match wrong {
                Err(e) if e.kind() == ErrorKind::Config => {
                    assert!(e.to_string().contains(key), "{name}: {e}");
                    refused.insert(key);
                }
                Err(e) if e.kind() == ErrorKind::Unsupported && e.to_string().contains(key) => {}
                Err(e) => panic!("{name}: {key}: {e}"),
                // Some are not read where another decides.
                Ok(_) => {}
            }
        }
    }
    assert_eq!(refused.len(), numbers.len(), "{refused:?}");
}

/// The next line tells the story of each: what the class takes where a key is absent, which other defaults took the place of.
#[test]
fn what_is_absent_is_the_default_of_the_class() {
    let of = |name: &str| Checkpoint::open(&aerostat_testkit::fixture(name).path).unwrap();
    // 1: all groups are open to none but the best of one.
    let groups = |name: &str| {
        let spec = described(&of(name), |config| {
            config.insert("n_group".to_owned(), json!(2));
            config.insert("topk_group".to_owned(), json!(null));
            config.remove("topk_group");
        });
        let spec = spec.unwrap();
        spec.blocks.iter().find_map(|b| b.experts.as_ref()).and_then(|e| e.routing.groups).map(|g| g.open)
    };
    assert_eq!(groups("glm4_moe"), Some(1));
    let scale = |key: &str| {
        let spec = described(&of("minicpm3"), |config| drop(config.remove(key))).unwrap();
        (spec.embedding_scale, spec.blocks[0].residual_scale)
    };
    assert_ne!(scale("scale_emb").0, None);
    assert_ne!(scale("scale_depth").1, None);
    // Its class does not read a base that lies outside of the parameters of rotation.
    let flat = described(&of("gpt_neox"), |config| {
        config.remove("rope_parameters");
        config.insert("rope_theta".to_owned(), json!(77.0));
    });
    assert_eq!(flat.unwrap().ropes[0].theta, 10_000.0);
    // 32 heads cannot share 4 key/value heads of a stream of 40; it said that the key is missing.
    let sizes = described(&of("llama"), |config| drop(config.remove("num_attention_heads")));
    assert_eq!(sizes.unwrap_err().kind(), ErrorKind::Tensor);
}

/// MiniCPM 3 as released was refused, since its file does not say how wide values are; factors that are `null` were 1 before they
/// were divided. Wide layers of Gemma 4 have heads of their own also where values are not keys.
#[test]
fn what_classes_make_of_null_is_what_they_compute_with() {
    let spec = |name: &str, change: &dyn Fn(&mut Map<String, Value>)| {
        let mut changed = config(name);
        change(text(&mut changed).0);
        aerostat_arch::fuzzing::described(changed).unwrap()
    };
    let plain = format!("{:?}", spec("minicpm3", &|_| {}));
    for change in [json!(10), json!(null)] {
        let wide = spec("minicpm3", &|config| drop(config.insert("v_head_dim".to_owned(), change.clone())));
        assert_eq!(format!("{wide:?}"), plain);
    }
    let absent = spec("minicpm3", &|config| drop(config.remove("v_head_dim")));
    assert_eq!(format!("{absent:?}"), plain);
    let factors = spec("minicpm3", &|config| {
        config.insert("scale_depth".to_owned(), json!(null));
        config.insert("dim_model_base".to_owned(), json!(null));
    });
    assert_eq!((factors.blocks[0].residual_scale, factors.head.scale), (None, None));
    let other = spec("gemma4", &|config| drop(config.insert("attention_k_eq_v".to_owned(), json!(false))));
    let heads =
        |spec: &ModelSpec| spec.blocks.iter().map(|b| b.attention().map(|a| a.kv_heads)).collect::<Vec<_>>();
    assert_eq!(heads(&other), heads(&spec("gemma4", &|_| {})));
}

/// Parts of heads with an odd number of elements were refused: the classes that cut by the angles rotate one more.
#[test]
fn an_odd_part_of_a_head_is_rotated_with_the_next_element() {
    let rotated = |head_dim: u64| {
        let mut config = config("glm");
        config["head_dim"] = head_dim.into();
        aerostat_arch::fuzzing::described(config).map(|spec| (spec.ropes[0].rotary, spec.ropes[0].rotated()))
    };
    assert_eq!(rotated(6).unwrap(), (3, 4));
    assert_eq!(rotated(8).unwrap(), (4, 4));
    // One alone turns with nothing.
    assert!(rotated(2).unwrap_err().to_string().contains("turn in pairs"));
}

/// They were refused where a row uses more experts than the open groups have.
#[test]
fn groups_that_are_open_may_have_fewer_experts_than_a_row_uses() {
    let chosen = |name: &str| {
        let checkpoint = Checkpoint::open(&aerostat_testkit::fixture(name).path).unwrap();
        let spec = described(&checkpoint, |config| {
            for (key, value) in [("n_group", 4), ("topk_group", 1), ("num_experts_per_tok", 3)] {
                config.insert(key.to_owned(), value.into());
            }
            config.insert("topk_method".to_owned(), "group_limited_greedy".into());
        });
        let blocks = spec.unwrap().blocks;
        blocks.iter().find_map(|b| b.experts.as_ref()).map(|e| (e.routing.chosen, e.mlps.len()))
    };
    // Of the second, scores of closed groups are 0: what is chosen there has no weight.
    assert_eq!((chosen("deepseek_v3"), chosen("deepseek_v2")), (Some((3, 8)), Some((2, 8))));
}

/// `n_embed: null` stood for a missing `hidden_size`; `no_bias` and `logit_scale` of MPT were refused.
#[test]
fn what_a_class_passes_over_is_passed_over() {
    let of = |name: &str| Checkpoint::open(&aerostat_testkit::fixture(name).path).unwrap();
    for (name, key, value) in [
        ("bloom", "n_embed", json!(null)),
        ("falcon", "n_embed", json!(null)),
        ("glm_moe_dsa", "num_experts", json!(null)),
        ("mpt", "no_bias", json!(false)),
        ("mpt", "logit_scale", json!(0.5)),
    ] {
        let same = described(&of(name), |config| drop(config.insert(key.to_owned(), value)));
        let want = described(&of(name), |_| {}).unwrap();
        assert_eq!(format!("{:?}", same.unwrap()), format!("{want:?}"), "{name}: {key}");
    }
}

/// The class takes a part of the head that is said before the number of rotated elements that is said beside it.
#[test]
fn a_part_of_a_head_counts_more_than_a_number_of_elements() {
    let checkpoint = Checkpoint::open(&aerostat_testkit::fixture("minimax_m2").path).unwrap();
    let rotary = |part: Value, elements: u64| {
        let spec = described(&checkpoint, |config| {
            config.insert("rope_parameters".to_owned(), json!({"rope_type": "default", "rope_theta": 500.0}));
            config.insert("partial_rotary_factor".to_owned(), part);
            config.insert("rotary_dim".to_owned(), json!(elements));
        });
        spec.unwrap().ropes[0].rotary
    };
    assert_eq!(rotary(json!(0.5), 2), 6);
    assert_eq!(rotary(json!(null), 2), 2);
}

/// Queries of Ministral 3 grow by the trained length that rotations go by: one beside the parameters counts more.
#[test]
fn the_trained_length_is_one_for_rotations_and_queries() {
    let checkpoint = Checkpoint::open(&aerostat_testkit::fixture("ministral3").path).unwrap();
    let spec = described(&checkpoint, |config| {
        config.insert("original_max_position_embeddings".to_owned(), json!(2));
    });
    let spec = spec.unwrap();
    let Some(Growth::Steps { floor, .. }) = spec.blocks[0].attention().unwrap().growth else {
        panic!("no growth")
    };
    let Scaling::Yarn { original, .. } = spec.ropes[0].scaling else { panic!("{:?}", spec.ropes[0]) };
    assert_eq!((floor, original), (2.0, 2.0));
}

/// The published class knows `rotary`, by default dynamic, and none of the keys of Llama's rotation.
#[test]
fn internlm_stretches_its_rotation_beyond_the_trained_length() {
    let checkpoint = Checkpoint::open(&aerostat_testkit::fixture("internlm").path).unwrap();
    let rope = |rotary: Option<Value>| {
        let spec = described(&checkpoint, |config| {
            config.insert("rope_theta".to_owned(), json!(77.0));
            config.extend(rotary.map(|rotary| ("rotary".to_owned(), rotary)));
        });
        spec.map(|spec| (spec.ropes[0].theta, spec.ropes[0].scaling))
    };
    let dynamic = |factor| Scaling::Dynamic { factor, original: 128.0 };
    assert_eq!(rope(None).unwrap(), (10_000.0, dynamic(1.0)));
    let said = json!({"base": 500, "type": "dynamic", "scaling_factor": 2.0});
    assert_eq!(rope(Some(said)).unwrap(), (500.0, dynamic(2.0)));
    assert_eq!(rope(Some(json!({"base": 500, "type": "origin"}))).unwrap(), (500.0, Scaling::None));
    assert_eq!(rope(Some(json!({"base": 500}))).unwrap_err().kind(), ErrorKind::Config);
}

/// Voxtral's class fills what its text tower leaves out with values of its own, as `VoxtralConfig` of transformers 5.23.0 does;
/// a rotation of 10,000, which is Llama's, once changed what it said.
#[test]
fn the_text_tower_of_voxtral_has_defaults_of_its_own() {
    let checkpoint = Checkpoint::open(&aerostat_testkit::fixture("voxtral").path).unwrap();
    let theta = |rope: Option<Value>| {
        let change = |config: &mut Map<String, Value>| {
            config.remove("rope_parameters");
            config.extend(rope.map(|rope| ("rope_parameters".to_owned(), rope)));
        };
        described(&checkpoint, change).unwrap().ropes[0].theta
    };
    let given = [Some(json!({"rope_type": "default", "rope_theta": 500.0})), Some(Value::Null), None];
    assert_eq!(given.map(theta), [500.0, 1e8, 1e8]);
    assert_eq!(theta(Some(json!({"rope_type": "linear", "factor": 2.0}))), 1e8);
}

/// The classes of several towers multiply with a head of their own, and leave out what the text model's does to logits.
#[test]
fn the_head_of_several_towers_does_not_scale_logits() {
    let scale = |name: &str| {
        let checkpoint = Checkpoint::open(&aerostat_testkit::fixture(name).path).unwrap();
        let spec =
            described(&checkpoint, |config| drop(config.insert("logit_scale".to_owned(), json!(0.25))));
        spec.unwrap().head.scale
    };
    assert_eq!(["cohere2", "aya_vision", "cohere2_vision"].map(scale), [Some(0.25), None, None]);
}

#[test]
fn a_mistral_that_lists_its_layers_is_a_ministral() {
    let checkpoint = Checkpoint::open(&aerostat_testkit::fixture("mistral_window").path).unwrap();
    let spec = described(&checkpoint, |config| {
        let layers = config["num_hidden_layers"].as_u64().unwrap() as usize;
        let mut types = vec!["full_attention"; layers];
        types[0] = "sliding_attention";
        config.insert("layer_types".to_owned(), json!(types));
    });
    let spec = spec.unwrap();
    let windows: Vec<bool> = spec.blocks.iter().map(|b| b.attention().unwrap().window.is_some()).collect();
    assert_eq!((spec.family, windows[0], windows[1]), ("ministral", true, false));
}

/// The released models say of the tokens of images that they see each other; text stays causal.
#[test]
fn attention_both_ways_within_images_is_no_reason_to_refuse() {
    let checkpoint = Checkpoint::open(&aerostat_testkit::fixture("gemma4").path).unwrap();
    let said = |value: Value| {
        described(&checkpoint, |config| drop(config.insert("use_bidirectional_attention".to_owned(), value)))
    };
    assert!(said(json!("vision")).is_ok());
    assert!(said(json!(null)).is_ok());
    assert_eq!(said(json!("all")).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// Sizes that wrap where they are multiplied: `heads * head_dim`.
#[test]
fn sizes_beyond_all_models_are_refused() {
    let checkpoint = Checkpoint::open(&aerostat_testkit::fixture("llama").path).unwrap();
    for (key, value) in
        [("num_attention_heads", 1u64 << 40), ("head_dim", 1 << 34), ("intermediate_size", u64::MAX)]
    {
        let error =
            described(&checkpoint, |config| drop(config.insert(key.to_owned(), json!(value)))).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    let most = 1u64 << 20;
    let error = described(&checkpoint, |config| {
        for key in
            ["num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "intermediate_size"]
        {
            config.insert(key.to_owned(), json!(most));
        }
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Tensor);
}

/// As embedding models lie on the Hub: they lacked `lm_head.weight`.
#[test]
fn a_checkpoint_without_a_head_opens_for_its_hidden_states() {
    for (name, whole, bare) in
        [("mistral", "MistralForCausalLM", "MistralModel"), ("qwen3", "Qwen3ForCausalLM", "Qwen3Model")]
    {
        let fixture = aerostat_testkit::fixture(name);
        let bytes = std::fs::read(fixture.path.join("model.safetensors")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(fixture.path.join("config.json")).unwrap();
        let describe_as = |architecture: &str, tensor: &str| {
            std::fs::write(folder.path().join("config.json"), config.replace(whole, architecture)).unwrap();
            let text = String::from_utf8_lossy(&bytes[..4000]).into_owned();
            assert!(text.contains("\"lm_head.weight\""), "{name}");
            // Of the same length, so that no offset changes.
            let mut changed = bytes.clone();
            let at = bytes.windows(14).position(|w| w == b"lm_head.weight").unwrap();
            changed[at..at + 14].copy_from_slice(tensor.as_bytes());
            std::fs::write(folder.path().join("model.safetensors"), changed).unwrap();
            describe(&Checkpoint::open(folder.path()).unwrap())
        };
        assert!(describe_as(bare, "xx_head.weight").unwrap().head.absent);
        assert!(!describe_as(bare, "lm_head.weight").unwrap().head.absent);
        assert_eq!(describe_as(whole, "xx_head.weight").unwrap_err().kind(), ErrorKind::MissingTensor);
    }
}

/// As the fuzz target does, on changed configurations of every fixture; `AEROSTAT_FUZZ_SECONDS` says how long (else once).
#[test]
fn no_configuration_is_a_panic() {
    let seconds = std::env::var("AEROSTAT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let start = std::time::Instant::now();
    let texts: Vec<Vec<u8>> =
        fixtures().iter().filter_map(|f| std::fs::read(f.path.join("config.json")).ok()).collect();
    let gguf: Vec<Vec<u8>> = ["llama", "deepseek_v2", "gemma3"]
        .iter()
        .filter_map(|name| std::fs::read(aerostat_testkit::fixture(name).path.join("twin.gguf")).ok())
        .collect();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below.max(1) as u64) as usize
    };
    let mut count = 0u64;
    loop {
        for text in &texts {
            let mut value: Value = serde_json::from_slice(text).unwrap();
            for _ in 0..=next(3) {
                mutate(&mut value, &mut next);
            }
            aerostat_arch::fuzzing::describe(value.to_string().as_bytes());
            count += 1;
        }
        for file in &gguf {
            let mut file = file.clone();
            for _ in 0..=next(4) {
                let at = next(file.len().min(6000));
                file[at] = [0, 1, 255, 128, next(256) as u8][next(5)];
            }
            aerostat_arch::fuzzing::describe(&file);
            count += 1;
        }
        if start.elapsed().as_secs() >= seconds {
            break;
        }
    }
    eprintln!("{count} configurations");
}

/// Changes one value somewhere in it.
fn mutate(value: &mut Value, next: &mut dyn FnMut(usize) -> usize) {
    let odd = [
        json!(0),
        json!(1),
        json!(-1),
        json!(1u64 << 20),
        json!(u64::MAX),
        json!(1e300),
        json!(-0.5),
        json!(1e-300),
        json!(null),
        json!(true),
        json!(false),
        json!(""),
        json!("full_attention"),
        json!([]),
        json!({}),
        json!([1, 2]),
        json!("yarn"),
        json!(3),
        json!(7),
        json!(4096),
    ];
    match value {
        Value::Object(map) if !map.is_empty() => {
            let at = next(map.len());
            let Some((key, inner)) = map.iter_mut().nth(at) else { return };
            match next(6) {
                0 => {
                    let key = key.clone();
                    map.remove(&key);
                }
                1 | 2 if inner.is_object() || inner.is_array() => mutate(inner, next),
                _ => *inner = odd[next(odd.len())].clone(),
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = next(list.len());
            list[at] = odd[next(odd.len())].clone();
        }
        other => *other = odd[next(odd.len())].clone(),
    }
}
