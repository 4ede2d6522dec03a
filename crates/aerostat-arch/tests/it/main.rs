//! What is refused, and with which words; what configurations mean.

mod classes;
mod families;
mod gguf;

use std::path::Path;

use aerostat_arch::{AttentionSpec, Block, Divisors, ErrorKind, ModelSpec, Scaling, describe};
use aerostat_checkpoint::Checkpoint;
use aerostat_testkit::{fixture, fixtures};

/// What to replace in a file by what.
type Edits<'a> = &'a [(&'a str, &'a str)];

/// Describes a fixture after its `config.json` was edited.
fn edited(name: &str, edits: Edits<'_>) -> Result<ModelSpec, aerostat_arch::Error> {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&fixture(name).path).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let config = folder.path().join("config.json");
    let mut text = std::fs::read_to_string(&config).unwrap();
    for (from, to) in edits {
        assert!(text.contains(from), "{from} is in {text}");
        text = text.replace(from, to);
    }
    std::fs::write(&config, text).unwrap();
    describe(&Checkpoint::open(folder.path()).unwrap())
}

/// What to edit in a fixture, and what it is then refused with.
type Refusals<'a> = &'a [Refusal<'a>];
type Refusal<'a> = (&'a str, Edits<'a>, ErrorKind, &'a str);

fn unsupported<'a>(name: &'a str, edits: Edits<'a>, word: &'a str) -> Refusal<'a> {
    (name, edits, ErrorKind::Unsupported, word)
}

fn check_refused(cases: Refusals<'_>) {
    for (name, edits, kind, word) in cases {
        let error = edited(name, edits).expect_err(word);
        assert_eq!(error.kind(), *kind, "{error}");
        assert!(error.to_string().contains(word), "{error} names {word}");
    }
}

#[test]
fn what_a_family_cannot_compute_is_refused_by_name() {
    check_refused(&[
        ("phi3_old", &[("\"long_factor\": [", "\"long_factor\": [2.0,")], ErrorKind::Config, "divisors"),
        unsupported("mpt", &[("\"qk_ln\": false", "\"qk_ln\": true")], "qk_ln"),
        unsupported("mpt", &[("\"alibi\": true", "\"alibi\": false")], "attn_config.alibi"),
        ("mpt", &[("\"alibi_bias_max\": 8", "\"alibi_bias_max\": 0.5")], ErrorKind::Config, "alibi_bias_max"),
        (
            "gpt_neo",
            &[("\"attention_layers\": [", "\"attention_layers\": [\"local\", ")],
            ErrorKind::Config,
            "attention_types",
        ),
        (
            "granite_swa",
            &[("\"layer_rope_theta\": [", "\"layer_rope_theta\": [1, ")],
            ErrorKind::Config,
            "layer_rope_theta",
        ),
        (
            "gpt_neox",
            &[("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")],
            ErrorKind::MissingTensor,
            "layers.2",
        ),
        (
            "smollm3_list",
            &[("\"no_rope_layers\": [", "\"no_rope_layers\": [1],\"x\": [")],
            ErrorKind::Config,
            "no_rope_layers",
        ),
    ]);
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let cases: Refusals<'_> = &[
        ("llama", &[("LlamaForCausalLM", "SomeForCausalLM")], ErrorKind::UnknownFamily, "SomeForCausalLM"),
        (
            "llama",
            &[("LlamaForCausalLM", "ZambaForCausalLM")],
            ErrorKind::Unsupported,
            "several blocks share",
        ),
        ("llama", &[("\"silu\"", "\"xielu\"")], ErrorKind::Unsupported, "xielu"),
        (
            "llama",
            &[("\"rope_type\": \"default\"", "\"rope_type\": \"longrope\"")],
            ErrorKind::Config,
            "short_factor",
        ),
        (
            "llama",
            &[("\"rope_type\": \"default\"", "\"rope_type\": \"elastic\"")],
            ErrorKind::Unsupported,
            "elastic",
        ),
        ("llama_linear", &[("\"factor\"", "\"other\"")], ErrorKind::Config, "factor"),
        ("llama", &[("\"hidden_size\": 40", "\"hidden_size\": 44")], ErrorKind::Tensor, "embed_tokens"),
        (
            "llama",
            &[("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")],
            ErrorKind::MissingTensor,
            "layers.2",
        ),
        (
            "llama",
            &[("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.5")],
            ErrorKind::Config,
            "num_hidden_layers",
        ),
        (
            "llama",
            &[("\"num_attention_heads\": 4", "\"num_attention_heads\": 0")],
            ErrorKind::Config,
            "num_attention_heads",
        ),
        (
            "llama",
            &[("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3")],
            ErrorKind::Config,
            "evenly",
        ),
        ("llama", &[("\"vocab_size\": 128", "\"vocab_size\": 129")], ErrorKind::Tensor, "vocab_size"),
        ("llama", &[("10000.0", "-1")], ErrorKind::Config, "rope_theta"),
        ("llama", &[("\"hidden_size\": 40", "\"hidden_size\": \"wide\"")], ErrorKind::Config, "hidden_size"),
    ];
    check_refused(cases);
    let unknown =
        edited("llama", &[("LlamaForCausalLM", "SomeForCausalLM")]).expect_err("unknown").to_string();
    assert!(unknown.contains("docs/families.md") && unknown.len() < 400, "{unknown}");
    let near = edited("llama", &[("LlamaForCausalLM", "Qwen7ForCausalLM")]).expect_err("unknown").to_string();
    assert!(near.contains("qwen3") && !near.contains("gemma"), "{near}");
}

