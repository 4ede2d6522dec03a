//! The parsers on bytes in memory, for fuzz targets.

#![allow(missing_docs, reason = "not part of the interface")]

use std::path::{Path, PathBuf};

use crate::{Catalog, DType, Error, Extent, File, FileId, Tensor, gguf, packed, pytorch, safetensors};

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

/// Any bytes as what follows the checksum of a packed folder's sidecar, which is made to fit. The folder has a tensor of
/// bytes and one of numbers.
pub fn sidecar(body: &[u8]) -> Result<Catalog, Error> {
    let path = Path::new("sidecar");
    let mut bytes = format!("{{\"crc32c\":\"{:08x}\",", crc32c::crc32c(body)).into_bytes();
    bytes.extend_from_slice(body);
    let sidecar = packed::Sidecar::parse(&bytes, path)?;
    let tensor = |name: &str, dtype, shape: &[u64], offset| Tensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        extent: Extent { file: FileId(0), offset, bytes: 8192 },
    };
    let tensors = vec![tensor("a", DType::U8, &[8192], 0), tensor("b", DType::BF16, &[64, 64], 8192)];
    let file = File { path: path.to_owned(), bytes: 16384 };
    packed::guarded(Catalog::new(vec![file], tensors)?, sidecar, path)
}

fn file(bytes: &[u8]) -> File {
    File { path: PathBuf::from("bytes"), bytes: bytes.len() as u64 }
}
