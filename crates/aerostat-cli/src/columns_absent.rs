//! In the place of `columns.rs` where Parquet is not built in: says so.

use std::fs::File;
use std::path::Path;

use aerostat_jobs::{Cells, Columns};

use crate::cell::Cell;
use crate::failure::Failure;

/// Reads Parquet files where that is built in; here there can be no value of this type.
pub(crate) enum Reader {}

/// Writes Parquet files where that is built in; here there can be no value of this type.
pub(crate) enum Writer {}

impl Reader {
    pub(crate) fn open(path: &Path, _columns: Columns) -> Result<Self, Failure> {
        Err(absent(path))
    }

    pub(crate) fn next(&mut self) -> Result<Option<Cells>, Failure> {
        match *self {}
    }
}

impl Writer {
    pub(crate) fn new(path: &Path, _file: File) -> Result<Self, Failure> {
        Err(absent(path))
    }

    pub(crate) fn write(&mut self, _cells: Vec<(&str, Cell)>) -> Result<(), Failure> {
        match *self {}
    }

    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self {}
    }
}

/// Refuses Parquet.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    Err(absent(path))
}

fn absent(path: &Path) -> Failure {
    Failure::usage(format!(
        "{}: Parquet is not built into this binary; build it with `--features parquet`, or use .jsonl or .csv",
        path.display()
    ))
}
