//! Which experts each sweep uses, written down: what `bench experts` looks at.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// One line of a trace: what a sweep uses of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExpertTraceLine {
    /// The sweep, counted from 0.
    pub sweep: u64,
    /// The block, counted from 0.
    pub layer: usize,
    /// Rows of the sweep.
    pub rows: usize,
    /// The experts that some row uses, each once, in the order of computing.
    pub experts: Vec<u32>,
}

/// The file that they are written to.
pub(crate) struct ExpertTrace {
    path: PathBuf,
    file: BufWriter<File>,
    /// Sweeps that have begun.
    begun: u64,
    rows: usize,
}

impl ExpertTrace {
    /// Begins a new file, over another trace but over nothing else.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let is_other = match read(path).map(|mut lines| lines.next()) {
            Ok(Some(line)) => line.is_err(),
            Ok(None) => false,
            Err(_) => path.exists(),
        };
        if is_other {
            let message =
                format!("{} is there and is no trace of experts: it is not written over", path.display());
            return Err(Error::new(ErrorKind::Usage, message));
        }
        let file = File::create(path).map_err(|e| failed("cannot be written", path, &e))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), begun: 0, rows: 0 })
    }

    /// A sweep begins.
    pub(crate) fn begin(&mut self, rows: usize) {
        self.begun += 1;
        self.rows = rows;
    }

    /// It uses these experts of a block.
    pub(crate) fn write(&mut self, layer: usize, experts: &[u32]) -> Result<(), Error> {
        let sweep = self.begun.saturating_sub(1);
        let line = ExpertTraceLine { sweep, layer, rows: self.rows, experts: experts.to_vec() };
        let written = serde_json::to_writer(&mut self.file, &line).map_err(io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|e| failed("cannot be written", &self.path, &e))
    }
}

impl Drop for ExpertTrace {
    fn drop(&mut self) {
        // A line that a full disk has no room for is cut short, and said to be when it is read.
        let _ = self.file.flush();
    }
}

/// The lines of a trace.
///
/// # Errors
/// [`ErrorKind::Usage`]: the file cannot be read, or a line is none of a trace; the message names it.
pub(crate) fn read(path: &Path) -> Result<impl Iterator<Item = Result<ExpertTraceLine, Error>>, Error> {
    let file = File::open(path).map_err(|e| failed("cannot be read", path, &e))?;
    let path = path.to_owned();
    let lines = io::BufReader::new(file).lines().enumerate().map(move |(number, line)| {
        let line = line.map_err(|e| failed("cannot be read", &path, &e))?;
        serde_json::from_str(&line).map_err(|e| {
            let message =
                format!("{}: line {} is none of a trace of experts: {e}", path.display(), number + 1);
            Error::new(ErrorKind::Usage, message)
        })
    });
    Ok(lines)
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Usage, format!("the trace of experts {} {what}: {error}", path.display()))
}
