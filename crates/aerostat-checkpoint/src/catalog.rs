//! The catalogue: which tensors there are and where their bytes lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::name_shown;
use crate::{DType, Error, ErrorKind};

/// The index of a file in [`Catalog::files`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct FileId(pub u32);

/// A range of bytes on disk: `bytes` bytes from `offset` (from the start of the file).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extent {
    /// The file that the bytes are in.
    pub file: FileId,
    /// Bytes of the file before the range.
    pub offset: u64,
    /// Bytes in the range.
    pub bytes: u64,
}

/// A tensor: its name, type, shape and place.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name, unique in its catalogue.
    pub name: String,
    /// The type of the elements as stored.
    pub dtype: DType,
    /// The dimensions, outermost first (the last is contiguous) in both formats.
    pub shape: Vec<u64>,
    /// Where the bytes lie.
    pub extent: Extent,
}

/// A tile on disk: rows `start .. start + rows` of its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileRows {
    /// The first row of the tile, counted in its tensor.
    pub start: usize,
    /// Number of rows in the tile.
    pub rows: usize,
    /// Where the tile's bytes lie.
    pub extent: Extent,
}

/// A file that holds tensors.
#[derive(Clone, Debug)]
pub struct File {
    /// The path, as it can be opened.
    pub path: PathBuf,
    /// The length of the file in bytes when it was opened.
    pub bytes: u64,
}

/// All tensors of a checkpoint, in the order of their bytes and by name.
#[derive(Clone, Debug)]
pub struct Catalog {
    files: Vec<File>,
    /// Sorted by (file, offset).
    tensors: Vec<Tensor>,
    /// Indices into `tensors`, sorted by name; names are not stored twice.
    by_name: Vec<u32>,
    /// Of a packed folder.
    packing: Option<Arc<Packing>>,
}

#[derive(Debug)]
struct Packing {
    codec: String,
    guards: BTreeMap<String, Guard>,
}

/// How a tensor of a packed folder is guarded.
#[derive(Debug)]
pub(crate) enum Guard {
    /// By the tiles it is packed in; what it is when they are unpacked.
    Tiles { dtype: DType, shape: Vec<u64>, tiles: Arc<[TileRows]> },
    /// By the CRC-32C of its bytes.
    Whole(u32),
}

impl Tensor {
    /// The number of elements; saturates, which cannot happen for a tensor from a file.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &dimension| product.saturating_mul(dimension))
    }
}

impl Catalog {
    /// Makes a catalogue. The tensors may be in any order.
    ///
    /// # Errors
    /// [`ErrorKind::Header`] for a name that occurs twice, [`ErrorKind::ShapeMismatch`] for a length that is not that of
    /// shape and type, [`ErrorKind::OutOfRange`] for an extent outside its file, [`ErrorKind::Overlap`] for extents that
    /// share bytes.
    pub fn new(files: Vec<File>, tensors: Vec<Tensor>) -> Result<Catalog, Error> {
        let catalog = Catalog::sharing(files, tensors)?;
        check_overlap(&catalog.files, &catalog.tensors)?;
        Ok(catalog)
    }

    /// As [`new`](Self::new), where tensors may share bytes.
    pub(crate) fn sharing(files: Vec<File>, mut tensors: Vec<Tensor>) -> Result<Catalog, Error> {
        for tensor in &tensors {
            check_tensor(&files, tensor)?;
        }
        tensors.sort_by_key(|tensor| (tensor.extent.file, tensor.extent.offset, tensor.extent.bytes));
        let count = u32::try_from(tensors.len())
            .map_err(|_| Error::new(ErrorKind::Header, first_path(&files), "more than 2^32 tensors"))?;
        let mut by_name: Vec<u32> = (0..count).collect();
        by_name.sort_by(|&a, &b| name_at(&tensors, a).cmp(name_at(&tensors, b)));
        for pair in by_name.windows(2) {
            if let &[a, b] = pair
                && name_at(&tensors, a) == name_at(&tensors, b)
            {
                let path = |index| path_of(&files, tensor_file(&tensors, index));
                let message = format!("the name occurs twice, first in {}", path(a).display());
                return Err(Error::new(ErrorKind::Header, path(b), message).with_tensor(name_at(&tensors, b)));
            }
        }
        Ok(Catalog { files, tensors, by_name, packing: None })
    }

