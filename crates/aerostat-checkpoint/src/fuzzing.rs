//! The parsers on bytes in memory, for fuzz targets.

#![allow(missing_docs, reason = "not part of the interface")]

use std::path::{Path, PathBuf};

use crate::{Catalog, Error, File, gguf, pytorch, safetensors};

pub fn safetensors(bytes: &[u8]) -> Result<Catalog, Error> {
    safetensors::read(bytes, file(bytes))
}

pub fn gguf(bytes: &[u8]) -> Result<(gguf::Metadata, Catalog), Error> {
    gguf::read(bytes, file(bytes), gguf::ALIGNMENT_DEFAULT)
}

pub fn pytorch(bytes: &[u8]) -> Result<Catalog, Error> {
    pytorch::read(std::io::Cursor::new(bytes), file(bytes))
}

pub fn index(bytes: &[u8]) -> Result<usize, Error> {
    safetensors::Index::parse(bytes, Path::new("index")).map(|index| index.tensors.len())
}

fn file(bytes: &[u8]) -> File {
    File { path: PathBuf::from("bytes"), bytes: bytes.len() as u64 }
}
