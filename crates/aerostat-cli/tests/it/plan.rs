//! A plan before the download: what is asked of a Hub that has the headers of large models, and what is said.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{command, fixture, run};

/// How long the server takes for a request.
const LATENCY: Duration = Duration::from_millis(20);
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file of the server: its first bytes, and how many it has.
type Listed = (Vec<u8>, u64);

/// A Hub with one repository, `org/name`, whose files of weights have headers and zeros.
struct Server {
    url: String,
    bytes: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

impl Server {
    fn start(files: BTreeMap<String, Listed>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (bytes, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (files, sent, asked) = (Arc::new(files), Arc::clone(&bytes), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, sent, asked) = (Arc::clone(&files), Arc::clone(&sent), Arc::clone(&asked));
                thread::spawn(move || while answer(&stream, &files, &sent, &asked).is_some() {});
            }
        });
        Self { url, bytes, requests }
    }

    fn command(&self, args: &[&str]) -> Output {
        let home = tempfile::tempdir().unwrap();
        let mut command = command(args);
        command.env("HF_ENDPOINT", &self.url).env("HF_HOME", home.path()).env("TMPDIR", home.path());
        command.env("NO_PROXY", "127.0.0.1").env("AEROSTAT_CACHE", home.path()).env_remove("HF_HUB_OFFLINE");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        output
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.command(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Answers one request; `None` at the end of a connection.
fn answer(
    mut stream: &TcpStream,
    files: &BTreeMap<String, Listed>,
    sent: &AtomicU64,
    asked: &AtomicU64,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let (mut path, mut range) = (String::new(), None);
    while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
        match line.trim().split_once(' ') {
            Some(("GET", rest)) => path = rest.split(' ').next()?.to_owned(),
            Some((name, value)) if name.eq_ignore_ascii_case("range:") => {
                let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
                range = Some((start.parse::<u64>().ok()?, end.parse::<u64>().ok()? + 1));
            }
            _ => {}
        }
        line.clear();
    }
    if path.is_empty() {
        return None;
    }
    asked.fetch_add(1, Ordering::Relaxed);
    thread::sleep(LATENCY);
    let name = path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, name)| name);
    let (status, body, total) = if path.starts_with("/api/models/org/name/") {
        let siblings: Vec<Value> =
            files.iter().map(|(name, (_, size))| json!({"rfilename": name, "size": size})).collect();
        let body = json!({"sha": COMMIT, "siblings": siblings}).to_string().into_bytes();
        let total = body.len() as u64;
        ("200 OK", body, total)
    } else if let Some((first, size)) = name.and_then(|name| files.get(name)) {
        let (start, end) = range.unwrap_or((0, *size));
        assert!(end.min(*size) - start < 8 << 20, "{path} was asked for whole");
        let body = (start..end.min(*size)).map(|at| first.get(at as usize).copied().unwrap_or(0)).collect();
        (if range.is_some() { "206 Partial Content" } else { "200 OK" }, body, *size)
    } else {
        ("404 Not Found", Vec::new(), 0)
    };
    let (start, end) = (range.map_or(0, |range| range.0), range.map_or(total, |range| range.1).min(total));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {start}-{}/{total}\r\n\r\n",
        body.len(),
        end.saturating_sub(1)
    );
    sent.fetch_add((head.len() + body.len()) as u64, Ordering::Relaxed);
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).ok()
}