#[test]
fn codes_that_nothing_scales_are_refused_by_name() {
    check_refused(&[
        unsupported("llama_int8", &[("\"load_in_8bit\": true", "\"load_in_8bit\": false")], "load_in_4bit"),
        unsupported("llama_fp8_rows", &[("float-quantized", "nvfp4-pack-quantized")], "nvfp4-pack-quantized"),
        unsupported("llama_fp8_rows", &[("compressed-tensors", "aqlm")], "aqlm"),
        unsupported("llama_fp8_rows", &[("quantization_config", "other")], "F8_E4M3"),
        ("qwen3_fp8", &[("weight_block_size", "other")], ErrorKind::Tensor, "weight_scale_inv"),
        unsupported("llama_int8", &[("bitsandbytes", "fp8"), ("load_in_8bit", "other")], "I8"),
    ]);
}

#[test]
fn variants_of_codes_that_are_not_known_are_refused_by_key_and_value() {
    check_refused(&[
        unsupported("llama_gptq_4", &[("\"gptq\",\n    \"damp", "\"marlin\",\n    \"damp")], "marlin"),
        unsupported("llama_gptq_4", &[("\"bits\": 4", "\"bits\": 5")], "`bits`: 5"),
        unsupported("qwen2_awq", &[("\"gemm\"", "\"gemv\"")], "`version`: \"gemv\""),
        unsupported("qwen2_awq", &[("\"bits\": 4", "\"bits\": 8")], "`bits`: 8"),
        unsupported("llama_nf4", &[("\"uint8\"", "\"bfloat16\"")], "bnb_4bit_quant_storage"),
        ("llama_w4a16", &[("\"num_bits\": 4", "\"num_bits\": 8")], ErrorKind::Tensor, "num_bits"),
        ("llama_gptq_4", &[("quantization_config", "other")], ErrorKind::MissingTensor, "q_proj.weight"),
        ("llama_gptq_4", &[("\"gptq\",\n    \"sym", "\"awq\",\n    \"sym")], ErrorKind::Tensor, "qweight"),
    ]);
}

/// Headers lie: what lies beside codes has another shape of as many elements.
#[test]
fn companions_of_another_shape_are_refused() {
    for name in [
        "gpt_oss_mxfp4",
        "llama_w4a16",
        "llama_w4a16_order",
        "llama_nf4",
        "phi3_fp4",
        "llama_gptq_3",
        "qwen2_awq",
    ] {
        let fixture = fixture(name);
        let bytes = std::fs::read(fixture.path.join("model.safetensors")).unwrap();
        let (len, rest) = bytes.split_at(8);
        let (header, data) = rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize);
        let header: serde_json::Value = serde_json::from_slice(header).unwrap();
        let coded = |tensor: &&String| {
            let suffixes = [
                "_blocks", "_scales", "packed", "_scale", "_point", "_g_idx", "absmax", "map", "qweight",
                "qzeros", ".scales",
            ];
            tensor.contains("layers.1.") && suffixes.iter().any(|suffix| tensor.ends_with(suffix))
        };
        let mut count = 0;
        for tensor in header
            .as_object()
            .unwrap()
            .keys()
            .filter(coded)
            .filter(|name| !name.ends_with("quant_map") || name.contains("nested"))
        {
            let mut changed = header.clone();
            let shape = &mut changed[tensor]["shape"];
            let elements: u64 = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
            *shape = serde_json::json!([1, 1, elements]);
            let text = changed.to_string();
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(fixture.path.join("config.json"), folder.path().join("config.json")).unwrap();
            let bytes = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), data].concat();
            std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
            let error = describe(&Checkpoint::open(folder.path()).unwrap()).expect_err(tensor);
            assert_eq!(error.kind(), ErrorKind::Tensor, "{tensor}: {error}");
            count += 1;
        }
        assert!(count >= 4, "{name}: {count} tensors");
    }
}

