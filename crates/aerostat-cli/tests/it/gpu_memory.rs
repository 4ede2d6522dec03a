//! A model of twenty times the memory of a device that it may use. Most of its file are holes, which read as zeros: they cost
//! no space, and pass through memory as other weights do. The same at full size is `oracle/check_vram.py`.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::support::{fixture, json as json_of, run};

const MIB: u64 = 1 << 20;
const VRAM: u64 = 36 * MIB;
const HIDDEN: u64 = 1024;
const INNER: u64 = 4096;
const KEYS: u64 = 256;
const VOCABULARY: u64 = 320;
const BLOCKS: u64 = 26;

/// Each tensor's shape; those of all blocks but the first and the last are holes.
fn tensors() -> Vec<(String, Vec<u64>, bool)> {
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN], true),
        ("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN], true),
        ("model.norm.weight".to_owned(), vec![HIDDEN], true),
    ];
    for block in 0..BLOCKS {
        let filled = block == 0 || block == BLOCKS - 1;
        let matrices = [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", KEYS, HIDDEN),
            ("self_attn.v_proj", KEYS, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", INNER, HIDDEN),
            ("mlp.up_proj", INNER, HIDDEN),
            ("mlp.down_proj", HIDDEN, INNER),
        ];
        let name = |part: &str| format!("model.layers.{block}.{part}.weight");
        all.extend(matrices.map(|(part, rows, cols)| (name(part), vec![rows, cols], filled)));
        let norms = ["input_layernorm", "post_attention_layernorm"];
        all.extend(norms.map(|part| (name(part), vec![HIDDEN], true)));
    }
    all
}

/// Writes the model's folder; gives the bytes of its weights.
fn write(folder: &Path) -> u64 {
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": BLOCKS, "num_attention_heads": 16, "num_key_value_heads": 4,
        "vocab_size": VOCABULARY, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16"});
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut end, mut filled) = (Map::new(), 0, Vec::new());
    for (name, shape, is_filled) in tensors() {
        let bytes = shape.iter().product::<u64>() * 2;
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes]}));
        if is_filled {
            filled.push((end, bytes));
        }
        end += bytes;
    }
    let header = Value::from(header).to_string().into_bytes();
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    let start = 8 + header.len() as u64;
    file.set_len(start + end).unwrap();
    let mut state = 1u32;
    for (at, bytes) in filled {
        // Numbers of either sign around 1/64.
        let values = (0..bytes / 2).flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (0x3c00u16 | (state >> 31 << 15) as u16 | (state >> 9 & 0xff) as u16).to_le_bytes()
        });
        let values: Vec<u8> = values.collect();
        file.seek(SeekFrom::Start(start + at)).unwrap();
        file.write_all(&values).unwrap();
    }
    end
}

/// What was measured before the plan was made took memory, too, and failed without a word on how much would do.
#[test]
fn too_little_memory_of_a_device_is_refused_with_the_least_that_does() {
    let model = fixture("llama");
    let score = |vram: &str| {
        let call =
            ["score", model.to_str().unwrap(), "--token-ids", "5,6,7", "--device", "gpu", "--vram", vram];
        run(&call)
    };
    for vram in ["1MiB", "16MiB", "24MiB"] {
        let refused = score(vram);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        let words = refused.stderr.split("this model needs at least ").nth(1).expect("the least");
        let least = words.split(' ').next().unwrap();
        assert_eq!(score(&format!("{least}MiB")).code, Some(0), "{least}");
    }
}

#[test]
fn twenty_times_the_memory_of_a_device_passes_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let weights = write(folder.path());
    assert!(weights >= 20 * VRAM, "{weights}");
    let model = folder.path().to_str().unwrap();
    let vram = VRAM.to_string();
    let device = ["--device", "gpu", "--vram", &vram, "--threads", "1"];
    let plan = json_of(&[&["plan", model, "--context", "16"][..], &device].concat());
    // The least that will do, and a little of what the process takes differs from run to run.
    let memory = plan["minimum_bytes"].as_u64().unwrap() + 8 * MIB;
    let budget = memory.to_string();
    let score = |more: &[&str]| json_of(&[&["score", model, "--token-ids", "5", "--logits"], more].concat());
    let streamed = score(&[&device[..], &["--memory", &budget]].concat());
    let (stats, gpu) = (&streamed["stats"], &streamed["stats"]["gpu"]);
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{stats}"));
    println!("{weights} bytes of weights, {VRAM} of device memory, {memory} of memory: {stats}");
    assert!(number(&gpu["memory_peak_bytes"]) <= VRAM, "{gpu}");
    assert!(gpu["reserved_bytes"].as_u64().is_none_or(|bytes| bytes <= VRAM), "{gpu}");
    assert!(number(&stats["memory_peak_bytes"]) <= memory, "{stats}");
    // What is streamed is sent, and what stays in the host's memory.
    let streamed_bytes = number(&stats["sweeps"]) * number(&stats["streamed_bytes_per_sweep"]);
    let sent = streamed_bytes..=streamed_bytes + number(&stats["pinned_bytes"]);
    assert!(streamed_bytes > weights / 10 * 9 && sent.contains(&number(&gpu["uploaded_bytes"])), "{stats}");
    // All of it on the device: nothing is sent, and the bits are the same.
    let ample = ["--device", "gpu", "--vram", "2GiB", "--memory", "4GiB", "--threads", "1"];
    let resident = score(&ample);
    assert_eq!(resident["stats"]["gpu"]["uploaded_bytes"], 0);
    assert_eq!(resident["results"], streamed["results"]);
}
