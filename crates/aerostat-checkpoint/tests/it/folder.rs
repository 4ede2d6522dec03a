//! What lies in a folder and what is opened of it.

use std::fs;
use std::path::Path;

use aerostat_checkpoint::ErrorKind::{self, *};
use aerostat_checkpoint::{Checkpoint, Config, Error, TextFiles};

use crate::write::{Gguf, gguf_part, pytorch_vectors, vectors};

type Files<'a> = &'a [(&'a str, Vec<u8>)];

const CONFIG: &str = r#"{"model_type":"llama","window":Infinity,"text":"NaN \" NaN"}"#;
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn the_weights_of_a_folder_are_found() {
    let config = || ("config.json", CONFIG.into());
    let index = |map: &str| (INDEX, format!(r#"{{"weight_map":{map}}}"#).into_bytes());
    let cases: &[(&str, Files<'_>, &[&str])] = &[
        ("one file", &[config(), ("model.safetensors", vectors(&["a", "b"]))], &["a", "b"]),
        (
            "one file before an index",
            &[config(), ("model.safetensors", vectors(&["a"])), index(r#"{"b":"gone.safetensors"}"#)],
            &["a"],
        ),
        (
            "shards in the order of their names",
            &[
                config(),
                index(r#"{"b":"y.safetensors","a":"x.safetensors"}"#),
                ("y.safetensors", vectors(&["b", "a"])),
                ("x.safetensors", vectors(&["a", "extra"])),
                ("z.safetensors", vectors(&["not in the index"])),
            ],
            &["a", "extra", "b"],
        ),
        (
            "shards without an index, beside a copy",
            &[
                config(),
                ("model-00001-of-00002.safetensors", vectors(&["a"])),
                ("model-00002-of-00002.safetensors", vectors(&["b"])),
                ("consolidated.safetensors", vectors(&["copy"])),
            ],
            &["a", "b"],
        ),
        ("another name", &[config(), ("consolidated.safetensors", vectors(&["a"]))], &["a"]),
        ("a lone GGUF", &[config(), ("m.gguf", Gguf::new().vector("g").bytes())], &["g"]),
        (
            "a lone split set and a projector",
            &[
                ("m-00002-of-00002.gguf", gguf_part(2, 2, "b", 2)),
                ("m-00001-of-00002.gguf", gguf_part(1, 2, "a", 2)),
                ("mmproj-m.gguf", Gguf::new().bytes()),
            ],
            &["a", "b"],
        ),
    ];
    assert_found(cases);
}

#[test]
fn pytorch_files_are_found_where_there_are_no_safetensors() {
    let config = || ("config.json", CONFIG.into());
    assert_found(&[
        ("a PyTorch file", &[config(), ("pytorch_model.bin", pytorch_vectors(&["a", "b"]))], &["a", "b"]),
        (
            "PyTorch shards beside an optimizer",
            &[
                config(),
                ("pytorch_model-00001-of-00002.bin", pytorch_vectors(&["a"])),
                ("pytorch_model-00002-of-00002.bin", pytorch_vectors(&["b"])),
                ("optimizer.bin", Vec::new()),
            ],
            &["a", "b"],
        ),
        (
            "PyTorch shards with an index",
            &[
                config(),
                ("pytorch_model.bin.index.json", br#"{"weight_map":{"a":"x.bin","b":"y.bin"}}"#.to_vec()),
                ("x.bin", pytorch_vectors(&["a"])),
                ("y.bin", pytorch_vectors(&["b", "a"])),
            ],
            &["a", "b"],
        ),
        (
            "safetensors before PyTorch",
            &[config(), ("pytorch_model.bin", Vec::new()), ("model.safetensors", vectors(&["a"]))],
            &["a"],
        ),
    ]);
}

#[test]
fn what_cannot_be_opened_is_refused_with_a_hint() {
    let config = || ("config.json", CONFIG.into());
    let index = |map: &str| (INDEX, format!(r#"{{"weight_map":{map}}}"#).into_bytes());
    let weights = || ("model.safetensors", vectors(&["a"]));
    assert_refused(&[
        (&[], "gone", NotFound, "config.json and *.safetensors"),
        (&[], "", NotFound, "holds no model"),
        (&[config()], "", NotFound, "no *.safetensors"),
        (&[weights()], "", NotFound, "no config.json"),
        (&[config(), weights()], "model.safetensors", Unsupported, "give the folder"),
        (&[config(), weights()], "config.json", Unsupported, "give the folder"),
        (&[("notes.txt", b"hello".to_vec())], "notes.txt", Unsupported, "not a GGUF"),
        (&[config(), ("pytorch_model.bin", Vec::new())], "", Truncated, "pytorch_model.bin"),
        (&[config(), ("training_args.bin", Vec::new())], "", Unsupported, "pytorch_model.bin"),
        (&[("pytorch_model.bin", Vec::new())], "", NotFound, "no config.json"),
        (&[config(), ("pytorch_model.bin", Vec::new())], "pytorch_model.bin", Unsupported, "give the folder"),
        (
            &[config(), ("pytorch_model-00001-of-00002.bin", pytorch_vectors(&["a"]))],
            "",
            MissingShard,
            "pytorch_model-00002-of-00002.bin",
        ),
        (&[("a.gguf", Vec::new()), ("b.gguf", Vec::new())], "", NotFound, "a.gguf, b.gguf"),
        (&[("config.json", b"{\"a\":\n1,}".to_vec()), weights()], "", ErrorKind::Config, "line 2 column"),
        (&[("config.json", b"[]".to_vec()), weights()], "", ErrorKind::Config, "not an object"),
        (
            &[config(), ("generation_config.json", b"{".to_vec()), weights()],
            "",
            ErrorKind::Config,
            "generation_config.json",
        ),
        (&[config(), index(r#"{"a":"gone.safetensors"}"#)], "", MissingShard, "gone.safetensors"),
        (&[config(), index(r#"{"a":"../x.safetensors"}"#)], "", Header, "../x.safetensors"),
        (
            &[
                config(),
                index(r#"{"a":"x.safetensors","b":"x.safetensors"}"#),
                ("x.safetensors", vectors(&["a"])),
            ],
            "",
            MissingTensor,
            "x.safetensors: tensor \"b\"",
        ),
        (
            &[config(), ("model-00002-of-00002.safetensors", vectors(&["a"]))],
            "",
            MissingShard,
            "model-00001-of-00002.safetensors",
        ),
        (
            &[config(), ("x.safetensors", vectors(&["a"])), ("y.safetensors", vectors(&["a"]))],
            "",
            Header,
            "occurs twice, first in",
        ),
    ]);
}

#[test]
fn broken_split_sets_are_refused() {
    let split = |number| gguf_part(number, 2, "a", 2);
    assert_refused(&[
        (
            &[("m-00002-of-00002.gguf", split(2))],
            "m-00002-of-00002.gguf",
            MissingShard,
            "m-00001-of-00002.gguf",
        ),
        (&[("renamed.gguf", split(2))], "renamed.gguf", MissingShard, "one part of 2"),
        (
            &[("m-00001-of-00002.gguf", split(1)), ("m-00002-of-00002.gguf", split(1))],
            "m-00001-of-00002.gguf",
            Header,
            "split.no",
        ),
        (
            &[("m-00001-of-00002.gguf", split(1)), ("m-00002-of-00002.gguf", gguf_part(2, 2, "a", 2))],
            "",
            Header,
            "occurs twice",
        ),
        (
            &[
                ("m-00001-of-00002.gguf", gguf_part(1, 2, "a", 3)),
                ("m-00002-of-00002.gguf", gguf_part(2, 2, "b", 3)),
            ],
            "",
            Header,
            "should have 3 tensors",
        ),
    ]);
}

#[test]
fn configuration_and_text_files_are_found() {
    let files = [
        ("config.json", CONFIG.into()),
        ("generation_config.json", b"{\"eos_token_id\":2}".to_vec()),
        ("model.safetensors", vectors(&["a"])),
        ("tokenizer.json", b"not read".to_vec()),
        ("chat_template.jinja", Vec::new()),
    ];
    let checkpoint = open(&files, "").unwrap();
    let Config::HuggingFace(config) = &checkpoint.config else { panic!("not a Hugging Face folder") };
    assert_eq!(config.config["model_type"], "llama");
    assert!(config.config["window"].is_null());
    assert_eq!(config.config["text"], "NaN \" NaN");
    assert_eq!(config.generation.as_ref().unwrap()["eos_token_id"], 2);
    let TextFiles::HuggingFace { tokenizer_json, tokenizer_model, chat_template, .. } = &checkpoint.text
    else {
        panic!("not a Hugging Face folder")
    };
    assert!(tokenizer_json.as_ref().is_some_and(|path| path.ends_with("tokenizer.json")));
    assert!(chat_template.is_some() && tokenizer_model.is_none());
    let error = checkpoint.catalog.require("b").unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (MissingTensor, Some("b")));
    let tensor = checkpoint.catalog.require("a").unwrap();
    assert!(checkpoint.catalog.file_of(tensor).ends_with("model.safetensors"));
}

#[test]
fn any_part_opens_the_whole_split_set() {
    let files: Vec<(String, Vec<u8>)> = (1..=3)
        .map(|number| {
            (format!("m-0000{number}-of-00003.gguf"), gguf_part(number, 3, &format!("t{number}"), 3))
        })
        .collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    for (name, _) in &files {
        let checkpoint = open(&files, name).unwrap();
        assert_eq!((checkpoint.catalog.len(), checkpoint.catalog.files().len()), (3, 3), "{name}");
        assert!(checkpoint.path.ends_with("m-00001-of-00003.gguf"));
        let tensor = checkpoint.catalog.require("t2").unwrap();
        assert!(checkpoint.catalog.file_of(tensor).ends_with("m-00002-of-00003.gguf"));
    }
}

/// The converter writes `general.alignment` into the first part only; the others once fell back to 32, and their
/// tensors were read from the wrong place.
#[test]
fn the_first_parts_alignment_holds_for_all() {
    let part = |number: u16| {
        let mut file = Gguf::new()
            .entry("split.no", 2, (number - 1).to_le_bytes())
            .entry("split.count", 2, 2u16.to_le_bytes())
            .vector(&format!("t{number}"));
        if number == 1 {
            file = file.entry("general.alignment", 4, 512u32.to_le_bytes());
        }
        file.alignment = 512;
        file.bytes()
    };
    let files = [("m-00001-of-00002.gguf", part(1)), ("m-00002-of-00002.gguf", part(2))];
    let catalog = open(&files, "m-00001-of-00002.gguf").unwrap().catalog;
    for tensor in ["t1", "t2"] {
        assert_eq!(catalog.require(tensor).unwrap().extent.offset % 512, 0, "{tensor}");
    }
}

/// Each case: what it is, the files of a folder, and the tensors that are found.
fn assert_found(cases: &[(&str, Files<'_>, &[&str])]) {
    for (what, files, expected) in cases {
        let checkpoint = open(files, "").unwrap_or_else(|error| panic!("{what}: {error}"));
        let names: Vec<&str> = checkpoint.catalog.tensors().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(&names, expected, "{what}");
    }
}

/// Each case: the files of a folder, what to open in it, the kind of the error, and words of its message.
fn assert_refused(cases: &[(Files<'_>, &str, ErrorKind, &str)]) {
    for (files, path, kind, words) in cases {
        let error = open(files, path).err().unwrap_or_else(|| panic!("opened, without {words:?}"));
        assert_eq!(error.kind(), *kind, "{error}");
        assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
    }
}

/// Opens `path` in a folder of these files; everything is read by then.
fn open(files: Files<'_>, path: &str) -> Result<Checkpoint, Error> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    Checkpoint::open(&folder.path().join(Path::new(path)))
}

/// Adapters were taken for models that lack their configuration, or their weights.
#[test]
fn an_adapter_is_said_to_be_one() {
    let adapter = |json: &str| ("adapter_config.json", json.as_bytes().to_vec());
    let lora = || adapter(r#"{"base_model_name_or_path":"meta/x","peft_type":"LORA"}"#);
    let weights = || ("adapter_model.safetensors", vectors(&["lora_A.weight"]));
    let config = || ("config.json", CONFIG.into());
    assert_refused(&[
        (&[lora(), weights()], "", Unsupported, "adapter (LORA) of the model `meta/x`"),
        (&[lora()], "", Unsupported, "adapter (LORA) of the model `meta/x`"),
        (&[adapter("{}"), weights(), config()], "", Unsupported, "adapter of another model"),
        (
            &[adapter("{}"), ("adapter_model.bin", Vec::new()), config()],
            "",
            Unsupported,
            "adapter of another",
        ),
    ]);
    let beside = open(&[lora(), weights(), config(), ("model.safetensors", vectors(&["a"]))], "").unwrap();
    assert_eq!(beside.adapter.unwrap().base.as_deref(), Some("meta/x"));
    assert_eq!(beside.catalog.len(), 1, "the adapter's tensors are not the model's");
    let shards = [lora(), weights(), config(), ("model-00001-of-00001.safetensors", vectors(&["a"]))];
    assert_eq!(open(&shards, "").unwrap().catalog.len(), 1);
}

/// Pipes hang whoever reads them, devices give what they like.
#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused() {
    let files = || [("config.json", CONFIG.into()), ("model.safetensors", vectors(&["a"]))];
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "chat_template.jinja",
    ] {
        for kind in ["pipe", "device", "folder"] {
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in files() {
                fs::write(folder.path().join(name), content).unwrap();
            }
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            match kind {
                "pipe" => {
                    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success())
                }
                "device" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let error = Checkpoint::open(folder.path()).expect_err(kind);
            assert_eq!((error.kind(), error.path()), (Unsupported, path.as_path()), "{error}");
        }
    }
    assert_eq!(Checkpoint::open(Path::new("/dev/null")).unwrap_err().kind(), Unsupported);
}

/// Names of tensors, shards and types came back whole, up to a megabyte of them.
#[test]
fn no_error_repeats_much_of_a_file() {
    let long = "\u{1}x".repeat(200_000);
    let text = serde_json::to_string(&long).unwrap();
    let config = || ("config.json", CONFIG.into());
    let header = |header: &str| ("model.safetensors", crate::write::safetensors(header, 8));
    let cases: [Vec<(&str, Vec<u8>)>; 5] = [
        vec![config(), (INDEX, format!(r#"{{"weight_map":{{"a":{text}}}}}"#).into_bytes()), header("{}")],
        vec![
            config(),
            (INDEX, format!(r#"{{"weight_map":{{{text}:"a.safetensors"}}}}"#).into()),
            ("a.safetensors", vectors(&[])),
        ],
        vec![config(), header(&format!(r#"{{"a":{{"dtype":{text},"shape":[2],"data_offsets":[0,8]}}}}"#))],
        vec![config(), header(&format!(r#"{{{text}:{{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}}}"#))],
        vec![(
            "adapter_config.json",
            format!(r#"{{"peft_type":{text},"base_model_name_or_path":{text}}}"#).into(),
        )],
    ];
    for (index, files) in cases.iter().enumerate() {
        // An index counts where there is no single file.
        let files: Vec<_> = files
            .iter()
            .map(|(n, c)| {
                (if index == 0 && *n == "model.safetensors" { "b.safetensors" } else { n }, c.clone())
            })
            .collect();
        let error = open(&files, "").expect_err("hostile").to_string();
        assert!(error.len() < 2000, "case {index}: {} bytes", error.len());
    }
}

/// Two million numbers in the 4 MB that are read took half a gigabyte.
#[test]
fn a_configuration_of_more_values_than_any_has_is_refused() {
    let values = format!(r#"{{"model_type":"llama","list":[0{}]}}"#, ",0".repeat(1_000_000));
    let files: Files<'_> = &[("config.json", values.into_bytes()), ("model.safetensors", vectors(&["a"]))];
    let refused = open(files, "").unwrap_err();
    assert!(refused.kind() == ErrorKind::Config && refused.to_string().contains("values"), "{refused}");
}