#[test]
fn old_and_new_spellings_mean_the_same() {
    let scaling =
        |name: &str| describe(&Checkpoint::open(&fixture(name).path).unwrap()).unwrap().ropes[0].scaling;
    assert!(matches!(scaling("llama_old_linear"), Scaling::Linear { .. }));
    assert!(matches!(scaling("llama_old_llama3"), Scaling::Llama3 { .. }));
    assert!(matches!(scaling("llama_dynamic"), Scaling::Dynamic { original: 24.0, .. }));
}

#[test]
fn keys_take_precedence_as_in_transformers() {
    let both = "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 3.0}, \"rope_theta\": 500.0, \"vocab_size\"";
    let spec = edited("llama", &[("\"vocab_size\"", both)]).unwrap();
    assert_eq!((spec.ropes[0].scaling, spec.ropes[0].theta), (Scaling::Linear { factor: 3.0 }, 500.0));
    // A head that is stored is used, tied or not.
    assert!(
        !edited("llama", &[("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true")])
            .unwrap()
            .tied()
    );
    // By `model_type`, unless the class is a causal model of a name that is not known.
    assert_eq!(edited("llama", &[("LlamaForCausalLM", "LlamaModel")]).unwrap().family, "llama");
    let classifier = edited("llama", &[("LlamaForCausalLM", "LlamaForSequenceClassification")]);
    assert!(classifier.expect("vectors are what its head reads").head.absent);
    let tagger = edited("llama", &[("LlamaForCausalLM", "LlamaForTokenClassification")]);
    assert_eq!(tagger.expect_err("no language model").kind(), ErrorKind::Unsupported);
    let pair =
        edited("llama", &[("LlamaForCausalLM", "T5ForConditionalGeneration"), ("\"llama\"", "\"t5\"")]);
    assert!(pair.expect_err("two halves").to_string().contains("an encoder and a decoder"));
    let heads = edited("qwen2", &[("\"num_key_value_heads\"", "\"num_key_value_heads\": null, \"x\"")]);
    assert_eq!(
        heads.expect_err("k has fewer rows").kind(),
        ErrorKind::Tensor,
        "null: as many as query heads"
    );
    // Only Gemma 3 reads a pattern; only Gemma 2 caps scores.
    let pattern = "\"sliding_window_pattern\": 3, \"attn_logit_softcapping\": 7.0, \"vocab_size\"";
    let spec = edited("gemma3_old", &[("\"vocab_size\"", "\"attn_logit_softcapping\": 7.0, \"vocab_size\"")])
        .unwrap();
    assert_eq!(attention(&spec.blocks[0]).softcap, None);
    let spec = edited("mistral", &[("\"vocab_size\"", pattern)]).unwrap();
    assert!(spec.blocks.iter().map(attention).all(|a| a.softcap.is_none() && a.window.is_none()));
}

#[test]
fn windows_alternate_as_the_family_says() {
    let windows = |name: &str| -> Vec<bool> {
        let spec = describe(&Checkpoint::open(&fixture(name).path).unwrap()).unwrap();
        spec.blocks.iter().map(|b| attention(b).window.is_some()).collect()
    };
    assert_eq!(windows("gemma2")[..2], [true, false]);
    assert_eq!(windows("gemma3"), [true, true, true, true, true, false, true]);
    assert!(windows("mistral_window").iter().all(|w| *w));
    assert_eq!(windows("qwen2_window")[..2], [false, true]);
    assert!(windows("qwen2_old").iter().all(|w| !*w));
}

