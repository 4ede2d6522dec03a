//! Packing as users meet it; and killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{command, copy, fixture, json, run, succeed};

#[test]
fn a_packed_folder_is_a_model_that_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (fixture("llama_gqa_bf16"), folder.path().join("out"));
    let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    let packed = json(&["pack", model, out, "--verify"]);
    assert_eq!((&packed["codec"], &packed["verified"]), (&json!("lossless"), &json!(true)));
    let of = |model: &str| json(&["score", model, "--token-ids", "1,2,3,4", "--logits"])["results"].clone();
    assert_eq!(of(out), of(model));
    assert_eq!(json(&["inspect", out])["codec"], "lossless");
    assert!(json(&["inspect", fixture("phi3_longrope").to_str().unwrap()])["pack"]["q8"]["bytes"].is_u64());
    let compared = json(&["plan", model, "--compare"]);
    let codecs = compared["compare"].as_array().unwrap().iter().map(|c| c["codec"].as_str().unwrap());
    assert_eq!(codecs.collect::<Vec<_>>(), ["as it is", "lossless", "q8", "q4"]);
    assert!(succeed(&["plan", model, "--compare"]).contains("lossless"));
    let again = run(&["pack", model, out]);
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    // Where there is nothing to save, the larger copy is not passed over in silence.
    let larger = folder.path().join("larger");
    let outcome = run(&["pack", fixture("llama").to_str().unwrap(), larger.to_str().unwrap()]);
    assert!(outcome.code == Some(0) && outcome.stderr.contains("not smaller"), "{outcome:?}");
}

#[test]
fn quantised_models_are_packed_without_loss_or_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    for (name, args, said) in [
        ("qwen3_fp8", ["--codec", "q4"], "--codec lossless alone"),
        ("gpt_oss_mxfp4", ["--codec", "lossless"], "run the model as it is"),
    ] {
        let model = fixture(name);
        let outcome = run(&["pack", model.to_str().unwrap(), out, args[0], args[1]]);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(said), "{name}: {outcome:?}");
    }
    let model = fixture("qwen3_fp8");
    let model = model.to_str().unwrap();
    let named = json(&["inspect", model])["pack"].clone();
    assert_eq!(named.as_object().unwrap().keys().collect::<Vec<_>>(), ["lossless"]);
    let compared = json(&["plan", model, "--compare"]);
    let codecs = compared["compare"].as_array().unwrap().iter().map(|c| c["codec"].as_str().unwrap());
    assert_eq!(codecs.collect::<Vec<_>>(), ["as it is", "lossless"]);
}

#[test]
fn losses_are_told_for_each_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (fixture("phi3_longrope"), folder.path().join("out"));
    let args = ["pack", model.to_str().unwrap(), out.to_str().unwrap(), "--codec", "q8"];
    let outcome = run(&[&args[..], &["-v"]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("self_attn.o_proj.weight") && outcome.stderr.contains("Q8_0"),
        "{outcome:?}"
    );
    assert!(outcome.stdout.contains("largest error 0.0"), "{}", outcome.stdout);
    // Of a large model they once drowned the progress: without -v there is the largest one.
    let again = folder.path().join("again");
    let quiet = run(&["pack", args[1], again.to_str().unwrap(), "--codec", "q8"]);
    assert!(!quiet.stderr.contains("Q8_0") && quiet.stdout.contains("largest error 0.0"), "{quiet:?}");
}

/// What a codec loses cannot be had back from what it leaves.
#[test]
fn the_only_copy_in_full_precision_goes_only_if_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (copy("phi3_longrope"), folder.path().join("out"));
    let weights = model.path().join("model.safetensors");
    let args =
        ["pack", model.path().to_str().unwrap(), out.to_str().unwrap(), "--codec", "q8", "--delete-original"];
    let refused = run(&args);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--yes") && weights.exists() && !out.exists(), "{refused:?}");
    assert_eq!(run(&[&args[..], &["--yes"]].concat()).code, Some(0));
    assert!(!weights.exists() && out.exists());
}

/// A Llama of a few megabytes, with weights like trained ones.
fn write_model(folder: &Path) {
    const HIDDEN: usize = 256;
    const WIDE: usize = 768;
    const VOCAB: usize = 512;
    const BLOCKS: usize = 8;
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
        "intermediate_size": WIDE, "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "vocab_size": VOCAB,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut tensors = vec![
        ("model.embed_tokens".to_owned(), vec![VOCAB, HIDDEN]),
        ("lm_head".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm".to_owned(), vec![HIDDEN]),
    ];
    for block in 0..BLOCKS {
        for (name, shape) in [
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![WIDE, HIDDEN]),
            ("mlp.up_proj", vec![WIDE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, WIDE]),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ] {
            tensors.push((format!("model.layers.{block}.{name}"), shape));
        }
    }
    let (mut header, mut data, mut state) = (serde_json::Map::new(), Vec::new(), 7u64);
    for (name, shape) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let sum: i32 = (state >> 32).to_le_bytes().iter().take(4).map(|&b| i32::from(b) - 127).sum();
            let value = (sum as f32 + 0.37) * 1e-4;
            data.extend(((value.to_bits() >> 16) as u16).to_le_bytes());
        }
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(format!("{name}.weight"), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn killed_at_ten_moments_it_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (model, whole, out) =
        (folder.path().join("model"), folder.path().join("whole"), folder.path().join("out"));
    fs::create_dir(&model).unwrap();
    write_model(&model);
    let sizes = ["--shard-bytes", "2MiB", "--tile-bytes", "64KiB", "--threads", "1", "-q"];
    let args = |out: &Path| {
        let names = [model.to_str().unwrap(), out.to_str().unwrap()].map(str::to_owned);
        [vec!["pack".to_owned()], names.to_vec(), sizes.map(str::to_owned).to_vec()].concat()
    };
    let pack = |out: &Path| args(out);
    let begun = Instant::now();
    let arguments = pack(&whole);
    succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let took = begun.elapsed();
    let mut state = u64::from(std::process::id());
    // Shorter where it ends first.
    let mut reach = took.mul_f64(0.6);
    let (mut kills, mut tries) = (0, 0);
    while kills < 10 {
        let arguments = pack(&out);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut child = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(
            reach.mul_f64((state >> 40) as f64 / (1u64 << 24) as f64) + Duration::from_millis(1),
        );
        let ended = child.try_wait().unwrap();
        if ended.is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        let ended = child.wait().unwrap();
        if ended.success() {
            // It was faster: begin anew, so that ten kills are reached.
            assert_eq!(content(&out), content(&whole));
            fs::remove_dir_all(&out).unwrap();
            reach = reach.mul_f64(0.8);
        }
        tries += 1;
        assert!(tries < 200, "{kills} kills in {tries} tries");
    }
    let arguments = pack(&out);
    succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(content(&out), content(&whole));
}

/// What says how vectors are pooled stayed behind, and the packed model embedded nothing.
#[test]
fn a_packed_embedding_model_embeds_as_it_did() {
    for name in ["dense", "cls", "largest"] {
        let model = fixture(&format!("sentences/{name}"));
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join("packed");
        let (from, to) = (model.to_str().unwrap(), packed.to_str().unwrap());
        succeed(&["pack", from, to, "--codec", "lossless"]);
        let embedded = |model: &str| succeed(&["embed", model, "where is the cat?"]);
        assert_eq!(embedded(to), embedded(from), "{name}");
    }
}
