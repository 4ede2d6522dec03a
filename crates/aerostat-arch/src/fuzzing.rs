//! Descriptions of models made of bytes in memory, for fuzz targets.

#![allow(missing_docs, reason = "not part of the interface")]

use std::path::PathBuf;

use aerostat_checkpoint::{
    Catalog, Checkpoint, Config, DType, Extent, File, FileId, HfConfig, Tensor, TextFiles, fuzzing,
};
use serde_json::Value;

use crate::{Error, describe as whole};

/// Describes what `bytes` are: a GGUF file, or the JSON of a configuration, for which tensors are made as errors ask for them, up
/// to some.
pub fn describe(bytes: &[u8]) {
    const ASKED_MAX: usize = 64;
    if let Ok((metadata, catalog)) = fuzzing::gguf(bytes) {
        let _ = whole(&checkpoint(catalog, Config::Gguf(metadata)));
        return;
    }
    let Ok(config @ Value::Object(_)) = serde_json::from_slice(bytes) else { return };
    let hf = HfConfig { path: PathBuf::from("config.json"), config, generation: None };
    let mut tensors: Vec<(String, Vec<u64>)> = Vec::new();
    for _ in 0..ASKED_MAX {
        let Some(catalog) = catalog(&tensors) else { return };
        let Err(error) = whole(&checkpoint(catalog, Config::HuggingFace(hf.clone()))) else { return };
        if !answer(&error, &mut tensors) {
            return;
        }
    }
}

/// Makes the tensor that an error misses, or gives one the shape that it calls for.
fn answer(error: &Error, tensors: &mut Vec<(String, Vec<u64>)>) -> bool {
    let message = error.to_string();
    let Some(name) = message.split("tensor `").nth(1).and_then(|rest| rest.split('`').next()) else {
        return false;
    };
    let Some(shape) = message.split("calls for [").nth(1).and_then(|rest| rest.split(']').next()) else {
        if tensors.iter().any(|(known, _)| known == name) {
            return false;
        }
        tensors.push((name.to_owned(), vec![1, 1]));
        return true;
    };
    let shape: Vec<u64> = shape.split(", ").filter_map(|n| n.parse().ok()).collect();
    let bytes = shape.iter().try_fold(2u64, |bytes, n| bytes.checked_mul(*n));
    let Some(tensor) = tensors.iter_mut().find(|(known, _)| known == name) else { return false };
    let is_new = tensor.1 != shape && bytes.is_some_and(|bytes| bytes < 1 << 50);
    tensor.1 = shape;
    is_new
}

fn catalog(tensors: &[(String, Vec<u64>)]) -> Option<Catalog> {
    let mut offset = 0u64;
    let mut made = Vec::new();
    for (name, shape) in tensors {
        let bytes = shape.iter().try_fold(2u64, |bytes, n| bytes.checked_mul(*n))?;
        let extent = Extent { file: FileId(0), offset, bytes };
        made.push(Tensor { name: name.clone(), dtype: DType::BF16, shape: shape.clone(), extent });
        offset = offset.checked_add(bytes)?;
    }
    Catalog::new(vec![File { path: PathBuf::from("model.safetensors"), bytes: offset }], made).ok()
}

fn checkpoint(catalog: Catalog, config: Config) -> Checkpoint {
    Checkpoint { path: PathBuf::from("model"), catalog, config, text: TextFiles::Gguf, adapter: None }
}
