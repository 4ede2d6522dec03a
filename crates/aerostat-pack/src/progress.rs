//! What the caller is told of a packing, as it goes and at its end.

use std::path::PathBuf;

/// How far packing is.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// The tensor that was finished, and what became of it.
    pub tensor: Option<Packed<'a>>,
    /// Bytes of the original that are done, those of earlier calls included.
    pub done: u64,
    /// Of these.
    pub total: u64,
    /// Bytes written for them.
    pub written: u64,
    /// Bytes that an earlier call had done.
    pub resumed: u64,
    /// What is done is being read back.
    pub verifying: bool,
}

/// A tensor that was packed.
#[derive(Clone, Debug)]
pub struct Packed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its format in the copy.
    pub dtype: &'a str,
    /// Bytes before and after.
    pub bytes: (u64, u64),
    /// Root of the mean square of the error over that of the weights; 0: nothing was lost.
    pub error: f64,
}

/// What packing made.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The folder.
    pub path: PathBuf,
    /// Bytes of all tensors before.
    pub source_bytes: u64,
    /// Bytes of the shards.
    pub bytes: u64,
    /// Tensors.
    pub tensors: usize,
    /// The tensor with the largest error, and that.
    pub worst: Option<(String, f64)>,
    /// Everything was read back and checked.
    pub verified: bool,
    /// Files of the original that were deleted.
    pub deleted: Vec<PathBuf>,
}