#[test]
fn a_checkpoint_and_its_twin_describe_the_same_model() {
    for f in fixtures() {
        let Some((folder, _)) = f.name.split_once('/') else { continue };
        let folder = fixture("llama").path.with_file_name(folder);
        if !Path::new(&folder).join("config.json").exists() {
            continue;
        }
        let spec = |path: &Path| describe(&Checkpoint::open(path).unwrap()).unwrap();
        let (twin, own) = (spec(&f.path), spec(&folder));
        assert_eq!(
            (twin.hidden, twin.vocab, twin.blocks.len()),
            (own.hidden, own.vocab, own.blocks.len()),
            "{}",
            f.name
        );
        assert_eq!(twin.tied(), own.tied(), "{}", f.name);
        // llama3 scaling is a tensor of divisors in GGUF.
        let stored = twin.ropes.iter().flat_map(|r| [&r.divisors, &r.long_divisors]).flatten();
        let len = |d: &Divisors| if let Divisors::Stored(v) = d { v.len as u64 } else { 0 };
        let extra = stored.map(len).sum::<u64>();
        assert_eq!(twin.parameters - extra, own.parameters, "{}", f.name);
        for (t, o) in twin.blocks.iter().zip(&own.blocks) {
            assert_eq!(t.delta().is_some(), o.delta().is_some(), "{}", f.name);
            let Some((t, o)) = t.attention().zip(o.attention()) else { continue };
            assert_eq!((t.window, t.softcap), (o.window, o.softcap), "{}", f.name);
            assert!((t.scale - o.scale).abs() < 1e-7, "{}", f.name);
        }
    }
}

/// The places of rows of q, k and v in a tensor that holds them all.
#[test]
fn a_text_tower_runs_alone() {
    let spec = describe(&Checkpoint::open(&fixture("llava").path).unwrap()).unwrap();
    assert_eq!(spec.family, "llama");
    let (tensors, bytes) = spec.other_towers.unwrap();
    assert!(tensors > 20 && bytes > 1000, "{tensors} tensors of {bytes} bytes");
    assert!(describe(&Checkpoint::open(&fixture("llama").path).unwrap()).unwrap().other_towers.is_none());
    // Released ones leave out the sizes that are usual.
    let error = edited("llava", &[("\"hidden_size\": 40", "\"x\": 40")]).expect_err("it is smaller");
    assert!(error.to_string().contains("4096]"), "{error}");
}

#[test]
fn rows_of_fused_tensors_are_found() {
    let block = |name: &str| {
        let mut spec = describe(&Checkpoint::open(&fixture(name).path).unwrap()).unwrap();
        let a = attention(&spec.blocks.swap_remove(0)).clone();
        [a.q, a.k.unwrap(), a.v.unwrap()].map(|linear| linear.weight)
    };
    // Two KV heads of ten dimensions, each with two queries: rows 0..20 and 40..60 are queries, 20..30 and 60..70 keys.
    let [q, k, v] = block("falcon_new");
    let row = q.row_bytes();
    let start = q.extent.offset;
    let place = |m: &aerostat_arch::Matrix, r: usize| (m.rows_extent(r, 1).offset - start) / row;
    assert_eq!([0, 19, 20, 39].map(|r| place(&q, r)), [0, 19, 40, 59]);
    assert_eq!([0, 9, 10, 19].map(|r| place(&k, r)), [20, 29, 60, 69]);
    assert_eq!([0, 10].map(|r| place(&v, r)), [30, 70]);
    assert_eq!((q.run_rows(), k.run_rows()), (20, 10));
    // One KV head: the rows of each follow each other.
    let [q, k, _] = block("falcon");
    assert_eq!((q.runs, k.runs, q.rows, k.rows), (None, None, 40, 10));
    // Quarters of two heads of eight dimensions: queries, values, keys.
    let [q, k, v] = block("codegen");
    let start = q.extent.offset;
    let place = |m: &aerostat_arch::Matrix, r: usize| (m.rows_extent(r, 1).offset - start) / (64 * 2);
    assert_eq!([0, 15, 16].map(|r| place(&q, r)), [0, 15, 48]);
    assert_eq!((place(&v, 0), place(&k, 16)), (16, 32 + 48));
    let [q, k, v] = block("phi3");
    let start = q.extent.offset;
    assert_eq!(k.extent.offset, start + 40 * q.row_bytes());
    assert_eq!(v.extent.offset, start + 60 * q.row_bytes());
}