/// Llama 3.1 70B as it lies on the Hub: thirty shards of BF16, an index, and a vocabulary that nobody needs for a plan.
fn llama_70b() -> BTreeMap<String, Listed> {
    const SHARDS: usize = 30;
    let (hidden, inter, kv, vocab, blocks) = (8192, 28672, 1024, 128_256, 80);
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])];
    for block in 0..blocks {
        let mut add = |name: &str, shape: &[u64]| {
            tensors.push((format!("model.layers.{block}.{name}.weight"), shape.to_vec()))
        };
        add("self_attn.q_proj", &[hidden, hidden]);
        add("self_attn.k_proj", &[kv, hidden]);
        add("self_attn.v_proj", &[kv, hidden]);
        add("self_attn.o_proj", &[hidden, hidden]);
        add("mlp.gate_proj", &[inter, hidden]);
        add("mlp.up_proj", &[inter, hidden]);
        add("mlp.down_proj", &[hidden, inter]);
        add("input_layernorm", &[hidden]);
        add("post_attention_layernorm", &[hidden]);
    }
    tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
    tensors.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": inter, "num_hidden_layers": blocks, "num_attention_heads": 64, "num_key_value_heads": 8,
        "vocab_size": vocab, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
        "torch_dtype": "bfloat16", "tie_word_embeddings": false});
    let mut files: BTreeMap<String, Listed> = BTreeMap::new();
    let mut small = |name: &str, text: String| {
        let size = text.len() as u64;
        files.insert(name.to_owned(), (text.into_bytes(), size));
    };
    small("config.json", config.to_string());
    let shard_of =
        |i: usize| format!("model-{:05}-of-{SHARDS:05}.safetensors", i * SHARDS / tensors.len() + 1);
    let map: serde_json::Map<String, Value> =
        tensors.iter().enumerate().map(|(i, (name, _))| (name.clone(), shard_of(i).into())).collect();
    small("model.safetensors.index.json", json!({"metadata": {}, "weight_map": map}).to_string());
    files.insert("tokenizer.json".to_owned(), (Vec::new(), 9_085_657));
    let mut shards: BTreeMap<String, (serde_json::Map<String, Value>, u64)> = BTreeMap::new();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let (header, data) = shards.entry(shard_of(i)).or_default();
        let end = *data + shape.iter().product::<u64>() * 2;
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [*data, end]}));
        *data = end;
    }
    for (name, (header, data)) in shards {
        let header = Value::Object(header).to_string().into_bytes();
        let first = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
        let size = first.len() as u64 + data;
        files.insert(name, (first, size));
    }
    files
}

#[test]
fn a_model_of_141_gb_is_planned_from_its_headers_alone() {
    let server = Server::start(llama_70b());
    let args = ["plan", "org/name", "--memory", "16GiB", "--disk", "3.5GB/s", "--cores", "8"];
    let begun = Instant::now();
    let plan = server.json(&args);
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    assert_eq!((&plan["downloaded"], &plan["fits"]), (&json!(false), &json!(false)));
    assert_eq!(plan["parameters"], 70_553_706_496_u64);
    // The vocabulary counts as what it would take.
    assert!(plan["overhead_bytes"].as_u64().unwrap() > 9_000_000);
    let verdict = plan["verdict"].as_str().unwrap();
    assert!(
        verdict.starts_with("Does not fit: 12") && verdict.contains(" of 141 GB will stream; about 3"),
        "{verdict}"
    );
    assert!(
        verdict.contains(" s a token for one prompt (")
            && verdict.contains(" answers of 200 tokens a night; packed: lossless 2"),
        "{verdict}"
    );
    let (bytes, requests) = (server.bytes.load(Ordering::Relaxed), server.requests.load(Ordering::Relaxed));
    assert!(bytes < 5_000_000, "{bytes} bytes");
    // The listing, two small files, the headers: eight requests at a time take 20 ms each.
    assert!(requests <= 3 + 30, "{requests} requests");

    let output = server.command(&args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("Does not fit: ") && text.contains("knee at"), "{text}");
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(
        note.contains("org/name is not on this machine") && note.contains("of headers were fetched"),
        "{note}"
    );
    // Another machine may have more memory than this one.
    assert!(!note.contains("this machine has"), "{note}");
}

