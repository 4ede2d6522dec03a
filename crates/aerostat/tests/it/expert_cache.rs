//! Experts in memory follow the text: what is read, expert by expert, is what a simulation of the policy says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aerostat::bench::{ExpertsReport, experts};
use aerostat::{Draft, Engine, ModelFiles, Options, Parts, Request, Silent, Stats};
use aerostat_checkpoint::Extent;
use aerostat_stream::{Done, Error, Gathered, IoKind, Read, Source};
use serde_json::{Value, json};

const EXPERTS: usize = 128;
const CHOSEN: usize = 8;
const LAYERS: usize = 2;
const HIDDEN: usize = 64;
const WIDTH: usize = 64;
const VOCAB: usize = 256;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }
}

/// A mixture of 128 experts in each of two layers, of which a row uses 8, as its token says: its attention adds next to
/// nothing.
fn model(folder: &Path) -> ModelFiles {
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": HIDDEN,
        "intermediate_size": 32, "moe_intermediate_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "num_experts": EXPERTS,
        "num_experts_per_tok": CHOSEN, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "vocab_size": VOCAB, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "tie_word_embeddings": false,
        "attention_bias": false, "dtype": "float32"
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut tensors: BTreeMap<String, (Vec<usize>, f32)> = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize], size: f32| {
        tensors.insert(name.to_owned(), (shape.to_vec(), size));
    };
    add("model.embed_tokens.weight", &[VOCAB, HIDDEN], 1.0);
    add("lm_head.weight", &[VOCAB, HIDDEN], 0.5);
    add("model.norm.weight", &[HIDDEN], 1.0);
    for layer in 0..LAYERS {
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        add(&at("input_layernorm"), &[HIDDEN], 1.0);
        add(&at("post_attention_layernorm"), &[HIDDEN], 1.0);
        for (name, shape) in
            [("q", [32, HIDDEN]), ("k", [16, HIDDEN]), ("v", [16, HIDDEN]), ("o", [HIDDEN, 32])]
        {
            add(&at(&format!("self_attn.{name}_proj")), &shape, 0.01);
        }
        add(&at("self_attn.q_norm"), &[16], 1.0);
        add(&at("self_attn.k_norm"), &[16], 1.0);
        add(&at("mlp.gate"), &[EXPERTS, HIDDEN], 1.0);
        for expert in 0..EXPERTS {
            for (name, shape) in
                [("gate", [WIDTH, HIDDEN]), ("up", [WIDTH, HIDDEN]), ("down", [HIDDEN, WIDTH])]
            {
                add(&at(&format!("mlp.experts.{expert}.{name}_proj")), &shape, 0.1);
            }
        }
    }
    let (mut header, mut data, mut dice) = (serde_json::Map::new(), Vec::new(), Dice(7));
    for (name, (shape, size)) in &tensors {
        let begin = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            let value = match shape.len() {
                1 => 1.0,
                _ => (dice.below(2001) as f32 / 1000.0 - 1.0) * size,
            };
            data.extend_from_slice(&value.to_le_bytes());
        }
        header.insert(
            name.clone(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    ModelFiles::open(folder).unwrap()
}

/// Tokens that keep to the last few different ones for a while.
fn text(tokens: usize, seed: u64) -> Vec<u32> {
    let (mut dice, mut recent): (Dice, Vec<u32>) = (Dice(seed), vec![1]);
    let mut text = Vec::new();
    for _ in 0..tokens {
        let token = match dice.below(100) < 75 {
            true => recent[dice.below(recent.len())],
            false => dice.below(VOCAB) as u32,
        };
        recent.retain(|t| *t != token);
        recent.insert(0, token);
        recent.truncate(3);
        text.push(token);
    }
    text
}

/// A source that writes down what passes through it.
struct Watched {
    inner: Box<dyn Source>,
    seen: Arc<Mutex<Vec<Extent>>>,
}

impl Source for Watched {
    fn kind(&self) -> IoKind {
        self.inner.kind()
    }
    fn alignment(&self) -> usize {
        self.inner.alignment()
    }
    fn depth_max(&self) -> usize {
        self.inner.depth_max()
    }
    fn submit(&mut self, read: Read) {
        self.seen.lock().unwrap().push(read.extent);
        self.inner.submit(read);
    }
    fn wait(&mut self) -> Option<Done> {
        self.inner.wait()
    }
    fn poll(&mut self) -> Option<Done> {
        self.inner.poll()
    }
    fn cancel(&mut self) {
        self.inner.cancel();
    }
    fn read_many_now(&mut self, extents: &[Extent], out: &mut [u8]) -> Result<Gathered, Error> {
        self.inner.read_many_now(extents, out)
    }
    fn cpu_time(&self) -> Duration {
        self.inner.cpu_time()
    }
}

/// What a run with so many slots of each layer gave.
struct Run {
    logprobs: Vec<u32>,
    stats: Stats,
    /// (layer, expert) of every expert that was read, in order.
    read: Vec<(usize, u32)>,
    report: ExpertsReport,
    trace: Vec<(u64, usize, Vec<u32>)>,
}

/// Reads a text, so many tokens a sweep, with room for so many experts of each layer.
fn read(files: &ModelFiles, text: &[u32], slots: usize, rows: usize) -> Run {
    // A tile, and what reading aligned to pages adds at both ends.
    const TILE: u64 = (HIDDEN * WIDTH * 4 + 2 * 4096) as u64;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let certain = |bytes: u64| bytes.next_multiple_of(4096);
    let spec = files.spec();
    let matrices = spec.blocks.iter().flat_map(|block| block.linears()).map(|(_, linear)| &linear.weight);
    let pinned: u64 = matrices.chain([&spec.head.weight]).map(|m| certain(m.bytes())).sum();
    let options = Options {
        pinned_bytes_max: Some(pinned + (LAYERS * slots) as u64 * 3 * TILE),
        prefill_chunk: Some(rows),
        expert_trace: Some(path.clone()),
        draft: Draft::None,
        ..Options::default()
    };
    let request =
        Request { token_ids: text.to_vec(), max_new_tokens: 4, top_logprobs: Some(5), ..Request::default() };
    let requests = std::slice::from_ref(&request);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let parts = Parts::of(files, &options).unwrap();
    let source = Box::new(Watched { inner: parts.source, seen: Arc::clone(&seen) });
    let need = aerostat::generate::need(requests);
    let mut engine =
        Engine::open_with(files, &options, &need, Parts { source, ..parts }, &mut Silent).unwrap();
    assert_eq!(engine.current_plan().expert_slots, [slots; LAYERS]);
    let answers = engine.generate(requests, None, &mut Silent).unwrap();
    let answer = answers.completions[0].as_ref().unwrap();
    let top = answer.top_logprobs.iter().flatten().flatten();
    let (logprobs, stats) = (top.map(|(_, logprob)| logprob.to_bits()).collect(), engine.stats());
    // Which expert a tile is of.
    let plan = engine.current_plan();
    let mut of = BTreeMap::new();
    for (layer, expert) in
        (0..LAYERS).flat_map(|layer| (0..EXPERTS as u32).map(move |expert| (layer, expert)))
    {
        let first = plan.expert_steps(spec, layer, expert)[0].extent;
        of.insert((first.file.0, first.offset), (layer, expert));
    }
    let read = seen.lock().unwrap().iter().filter_map(|e| of.get(&(e.file.0, e.offset))).copied().collect();
    drop(engine);
    let trace = std::fs::read_to_string(&path).unwrap();
    let trace = trace.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let experts = line["experts"].as_array().unwrap().iter().map(|e| e.as_u64().unwrap() as u32);
        (line["sweep"].as_u64().unwrap(), line["layer"].as_u64().unwrap() as usize, experts.collect())
    });
    let trace = trace.collect();
    let report = experts(&path, Some(EXPERTS), &[slots as f64 / EXPERTS as f64]).unwrap();
    Run { logprobs, stats, read, report, trace }
}