    /// One catalogue of several, whose files follow each other; of the tensors of catalogue `i`, those called `name`
    /// for which `keep(i, name)` holds. What may share bytes was decided when each was made.
    pub(crate) fn merge(
        catalogs: Vec<Catalog>,
        keep: impl Fn(usize, &str) -> bool,
    ) -> Result<Catalog, Error> {
        let (mut files, mut tensors) = (Vec::new(), Vec::new());
        for (position, catalog) in catalogs.into_iter().enumerate() {
            let start = files.len() as u32;
            files.extend(catalog.files);
            let kept = catalog.tensors.into_iter().filter(|tensor| keep(position, &tensor.name));
            tensors.extend(kept.map(|mut tensor| {
                tensor.extent.file.0 += start;
                tensor
            }));
        }
        Catalog::sharing(files, tensors)
    }

    /// The tensors of both, the files of `other` after those here.
    ///
    /// # Errors
    /// [`ErrorKind::Header`] for a name that both have.
    pub fn with(mut self, other: Catalog) -> Result<Catalog, Error> {
        if let Some(twice) = other.tensors.iter().find(|tensor| self.get(&tensor.name).is_some()) {
            let message =
                format!("the name is also that of a tensor in {}", first_path(&self.files).display());
            return Err(Error::new(ErrorKind::Header, other.file_of(twice), message).with_tensor(&twice.name));
        }
        let start = self.files.len() as u32;
        self.files.extend(other.files);
        self.tensors.extend(other.tensors.into_iter().map(|mut tensor| {
            tensor.extent.file.0 += start;
            tensor
        }));
        self.by_name = (0..self.tensors.len() as u32).collect();
        self.by_name.sort_by(|&a, &b| name_at(&self.tensors, a).cmp(name_at(&self.tensors, b)));
        Ok(self)
    }

    /// The same tensors with what a sidecar says of them, packed by this codec.
    pub(crate) fn guarded(mut self, guards: BTreeMap<String, Guard>, codec: String) -> Catalog {
        for tensor in &mut self.tensors {
            if let Some(Guard::Tiles { dtype, shape, .. }) = guards.get(&tensor.name) {
                (tensor.dtype, tensor.shape) = (*dtype, shape.clone());
            }
        }
        self.packing = Some(Arc::new(Packing { codec, guards }));
        self
    }

    /// The codec of a packed folder.
    pub fn codec(&self) -> Option<&str> {
        self.packing.as_ref().map(|packing| packing.codec.as_str())
    }

    /// The tiles of a packed tensor, first row to last. Its extent is theirs; type and shape are those it unpacks to.
    pub fn tiles(&self, name: &str) -> Option<&Arc<[TileRows]>> {
        match self.packing.as_ref()?.guards.get(name)? {
            Guard::Tiles { tiles, .. } => Some(tiles),
            Guard::Whole(_) => None,
        }
    }

    /// The CRC-32C that the bytes of a tensor of a packed folder must have, unless it is in tiles.
    pub fn checksum(&self, name: &str) -> Option<u32> {
        match self.packing.as_ref()?.guards.get(name)? {
            Guard::Tiles { .. } => None,
            Guard::Whole(crc32c) => Some(*crc32c),
        }
    }

    /// The files, indexed by [`FileId`].
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let position =
            self.by_name.binary_search_by(|&index| name_at(&self.tensors, index).cmp(name)).ok()?;
        self.tensors.get(*self.by_name.get(position)? as usize)
    }

    /// The tensor called `name`, which the model cannot do without.
    ///
    /// # Errors
    /// [`ErrorKind::MissingTensor`], naming it.
    pub fn require(&self, name: &str) -> Result<&Tensor, Error> {
        self.get(name).ok_or_else(|| {
            let message = format!("the checkpoint has no such tensor among its {}", self.len());
            Error::new(ErrorKind::MissingTensor, first_path(&self.files), message).with_tensor(name)
        })
    }

    /// The tensors in the order of their bytes: by file, then by offset.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter()
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The bytes of all tensors together; those that tensors share count once.
    pub fn weight_bytes(&self) -> u64 {
        let (mut sum, mut done) = (0u64, (FileId(0), 0));
        for Extent { file, offset, bytes } in self.tensors.iter().map(|tensor| tensor.extent) {
            let end = offset.saturating_add(bytes);
            let start = if done.0 == file { offset.max(done.1) } else { offset };
            sum = sum.saturating_add(end.saturating_sub(start));
            done = (file, end.max(start));
        }
        sum
    }

    /// The file in which a tensor of this catalogue lies; empty for a tensor of another catalogue.
    pub fn file_of(&self, tensor: &Tensor) -> &Path {
        path_of(&self.files, tensor.extent.file)
    }
}