#[test]
fn a_disk_that_nobody_knows_is_assumed_and_said_to_be() {
    let server = Server::start(llama_70b());
    let plan = server.json(&["plan", "https://huggingface.co/org/name", "--memory", "8GiB"]);
    let verdict = plan["verdict"].as_str().unwrap();
    assert!(verdict.contains("--disk names yours"), "{verdict}");
    let [best, expected, worst] = [0, 1, 2].map(|i| plan["token_seconds"][i].as_f64().unwrap());
    assert!(best < expected && expected < worst && worst > 200.0, "{plan}");
}

#[test]
fn inspect_of_what_is_not_here_reads_headers() {
    let server = Server::start(llama_70b());
    let report = server.json(&["inspect", "org/name"]);
    assert_eq!((&report["downloaded"], &report["family"]), (&json!(false), &json!("llama")));
    assert_eq!(report["tensors"][0]["file"], "model-00001-of-00030.safetensors");
    let output = server.command(&["inspect", "org/name"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("not on this machine"));
    let output = server.command(&["inspect", "org/other"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_gguf_file_is_found_by_its_quantisation_and_planned_from_its_header() {
    let twin = fs::read(fixture("chat").join("twin.gguf")).unwrap();
    let size = twin.len() as u64;
    let files = ["name-Q8_0.gguf", "name-BF16.gguf"].map(|name| (name.to_owned(), (twin.clone(), size)));
    let server = Server::start(files.into_iter().collect());
    for name in ["hf.co/org/name:BF16", "org/name:bf16", "org/name:name-BF16.gguf"] {
        let plan = server.json(&["plan", name]);
        assert_eq!((&plan["downloaded"], &plan["fits"]), (&json!(false), &json!(true)), "{name}");
    }
    let output = server.command(&["plan", "org/name:Q4_K_M"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && message.contains("name-Q8_0.gguf"), "{message}");
}

/// Before, "no *.safetensors; was the download finished?" was all that was said.
#[test]
fn a_folder_with_an_index_and_nothing_else_is_planned_if_its_bytes_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let of = |total: u64| {
        let all = llama_70b();
        let text = |name: &str| serde_json::from_slice::<Value>(&all[name].0).unwrap();
        fs::write(folder.path().join("config.json"), text("config.json").to_string()).unwrap();
        let mut index = text("model.safetensors.index.json");
        index["metadata"]["total_size"] = total.into();
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        run(&["plan", folder.path().to_str().unwrap(), "--disk", "1GB/s", "--memory", "4GiB", "--json"])
    };
    let outcome = of(141_107_412_992);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&plan["parameters"], &plan["downloaded"]), (&json!(70_553_706_496_u64), &json!(false)));
    let outcome = of(141_107_412_990);
    assert!(
        outcome.code == Some(1) && outcome.stderr.contains("the index states 141107412990 bytes"),
        "{}",
        outcome.stderr
    );
}

/// A folder that somebody copied the first bytes of, to see whether the rest is worth it.
#[test]
fn a_folder_of_headers_is_planned_and_not_run() {
    let folder = crate::support::copy("llama_sharded_f16");
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = fs::read(&path).unwrap();
            let header = u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap()) as usize + 8;
            fs::write(&path, &bytes[..header + 100]).unwrap();
        }
    }
    let of = |folder: &Path| {
        let outcome = run(&["plan", folder.to_str().unwrap(), "--disk", "1GB/s", "--json"]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
        (plan["weight_bytes"].clone(), plan["parameters"].clone(), plan["downloaded"].clone())
    };
    let (bytes, parameters, here) = of(&fixture("llama_sharded_f16"));
    assert_eq!((of(folder.path()), here), ((bytes, parameters, json!(false)), json!(true)));
    let outcome = run(&["run", folder.path().to_str().unwrap(), "--token-ids", "5"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
}

/// Of an encoder a plan told of tokens and answers, which it does not give.
#[test]
fn a_plan_of_an_encoder_tells_of_texts() {
    let model = fixture("encoders/bert");
    let outcome = run(&["plan", model.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("texts of 200 tokens"), "{outcome:?}");
    assert!(!outcome.stdout.contains("answers"), "{outcome:?}");
}
