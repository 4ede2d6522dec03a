//! Packed folders: safetensors shards whose matrices are packed tiles, and a sidecar that says so.
//!
//! `docs/format.md` describes both byte by byte. A matrix is a tensor of `U8` in its shard; the sidecar gives its format,
//! its shape and the rows and bytes of its tiles. What is not a matrix lies in the shard as it was, and the sidecar has
//! its CRC-32C. The headers of shards, the other files of the model, and the sidecar itself have one, too.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::Guard;
pub use crate::catalog::TileRows;
use crate::limits::{HEADER_BYTES_MAX, TENSORS_MAX};
use crate::{Catalog, DType, Error, ErrorKind, Extent, disk};

/// The name of the sidecar.
pub const SIDECAR: &str = "aerostat.json";
/// The folder in which a packing that is not finished keeps its notes.
pub const NOTES: &str = "aerostat-pack";
/// Tiles begin and end at multiples of this.
pub const TILE_ALIGN_BYTES: u64 = 4096;
const FORMAT: &str = "aerostat-pack";
const VERSION: u32 = 1;
const PREFIX: &str = "{\"crc32c\":\"";

/// What a packed folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// The name of the format: `aerostat-pack`.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// How weights are stored: `lossless`, `q8` or `q4`.
    pub codec: String,
    /// The checkpoint that the folder is a copy of.
    pub source: Source,
    /// Numbers of the packing by name, such as bytes of a tile.
    pub parameters: BTreeMap<String, u64>,
    /// The safetensors files of the folder, in the order of their names.
    pub shards: Vec<Shard>,
    /// The other files of the model: configuration, tokenizer, template.
    #[serde(default)]
    pub files: Vec<Beside>,
    /// The tensors of all files, packed or not.
    pub tensors: Vec<Entry>,
}

/// What a packed folder was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Bytes of the tensors of the checkpoint that was packed.
    pub bytes: u64,
    /// SHA-256 over names, types, shapes and CRC-32C of those tensors, in hexadecimal.
    pub digest: String,
}

/// A file of a packed folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// The name of the file in the folder.
    pub file: String,
    /// The length of the file.
    pub bytes: u64,
    /// Bytes of the file before its tensors.
    pub header_bytes: u64,
    /// CRC-32C of the bytes before the tensors.
    pub header_crc32c: u32,
}

/// A file of a packed folder that holds no tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// The name of the file in the folder.
    pub file: String,
    /// The length of the file.
    pub bytes: u64,
    /// CRC-32C of the whole file.
    pub crc32c: u32,
}

/// A tensor of a packed folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The name of the tensor.
    pub name: String,
    /// The type of the tensor's elements once it is unpacked, as safetensors names it.
    pub dtype: String,
    /// The shape of the tensor once it is unpacked; the last dimension are columns, all others rows.
    pub shape: Vec<u64>,
    /// The last two dimensions of the tensor were exchanged before it was packed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transposed: bool,
    /// Rows and bytes of each tile of the tensor, first to last; empty: it is not packed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiles: Vec<(u64, u64)>,
    /// CRC-32C of the tensor's bytes, if it is not packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<u32>,
}

impl Sidecar {
    /// A sidecar without shards and tensors.
    pub fn new(codec: &str, source: Source, parameters: BTreeMap<String, u64>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            codec: codec.to_owned(),
            source,
            parameters,
            shards: Vec::new(),
            files: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// The content of the file: an object whose first member is the CRC-32C of all that follows it.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and lists of them always serialise.
        let json = serde_json::to_string(self).unwrap_or_default();
        let body = json.get(1..).unwrap_or_default();
        format!("{PREFIX}{:08x}\",{body}", crc32c::crc32c(body.as_bytes())).into_bytes()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `path` is for errors.
    ///
    /// # Errors
    /// [`ErrorKind::Header`]: it is damaged, malformed, or of another version.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let fail = |message: &str| Error::new(ErrorKind::Header, path, message);
        let damaged = || fail("its checksum does not fit: the file is damaged; pack the model again");
        let rest = bytes.strip_prefix(PREFIX.as_bytes()).ok_or_else(damaged)?;
        let (crc, rest) = rest.split_at_checked(8).ok_or_else(damaged)?;
        let body = rest.strip_prefix(b"\",").ok_or_else(damaged)?;
        if format!("{:08x}", crc32c::crc32c(body)).as_bytes() != crc {
            return Err(damaged());
        }
        let json = [b"{", body].concat();
        let sidecar: Self = serde_json::from_slice(&json).map_err(|error| fail(&error.to_string()))?;
        if sidecar.format != FORMAT || sidecar.version != VERSION {
            let message = format!(
                "version {} of {:?} is not known here; a newer aerostat may read it, or pack the model again",
                sidecar.version, sidecar.format
            );
            return Err(fail(&message));
        }
        if sidecar.tensors.len() > TENSORS_MAX {
            return Err(fail("it names too many tensors"));
        }
        Ok(sidecar)
    }
}

/// Reads the sidecar in `folder` and gives the catalogue of its shards what it says.
pub(crate) fn open(folder: &Path, catalog: Catalog) -> Result<Catalog, Error> {
    let path = folder.join(SIDECAR);
    let sidecar = Sidecar::parse(&disk::read(&path, HEADER_BYTES_MAX)?, &path)?;
    for shard in &sidecar.shards {
        check_shard(&catalog, shard, &path)?;
    }
    for file in &sidecar.files {
        check_beside(folder, file)?;
    }
    if sidecar.shards.len() != catalog.files().len() || sidecar.tensors.len() != catalog.len() {
        let message = "it does not name all files and tensors of the folder, or more; pack the model again";
        return Err(Error::new(ErrorKind::Header, &path, message));
    }
    guarded(catalog, sidecar, &path)
}

