//! Reading the tables of PyTorch checkpoints: zip archives of a pickle that describes tensors and of their storages.
//!
//! Source: `torch/serialization.py` and `torch/_utils.py`. The pickle is interpreted by a machine that can make tensors,
//! dictionaries and nothing else: no code is run. Storages must lie uncompressed in the archive, so that a tensor is a
//! range of bytes of the file; tensors may share one, as tied weights do.

mod pickle;
mod zip;

use std::io::{Read, Seek};
use std::path::Path;

use self::pickle::{Record, Storage};
use self::zip::Archive;
use crate::{Catalog, Error, ErrorKind, Extent, File, FileId, Tensor, disk};

/// What a file of PyTorch before version 1.6 starts with: the magic number of that format as a pickle.
const OLD_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
/// The longest pickle that is read; that of a model with 100,000 tensors is 20 MB.
const PICKLE_BYTES_MAX: u64 = 32 << 20;
const PICKLE: &str = "data.pkl";
const BYTE_ORDER: &str = "byteorder";
const BYTE_ORDER_BYTES_MAX: u64 = 16;

/// Opens one PyTorch file.
pub(crate) fn open(path: &Path) -> Result<Catalog, Error> {
    let (source, file) = disk::open(path)?;
    read(source, file)
}

/// Reads the tables of one file of `file.bytes` bytes from `source`.
pub(crate) fn read(mut source: impl Read + Seek, file: File) -> Result<Catalog, Error> {
    let path = file.path.as_path();
    let fail = |(kind, message): (ErrorKind, String)| Error::new(kind, path, message);
    refuse_old(&mut source, &file)?;
    let mut archive = Archive::open(source, &file)?;
    let folder = archive.folder_of(PICKLE).map_err(fail)?;
    if let Some(order) = archive.read(&format!("{folder}{BYTE_ORDER}"), BYTE_ORDER_BYTES_MAX)?
        && order != b"little"
    {
        let message =
            "the tensors are big-endian, which is not read: save the checkpoint again on another machine";
        return Err(Error::new(ErrorKind::Unsupported, path, message));
    }
    let pickle = archive.read(&format!("{folder}{PICKLE}"), PICKLE_BYTES_MAX)?.unwrap_or_default();
    let (storages, records) =
        pickle::read(&pickle).map_err(|(kind, message)| fail((kind, format!("{PICKLE}: {message}"))))?;
    let places = places(&mut archive, &folder, &storages, &records, path)?;
    let tensors = records.into_iter().map(|record| {
        let name = record.name.clone();
        tensor(record, &storages, &places)
            .map_err(|(kind, message)| Error::new(kind, path, message).with_tensor(&name))
    });
    let tensors = tensors.collect::<Result<_, _>>()?;
    Catalog::sharing(vec![file], tensors)
}

fn refuse_old(source: &mut (impl Read + Seek), file: &File) -> Result<(), Error> {
    let path = file.path.as_path();
    let bytes = file.bytes.min(OLD_MAGIC.len() as u64);
    let start = disk::read_bytes(&mut *source, bytes, path)?;
    if start == OLD_MAGIC {
        let message = "this is the format of PyTorch before version 1.6, which is not read: take the model's \
                       safetensors, or load it with a newer PyTorch and save it again";
        return Err(Error::new(ErrorKind::Unsupported, path, message));
    }
    Ok(())
}

/// Where the bytes of each storage lie; none of them share any.
fn places(
    archive: &mut Archive<impl Read + Seek>,
    folder: &str,
    storages: &[Storage<'_>],
    records: &[Record],
    path: &Path,
) -> Result<Vec<Extent>, Error> {
    // Errors name the first tensor that is in a storage.
    let named =
        |number: usize, error: Error| match records.iter().find(|record| record.view.storage == number) {
            Some(record) => error.with_tensor(&record.name),
            None => error,
        };
    let mut places = Vec::with_capacity(storages.len());
    for (number, storage) in storages.iter().enumerate() {
        let place = place(archive, &format!("{folder}data/{}", storage.key), storage, path);
        places.push(place.map_err(|error| named(number, error))?);
    }
    let mut sorted: Vec<(usize, &Extent)> =
        places.iter().enumerate().filter(|(_, place)| place.bytes > 0).collect();
    sorted.sort_by_key(|(_, place)| place.offset);
    let shared = sorted.windows(2).find_map(|pair| match pair {
        &[(_, a), (number, b)] if a.offset.saturating_add(a.bytes) > b.offset => Some((number, b.offset)),
        _ => None,
    });
    match shared {
        Some((number, offset)) => {
            let message = format!("its storage at offset {offset} overlaps another");
            Err(named(number, Error::new(ErrorKind::Overlap, path, message)))
        }
        None => Ok(places),
    }
}

/// Where the bytes of the storage in the file `entry` of the archive lie.
fn place(
    archive: &mut Archive<impl Read + Seek>,
    entry: &str,
    storage: &Storage<'_>,
    path: &Path,
) -> Result<Extent, Error> {
    let Some((offset, bytes)) = archive.place(entry)? else {
        let message = format!("the archive has no {entry:?}, which {PICKLE} names");
        return Err(Error::new(ErrorKind::MissingTensor, path, message));
    };
    if storage.bytes() != Some(bytes) {
        let message = format!(
            "{entry:?} should hold {} elements of {} bytes, but it has {bytes} bytes",
            storage.elements,
            storage.element_bytes()
        );
        return Err(Error::new(ErrorKind::ShapeMismatch, path, message));
    }
    Ok(Extent { file: FileId(0), offset, bytes })
}

/// The tensor that a record describes, checked to lie within its storage and to be contiguous.
fn tensor(
    record: Record,
    storages: &[Storage<'_>],
    places: &[Extent],
) -> Result<Tensor, (ErrorKind, String)> {
    let Record { name, view } = record;
    let (Some(storage), Some(place)) = (storages.get(view.storage), places.get(view.storage)) else {
        return Err((ErrorKind::Header, "its storage is not known".to_owned()));
    };
    let dtype = view.dtype;
    if !is_contiguous(&view.shape, &view.strides) {
        let message = format!(
            "its strides {:?} are not those of a contiguous tensor of the shape {:?}; such views are not read: \
             save the checkpoint with contiguous tensors",
            view.strides, view.shape
        );
        return Err((ErrorKind::Unsupported, message));
    }
    let bytes = crate::catalog::bytes_of(dtype, &view.shape)
        .map_err(|message| (ErrorKind::ShapeMismatch, message))?;
    let start = view.offset.checked_mul(dtype.block_bytes() as u64);
    let end = start.and_then(|start| start.checked_add(bytes));
    match (start, end) {
        (Some(start), Some(end)) if end <= place.bytes => {
            let extent = Extent { file: place.file, offset: place.offset.saturating_add(start), bytes };
            Ok(Tensor { name, dtype, shape: view.shape, extent })
        }
        _ => {
            let message = format!(
                "{dtype} of the shape {:?} from element {} on exceeds its storage of {} bytes",
                view.shape,
                view.offset,
                storage.bytes().unwrap_or(0)
            );
            Err((ErrorKind::OutOfRange, message))
        }
    }
}

/// Whether these are the strides of rows that follow each other. Dimensions of one element may have any.
fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    if shape.len() != strides.len() {
        return false;
    }
    if shape.contains(&0) {
        return true;
    }
    let mut wanted = 1u64;
    for (&dimension, &stride) in shape.iter().zip(strides).rev() {
        if dimension != 1 && stride != wanted {
            return false;
        }
        wanted = wanted.saturating_mul(dimension);
    }
    true
}
