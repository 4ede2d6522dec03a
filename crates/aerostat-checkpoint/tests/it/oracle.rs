//! Files written by the Python packages hold what those packages say they hold.

use std::fs;
use std::path::PathBuf;

use aerostat_checkpoint::gguf::{Metadata, Value};
use aerostat_checkpoint::{Catalog, Checkpoint, Config, fuzzing};
use serde_json::{Value as Json, json};

#[test]
fn gguf_is_read_as_python_wrote_it() {
    let checkpoint = Checkpoint::open(&fixture("python.gguf")).unwrap();
    let expected = listing();
    assert_tensors(&checkpoint.catalog, &expected["gguf"]["tensors"]);
    let Config::Gguf(metadata) = &checkpoint.config else { panic!("not GGUF") };
    let found: serde_json::Map<String, Json> =
        metadata.keys().map(|key| (key.into(), value(metadata, key))).collect();
    assert_eq!(Json::Object(found), expected["gguf"]["metadata"]);
}

#[test]
fn safetensors_is_read_as_python_wrote_it() {
    let catalog = fuzzing::safetensors(&fs::read(fixture("python.safetensors")).unwrap()).unwrap();
    assert_tensors(&catalog, &listing()["safetensors"]["tensors"]);
}

#[test]
fn pytorch_is_read_as_python_wrote_it() {
    let catalog = fuzzing::pytorch(&fs::read(fixture("python.bin")).unwrap()).unwrap();
    assert_tensors(&catalog, &listing()["pytorch"]["tensors"]);
    // Tensors that share a storage count once.
    let sum: u64 = catalog.tensors().map(|tensor| tensor.extent.bytes).sum();
    assert_eq!(catalog.weight_bytes(), sum - (96 + 32 + 4));
}

/// Compares with a list of [name, type, shape, offset, bytes] in any order.
fn assert_tensors(catalog: &Catalog, expected: &Json) {
    let expected = expected.as_array().unwrap();
    assert_eq!(catalog.len(), expected.len());
    for entry in expected {
        let tensor = catalog.require(entry[0].as_str().unwrap()).unwrap();
        let extent = tensor.extent;
        let found = json!([tensor.name, tensor.dtype.name(), tensor.shape, extent.offset, extent.bytes]);
        assert_eq!(&found, entry);
    }
}

fn value(metadata: &Metadata, key: &str) -> Json {
    match metadata.get(key).unwrap() {
        Value::Bool(value) => json!(value),
        Value::String(value) => json!(value),
        Value::F32(_) | Value::F64(_) => json!(metadata.f64(key)),
        Value::Array(array) => match (array.strings(), array.f32s(), array.ints(), array.bools()) {
            (Some(strings), ..) => strings.map(|bytes| json!(str::from_utf8(bytes).unwrap())).collect(),
            (_, Some(floats), ..) => floats.map(|float| json!(float)).collect(),
            (_, _, Some(ints), _) => ints.map(|int| json!(int)).collect(),
            (.., bools) => bools.unwrap().map(|bool| json!(bool)).collect(),
        },
        _ => metadata.u64(key).map_or_else(|| json!(metadata.i64(key)), |value| json!(value)),
    }
}

fn listing() -> Json {
    serde_json::from_slice(&fs::read(fixture("python.json")).unwrap()).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