/// The bytes a tensor of this type and shape takes. Blocks run along the last dimension and do not cross rows.
pub(crate) fn bytes_of(dtype: DType, shape: &[u64]) -> Result<u64, String> {
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &dimension| product.checked_mul(dimension))
        .ok_or_else(|| format!("the shape {shape:?} has more than 2^64 elements"))?;
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(dtype.block_len() as u64) {
        return Err(format!(
            "a row of the shape {shape:?} is not a multiple of the {} elements in a block of {dtype}",
            dtype.block_len()
        ));
    }
    dtype
        .bytes_for(elements)
        .ok_or_else(|| format!("{dtype} of the shape {shape:?} takes more than 2^64 bytes"))
}

fn check_tensor(files: &[File], tensor: &Tensor) -> Result<(), Error> {
    let extent = tensor.extent;
    let path = path_of(files, extent.file);
    let fail = |kind, message: String| Err(Error::new(kind, path, message).with_tensor(&tensor.name));
    match bytes_of(tensor.dtype, &tensor.shape) {
        Err(message) => return fail(ErrorKind::ShapeMismatch, message),
        Ok(bytes) if bytes != extent.bytes => {
            let message = format!(
                "{} of the shape {:?} takes {bytes} bytes, but the header gives it {}",
                tensor.dtype, tensor.shape, extent.bytes
            );
            return fail(ErrorKind::ShapeMismatch, message);
        }
        Ok(_) => {}
    }
    let Some(&File { bytes: file_bytes, .. }) = files.get(extent.file.0 as usize) else {
        return fail(ErrorKind::OutOfRange, format!("there is no file {}", extent.file.0));
    };
    match extent.offset.checked_add(extent.bytes) {
        Some(end) if end <= file_bytes => Ok(()),
        _ => fail(
            ErrorKind::OutOfRange,
            format!(
                "{} bytes at offset {} do not lie in the file of {file_bytes} bytes; if it was downloaded or copied, \
                 that was not finished",
                extent.bytes, extent.offset
            ),
        ),
    }
}

/// `tensors` are sorted by (file, offset) and have ends that do not overflow.
fn check_overlap(files: &[File], tensors: &[Tensor]) -> Result<(), Error> {
    let mut previous: Option<&Tensor> = None;
    for tensor in tensors.iter().filter(|tensor| tensor.extent.bytes > 0) {
        if let Some(before) = previous
            && before.extent.file == tensor.extent.file
            && before.extent.offset.saturating_add(before.extent.bytes) > tensor.extent.offset
        {
            let message = format!(
                "its bytes at offset {} overlap those of {:?}",
                tensor.extent.offset,
                name_shown(&before.name)
            );
            return Err(Error::new(ErrorKind::Overlap, path_of(files, tensor.extent.file), message)
                .with_tensor(&tensor.name));
        }
        previous = Some(tensor);
    }
    Ok(())
}

fn name_at(tensors: &[Tensor], index: u32) -> &str {
    tensors.get(index as usize).map_or("", |tensor| &tensor.name)
}

fn tensor_file(tensors: &[Tensor], index: u32) -> FileId {
    tensors.get(index as usize).map_or(FileId::default(), |tensor| tensor.extent.file)
}

fn path_of(files: &[File], file: FileId) -> &Path {
    files.get(file.0 as usize).map_or(Path::new(""), |file| &file.path)
}

fn first_path(files: &[File]) -> &Path {
    path_of(files, FileId(0))
}