/// The experts that are read if those in memory are the last used, and none leaves for another of its own sweep: written
/// down from the definition, with lists and nothing else.
fn simulate(trace: &[(u64, usize, Vec<u32>)], slots: usize) -> Vec<(usize, u32)> {
    // By layer, those used last at the end.
    let mut memory: Vec<Vec<u32>> = vec![Vec::new(); LAYERS];
    let mut read = Vec::new();
    for (_, layer, used) in trace {
        let memory = &mut memory[*layer];
        let there = memory.clone();
        for expert in used.iter().filter(|e| !there.contains(e)) {
            read.push((*layer, *expert));
            if memory.len() == slots
                && let Some(oldest) = memory.iter().position(|e| !used.contains(e))
            {
                memory.remove(oldest);
            }
            if memory.len() < slots {
                memory.push(*expert);
            }
        }
        let last: Vec<u32> = used.iter().copied().filter(|e| memory.contains(e)).collect();
        memory.retain(|e| !used.contains(e));
        memory.extend(last);
    }
    read
}

#[test]
fn reads_follow_the_text_as_a_simulation_says_and_bits_never_change() {
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let text = text(400, 3);
    let all = read(&files, &text, 0, 1);
    let uses = (text.len() + 3) * LAYERS * CHOSEN;
    assert_eq!((all.report.uses, all.read.len()), (uses as u64, uses), "without a cache every use is a read");
    for (share, slots) in [(0.1, 12), (0.2, 25), (0.4, 51)] {
        let run = read(&files, &text, slots, 1);
        assert_eq!((&run.logprobs, &run.trace), (&all.logprobs, &all.trace), "{slots}");
        let simulated = simulate(&run.trace, slots);
        let bytes = files.spec().blocks[0].experts.as_ref().unwrap().mlps[0].bytes();
        assert_eq!(run.read, simulated, "{slots}: expert by expert");
        assert_eq!(run.stats.expert_bytes, run.read.len() as u64 * bytes);
        // What `bench experts` says of this trace is what was read.
        let point = run.report.points[0];
        assert_eq!(((1.0 - point.recency) * uses as f64).round() as usize, run.read.len(), "{share}");
        let fixed = (1.0 - share) * uses as f64;
        assert!(share != 0.2 || run.read.len() as f64 <= 0.45 * fixed, "{} of {fixed}", run.read.len());
        assert!(point.best >= point.recency && point.recency > point.fixed, "{point:?}");
    }
}

#[test]
fn sweeps_of_many_rows_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    // Tokens without any order: 64 of them use nearly all experts.
    let mut dice = Dice(5);
    let text: Vec<u32> = (0..640).map(|_| dice.below(VOCAB) as u32).collect();
    let none = read(&files, &text, 0, 64);
    let some = read(&files, &text, 25, 64);
    assert_eq!(some.logprobs, none.logprobs);
    // A fixed set finds the share of it that each sweep uses.
    let fixed: usize = none.trace.iter().map(|(_, _, used)| used.iter().filter(|e| **e >= 25).count()).sum();
    assert!(some.read.len() as f64 <= 1.03 * fixed as f64, "{} of {fixed}", some.read.len());
}
