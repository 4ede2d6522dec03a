//! Descriptions of models made of bytes in memory, for fuzz targets.

#![allow(missing_docs, reason = "not part of the interface")]

use std::path::PathBuf;

use aerostat_checkpoint::{
    Catalog, Checkpoint, Config, DType, Extent, File, FileId, HfConfig, Tensor, TextFiles, fuzzing,
};
use serde_json::Value;

use crate::{Error, ModelSpec, describe as whole};

/// Describes what `bytes` are: a GGUF file, or the JSON of a configuration.
pub fn describe(bytes: &[u8]) {
    if let Ok((metadata, catalog)) = fuzzing::gguf(bytes) {
        let _ = whole(&checkpoint(catalog, Config::Gguf(metadata)));
        return;
    }
    if let Ok(config @ Value::Object(_)) = serde_json::from_slice(bytes) {
        let _ = described(config);
    }
}

/// The model that a configuration describes, whose tensors are made as errors ask for them, up to some.
///
/// # Errors
/// The last one, where no tensor is of help.
pub fn described(config: Value) -> Result<ModelSpec, Error> {
    const ASKED_MAX: usize = 256;
    let config =
        Config::HuggingFace(HfConfig { path: PathBuf::from("config.json"), config, generation: None });
    let mut tensors: Vec<(String, Vec<u64>)> = Vec::new();
    for _ in 0..ASKED_MAX {
        let Some(catalog) = catalog(&tensors) else { break };
        match whole(&checkpoint(catalog, config.clone())) {
            Err(error) if answer(&error, &mut tensors) => {}
            result => return result,
        }
    }
    Err(Error::defect("config.json", "it asks for ever more tensors"))
}

/// Makes the tensor that an error misses, or gives one the shape that it calls for.
fn answer(error: &Error, tensors: &mut Vec<(String, Vec<u64>)>) -> bool {
    let message = error.to_string();
    let Some(name) = message.split("tensor `").nth(1).and_then(|rest| rest.split('`').next()) else {
        return false;
    };
    let after =
        |words: &str| message.split(words).nth(1).map(|rest| rest.split([']', ';']).next().unwrap_or(rest));
    let shape = after("calls for [").map(str::to_owned);
    // Of embeddings the rows alone are said.
    let shape = shape.or_else(|| Some(format!("{}, 1", after("`vocab_size` is ")?)));
    let Some(shape) = shape else {
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