/// A catalogue with what its sidecar says of its tensors.
pub(crate) fn guarded(catalog: Catalog, sidecar: Sidecar, path: &Path) -> Result<Catalog, Error> {
    let mut guards = BTreeMap::new();
    for entry in &sidecar.tensors {
        let guard = guard(&catalog, entry).map_err(|(kind, message)| {
            Error::new(kind, path, format!("{message}; pack the model again")).with_tensor(&entry.name)
        })?;
        guards.insert(entry.name.clone(), guard);
    }
    Ok(catalog.guarded(guards, sidecar.codec))
}

/// The shard is there, as long as it was, with the header that it had.
fn check_shard(catalog: &Catalog, shard: &Shard, sidecar: &Path) -> Result<(), Error> {
    let named = |path: &Path| path.file_name().and_then(|name| name.to_str()) == Some(&shard.file);
    let Some(file) = catalog.files().iter().find(|file| named(&file.path)) else {
        let message = format!("it names the file {:?}, which is not there", shard.file);
        return Err(Error::new(ErrorKind::MissingShard, sidecar, message));
    };
    let damaged =
        || Error::new(ErrorKind::Header, &file.path, "the packed file is damaged; pack the model again");
    if file.bytes != shard.bytes || shard.header_bytes > file.bytes.min(HEADER_BYTES_MAX + 8) {
        return Err(damaged());
    }
    let (source, _) = disk::open(&file.path)?;
    let header = disk::read_bytes(source.take(shard.header_bytes), shard.header_bytes, &file.path)?;
    if crc32c::crc32c(&header) == shard.header_crc32c { Ok(()) } else { Err(damaged()) }
}

/// The file is what it was when the model was packed.
fn check_beside(folder: &Path, beside: &Beside) -> Result<(), Error> {
    let path = folder.join(&beside.file);
    if path.file_name() != Some(beside.file.as_ref()) {
        let message = format!("it names {:?}, which is no name of a file", beside.file);
        return Err(Error::new(ErrorKind::Header, folder, message));
    }
    let (mut source, file) = disk::open(&path)?;
    let (mut crc, mut left) = (0, file.bytes);
    while left > 0 {
        let bytes = source.fill_buf().map_err(|error| Error::io(&path, "read it", error))?;
        if bytes.is_empty() {
            break;
        }
        crc = crc32c::crc32c_append(crc, bytes);
        let count = bytes.len();
        left = left.saturating_sub(count as u64);
        source.consume(count);
    }
    if (file.bytes, crc) == (beside.bytes, beside.crc32c) {
        return Ok(());
    }
    let message = "it is not what it was when the model was packed: damaged or edited; put the original back, or change \
                   that and pack it again";
    Err(Error::new(ErrorKind::Header, &path, message))
}

/// What guards a tensor, and what it is once it is unpacked.
fn guard(catalog: &Catalog, entry: &Entry) -> Result<Guard, (ErrorKind, String)> {
    let fail = |kind, message: &str| Err((kind, message.to_owned()));
    let Some(tensor) = catalog.get(&entry.name) else {
        return fail(ErrorKind::MissingTensor, "it is in no file");
    };
    if entry.tiles.is_empty() {
        return match entry.crc32c {
            Some(crc32c) if tensor.dtype.name() == entry.dtype && tensor.shape == entry.shape => {
                Ok(Guard::Whole(crc32c))
            }
            _ => fail(ErrorKind::Header, "the sidecar does not describe it as it is"),
        };
    }
    let dtype = DType::PACKED.iter().copied().find(|dtype| dtype.name() == entry.dtype);
    let Some(dtype) = dtype else {
        return fail(ErrorKind::UnknownDType, "its format is not known");
    };
    let Some((&cols, rows)) = entry.shape.split_last() else {
        return fail(ErrorKind::ShapeMismatch, "what is packed has columns");
    };
    let rows = rows.iter().fold(1, |rows: u64, &n| rows.saturating_mul(n));
    if tensor.dtype != DType::U8 || !cols.is_multiple_of(dtype.block_len() as u64) {
        return fail(ErrorKind::ShapeMismatch, "its format and shape do not fit each other");
    }
    let (mut start, mut offset, mut tiles) = (0u64, tensor.extent.offset, Vec::new());
    let end = tensor.extent.offset.saturating_add(tensor.extent.bytes);
    for &(rows, bytes) in &entry.tiles {
        let extent = Extent { file: tensor.extent.file, offset, bytes };
        if rows == 0 || bytes == 0 || bytes > end - offset || !bytes.is_multiple_of(TILE_ALIGN_BYTES) {
            return fail(ErrorKind::OutOfRange, "a tile of it does not lie within it");
        }
        let place = usize::try_from(start).ok().zip(usize::try_from(rows).ok());
        let Some((first, count)) = place else {
            return fail(ErrorKind::OutOfRange, "it has more rows than memory has bytes");
        };
        tiles.push(TileRows { start: first, rows: count, extent });
        (start, offset) = (start.saturating_add(rows), offset + bytes);
    }
    if start != rows || offset != end {
        return fail(ErrorKind::ShapeMismatch, "its tiles are not exactly its rows and its bytes");
    }
    Ok(Guard::Tiles { dtype, shape: entry.shape.clone(), tiles: Arc::from(tiles) })
}
