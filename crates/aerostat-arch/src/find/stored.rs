//! The tensors of a checkpoint by name, each checked to be what is looked for.

use aerostat_checkpoint::{Catalog, DType, Tensor};

use crate::config::Keys;
use crate::error::{Error, ErrorKind};

/// Part of the names of what PyTorch makes a weight of, by `torch.nn.utils.parametrize`.
pub(crate) const PARAMETRISED: &str = ".parametrizations.";

/// The tensors of a checkpoint, and who looks for them.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) keys: &'a Keys<'a>,
    /// Name of the family.
    pub(super) model: &'static str,
}

impl<'a> Stored<'a> {
    /// The tensor of this name, if there is one; where PyTorch has made a parameter of a weight, that is called the original.
    pub(super) fn get(self, name: &str) -> Option<&'a Tensor> {
        self.catalog.get(name).or_else(|| {
            let stem = name.strip_suffix(".weight")?;
            self.catalog.get(&format!("{stem}{PARAMETRISED}weight.original"))
        })
    }

    /// Whether the checkpoint has a tensor of this name.
    pub(super) fn contains(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The tensor of this name, which must have this shape and a type that can be computed with.
    pub(super) fn require_computable(self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.require_shape(name, shape)?;
        self.computable(tensor)
    }

    /// The tensor of this name, which must have this shape.
    pub(super) fn require_shape(self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.require(name)?;
        let wanted: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
        let is_alike = match self.keys.is_gguf() {
            true => without_ones(&tensor.shape) == without_ones(&wanted),
            false => tensor.shape == wanted,
        };
        if !is_alike {
            return Err(self.bad(tensor, format!("the configuration calls for {shape:?}")));
        }
        Ok(tensor)
    }

    /// The sizes of a tensor that is taken to have so many dimensions. In GGUF, further ones of size 1 mean nothing, and are
    /// left out or added; `None` where the tensor has others.
    pub(super) fn sizes<const N: usize>(self, tensor: &Tensor) -> Option<[usize; N]> {
        let shape = match self.keys.is_gguf() {
            true => without_ones(&tensor.shape),
            false => &tensor.shape,
        };
        let missing = N.checked_sub(shape.len()).filter(|missing| *missing == 0 || self.keys.is_gguf())?;
        let mut sizes = [1; N];
        for (size, own) in sizes.iter_mut().skip(missing).zip(shape) {
            *size = usize::try_from(*own).ok()?;
        }
        Some(sizes)
    }

    /// The tensor itself, whose type must be one that can be computed with.
    pub(super) fn computable(self, tensor: &'a Tensor) -> Result<&'a Tensor, Error> {
        if !DType::COMPUTABLE.contains(&tensor.dtype) {
            let message = format!(
                "tensor `{}` is stored as {}, which is not supported yet",
                tensor.name,
                tensor.dtype.name()
            );
            return Err(Error::new(ErrorKind::Unsupported, self.catalog.file_of(tensor), message));
        }
        Ok(tensor)
    }

    /// The tensor of this name, which must have this shape, a type that can be computed with, and lie unpacked.
    pub(super) fn require_plain(self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.require_computable(name, shape)?;
        match self.catalog.tiles(name) {
            None => Ok(tensor),
            Some(_) => Err(self.bad(tensor, "it is packed, which only matrices may be".to_owned())),
        }
    }

    /// The tensor of this name.
    pub(super) fn require(self, name: &str) -> Result<&'a Tensor, Error> {
        self.get(name).ok_or_else(|| {
            let message =
                format!("the model `{}` needs a tensor `{name}`, which is not in the checkpoint", self.model);
            Error::new(ErrorKind::MissingTensor, self.keys.path(), message)
        })
    }

    /// An error about a tensor.
    pub(super) fn bad(self, tensor: &Tensor, why: String) -> Error {
        let message = format!("tensor `{}` has shape {:?}; {why}", tensor.name, tensor.shape);
        Error::new(ErrorKind::Tensor, self.catalog.file_of(tensor), message)
    }
}

/// A shape without outer dimensions of size 1, but for the last.
fn without_ones(shape: &[u64]) -> &[u64] {
    let ones = shape.iter().take_while(|n| **n == 1).count();
    shape.get(ones.min(shape.len().saturating_sub(1))..).unwrap_or(shape)
}