/// Names, types and values of a configuration came back whole, up to megabytes of them.
#[test]
fn no_error_repeats_much_of_a_configuration() {
    let long = "x".repeat(100_000);
    let quoted = format!("\"{long}\"");
    for (from, to) in [
        ("\"LlamaForCausalLM\"", format!("\"{long}ForCausalLM\"")),
        ("\"silu\"", quoted.clone()),
        ("\"rope_type\": \"default\"", format!("\"rope_type\": {quoted}")),
        ("\"hidden_size\": 40", format!("\"hidden_size\": {quoted}")),
        (
            "\"vocab_size\"",
            format!("\"quantization_config\": {{\"quant_method\": {quoted}}}, \"vocab_size\""),
        ),
    ] {
        let error = edited("llama", &[(from, &to)]).expect_err(from).to_string();
        assert!(error.len() < 1500, "{from}: {} characters", error.len());
    }
}

/// Of tensors that the family did not read nobody was told: the biases of a switch that it does not know.
#[test]
fn tensors_of_blocks_that_nothing_reads_are_noted() {
    for f in fixtures() {
        let notes = describe(&Checkpoint::open(&f.path).unwrap()).unwrap().notes;
        assert_eq!(notes, [""; 0], "{}", f.name);
    }
    let spec = edited("llama_bias", &[("\"attention_bias\": true", "\"attention_bias\": false")]).unwrap();
    assert!(spec.notes[0].contains("self_attn"), "{:?}", spec.notes);
}

/// Its class has the key and makes no such bias; the model was refused for lack of it.
#[test]
fn a_key_of_nemotron_h_that_its_class_does_not_follow_changes_nothing() {
    let spec = edited("nemotron_h", &[("\"attention_bias\": false", "\"attention_bias\": true")]).unwrap();
    assert!(spec.notes.is_empty(), "{:?}", spec.notes);
}

/// Layers without a window are rotated only where no layer could have one.
#[test]
fn a_window_that_is_not_given_is_the_usual_one_and_null_is_none() {
    let rotated = |name: &str, edits: Edits<'_>| {
        let spec = edited(name, edits).unwrap();
        spec.blocks.iter().all(|block| attention(block).rope.is_some())
    };
    assert!(rotated("exaone4_full", &[]), "null");
    assert!(!rotated("exaone4_full", &[("\"sliding_window\"", "\"x\"")]), "not given");
    let window = "\"sliding_window\": 6";
    assert!(rotated("exaone_moe_unrotated", &[(window, "\"sliding_window\": null")]), "null");
    assert!(!rotated("exaone_moe_unrotated", &[(window, "\"x\": 6")]), "not given");
}

#[test]
fn layers_of_delta_nets_are_listed_or_counted() {
    let layers = |name: &str| -> Vec<bool> {
        let spec = describe(&Checkpoint::open(&fixture(name).path).unwrap()).unwrap();
        spec.blocks.iter().map(|b| b.delta().is_some()).collect()
    };
    assert_eq!(layers("qwen3_next"), [true, true, true, false]);
    assert_eq!(layers("qwen3_next_sparse"), [true, false, true]);
    let delta = |to: &str| edited("qwen3_next", &[("\"linear_num_key_heads\": 2", to)]).map(|_| ());
    assert_eq!(delta("\"linear_num_key_heads\": 3").unwrap_err().kind(), ErrorKind::Config);
    let kernel = [("\"linear_conv_kernel_dim\": 4", "\"linear_conv_kernel_dim\": 1")];
    assert_eq!(edited("qwen3_next", &kernel).unwrap_err().kind(), ErrorKind::Unsupported);
}

fn attention(block: &Block) -> &AttentionSpec {
    block.attention().unwrap()
}

/// Plans of packed copies left out what compresses queries, keys and values, and the shared expert's gate.
#[test]
fn all_linear_maps_can_be_changed() {
    for f in fixtures() {
        let mut spec = describe(&Checkpoint::open(&f.path).unwrap()).unwrap();
        for linear in spec.blocks.iter_mut().flat_map(Block::linears_mut) {
            linear.weight.name = "changed".to_owned();
        }
        let head = [spec.head.weight.name.as_str()];
        let left = spec.matrices().map(|m| m.name.as_str()).filter(|name| *name != "changed");
        assert_eq!(left.collect::<Vec<_>>(), head, "{}", f.name);
    }
}
